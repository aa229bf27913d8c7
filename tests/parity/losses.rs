//! Every loss against Sentence Transformers: its value, and its gradients with respect to
//! the embeddings and to its own parameters.

use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use sentence_burn::loss::*;
use sentence_burn::model::{Mode, Pass};
use sentence_burn::{SentenceTransformer, SimilarityFunction};
use serde_json::Value;

use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
use crate::fixture::{Expected, TOLERANCE, json, path, strings, values};

type B = TestAutodiffBackend;

/// A loss of whatever type, and the linear layer that it may have.
struct Case {
    forward: Box<dyn Fn(LossInput<B>) -> Tensor<B, 1>>,
    head: Option<LinearHead<B>>,
}

fn case<L: Loss<B> + 'static>(loss: L) -> Case {
    Case {
        forward: Box::new(move |input| loss.forward(input)),
        head: None,
    }
}

fn mnrl(
    change: impl FnOnce(&mut MultipleNegativesRankingLossConfig),
) -> MultipleNegativesRankingLoss {
    let mut config = MultipleNegativesRankingLossConfig::default();
    change(&mut config);
    config.init().unwrap()
}

fn gist(change: impl FnOnce(&mut GISTEmbedLossConfig)) -> GISTEmbedLoss {
    let mut config = GISTEmbedLossConfig {
        temperature: 0.05,
        ..Default::default()
    };
    change(&mut config);
    config.init().unwrap()
}

fn everywhere() -> Vec<Direction> {
    vec![
        Direction::QueryToDoc,
        Direction::QueryToQuery,
        Direction::DocToQuery,
        Direction::DocToDoc,
    ]
}

fn cached<L: Loss<B>>(loss: L) -> CachedLoss<B, L> {
    CachedLoss::new(loss, 4).unwrap()
}

fn matryoshka<L: Loss<B>>(weights: [f64; 3], loss: L) -> MatryoshkaLoss<B, L> {
    let config = MatryoshkaLossConfig {
        matryoshka_weights: Some(weights.into()),
        ..MatryoshkaLossConfig::new([2, 5, 3])
    };
    config.init(loss).unwrap()
}

const WEIGHTS: [f64; 3] = [0.5, 1.0, 2.0];

fn head(parameters: &str, tensors: &Expected) -> LinearHead<B> {
    let data = |part| tensors.data(&format!("{parameters}.{part}"));
    let weight = Tensor::from_data(data("weight"), &device());
    let bias = Tensor::from_data(data("bias"), &device());
    LinearHead::from_weights(Param::from_tensor(weight), Param::from_tensor(bias))
}

fn softmax(read: [bool; 3], parameters: &str, tensors: &Expected) -> Case {
    let config = SoftmaxLossConfig {
        concatenation_sent_rep: read[0],
        concatenation_sent_difference: read[1],
        concatenation_sent_multiplication: read[2],
        ..SoftmaxLossConfig::new(5, 3)
    };
    let mut loss = config.init::<B>(&device()).unwrap();
    loss.classifier = head(parameters, tensors);
    let head = Some(loss.classifier.clone());
    Case { head, ..case(loss) }
}

fn distill(metric: EmbedDistillMetric, projected: Option<&Expected>) -> Case {
    let config = EmbedDistillLossConfig {
        distance_metric: metric,
        projection: None,
    };
    let mut loss = config.init::<B>(&device()).unwrap();
    loss.projection = projected.map(|tensors| head("projection", tensors));
    let head = loss.projection.clone();
    Case { head, ..case(loss) }
}

/// The loss of a case of the fixture and, as a control, one that must not pass for it.
fn build(name: &str, t: &Expected) -> (Case, Case) {
    use {EmbedDistillMetric as Distill, SiameseDistanceMetric as Siamese};
    use {SimilarityFunction as Sim, TripletDistanceMetric as Distance};
    let batch_cosine = BatchHardTripletLossDistanceFunction::CosineDistance;
    let cosent = |scale, similarity| CoSENTLossConfig { scale, similarity }.init().unwrap();
    let angle = |scale| AnglELossConfig { scale }.init().unwrap();
    let contrastive = |distance_metric, margin, size_average| {
        let config = ContrastiveLossConfig {
            distance_metric,
            margin,
            size_average,
        };
        config.init().unwrap()
    };
    let online = |distance_metric, margin| {
        let config = OnlineContrastiveLossConfig {
            distance_metric,
            margin,
        };
        config.init().unwrap()
    };
    let triplet = |distance_metric, triplet_margin| {
        let config = TripletLossConfig {
            distance_metric,
            triplet_margin,
        };
        config.init().unwrap()
    };
    macro_rules! batch_triplet {
        ($config:ident, $distance:expr, $margin:expr) => {{
            let config = $config {
                distance_metric: $distance,
                margin: $margin,
            };
            config.init().unwrap()
        }};
    }
    let soft = |distance_metric| BatchHardSoftMarginTripletLossConfig { distance_metric }.init();
    let margin_mse = |similarity| MarginMSELossConfig { similarity }.init();
    let kl = |similarity, student, teacher| {
        let config = DistillKLDivLossConfig {
            similarity,
            student_temperature: Some(student),
            teacher_temperature: Some(teacher),
            ..Default::default()
        };
        config.init().unwrap()
    };
    let mega = |positive_margin, negative_margin| {
        let config = MegaBatchMarginLossConfig {
            positive_margin,
            negative_margin,
            ..Default::default()
        };
        config.init().unwrap()
    };
    let gor = |similarity, mean_weight, second_moment_weight, aggregation| {
        let config = GlobalOrthogonalRegularizationLossConfig {
            similarity,
            mean_weight,
            second_moment_weight,
            aggregation,
        };
        config.init().unwrap()
    };
    let mse = || MSELossConfig::default().init::<B>(&device()).unwrap();
    let hard = |mode| {
        mnrl(|c| {
            c.hardness_mode = Some(mode);
            c.hardness_strength = 5.0;
        })
    };
    let symmetric = |scale| {
        let config = MultipleNegativesSymmetricRankingLossConfig {
            scale,
            ..Default::default()
        };
        config.init().unwrap()
    };
    let both = [Direction::QueryToDoc, Direction::DocToQuery];
    let euclidean = BatchHardTripletLossDistanceFunction::EuclideanDistance;
    match name {
        "mnrl" => (case(mnrl(|_| ())), case(mnrl(|c| c.scale = 1.0))),
        "mnrl.negatives" => (case(mnrl(|_| ())), case(mnrl(|c| c.scale = 19.0))),
        "mnrl.dot" => {
            let dot = |scale| mnrl(|c| (c.scale, c.similarity) = (scale, Sim::Dot));
            (case(dot(1.0)), case(dot(1.1)))
        }
        "mnrl.euclidean" => {
            let by = |similarity| mnrl(|c| (c.scale, c.similarity) = (1.0, similarity));
            (case(by(Sim::Euclidean)), case(by(Sim::Manhattan)))
        }
        "mnrl.manhattan" => {
            let by = |similarity| mnrl(|c| (c.scale, c.similarity) = (0.5, similarity));
            (case(by(Sim::Manhattan)), case(by(Sim::Euclidean)))
        }
        "mnrl.query_to_query" => {
            let to = |direction| mnrl(|c| c.directions.push(direction));
            (
                case(to(Direction::QueryToQuery)),
                case(to(Direction::DocToDoc)),
            )
        }
        "mnrl.doc_to_doc" => {
            let to = |direction| mnrl(|c| c.directions.push(direction));
            (
                case(to(Direction::DocToDoc)),
                case(to(Direction::DocToQuery)),
            )
        }
        "mnrl.everywhere" => (
            case(mnrl(|c| c.directions = everywhere())),
            case(mnrl(|c| c.directions = everywhere()[..3].into())),
        ),
        "mnrl.both_ways_joint" => (
            case(mnrl(|c| c.directions = both.into())),
            case(mnrl(|c| {
                c.directions = both.into();
                c.partition_mode = PartitionMode::PerDirection;
            })),
        ),
        "mnrl.both_ways" => (
            case(mnrl(|c| {
                c.directions = both.into();
                c.partition_mode = PartitionMode::PerDirection;
            })),
            case(mnrl(|c| c.directions = both.into())),
        ),
        "mnrl.in_batch_negatives" => (
            case(hard(HardnessMode::InBatchNegatives)),
            case(hard(HardnessMode::AllNegatives)),
        ),
        "mnrl.hard_negatives" => (
            case(hard(HardnessMode::HardNegatives)),
            case(hard(HardnessMode::InBatchNegatives)),
        ),
        "mnrl.all_negatives" => (
            case(hard(HardnessMode::AllNegatives)),
            case(hard(HardnessMode::HardNegatives)),
        ),
        "mnrl.cached" => {
            let with = |strength| {
                cached(mnrl(|c| {
                    c.directions = everywhere();
                    c.hardness_mode = Some(HardnessMode::AllNegatives);
                    c.hardness_strength = strength;
                }))
            };
            (case(with(9.0)), case(with(8.0)))
        }
        "symmetric" => (case(symmetric(20.0)), case(mnrl(|_| ()))),
        "symmetric.cached" => (case(cached(symmetric(20.0))), case(cached(symmetric(19.0)))),

        "cosent" => (
            case(cosent(20.0, Sim::Cosine)),
            case(cosent(19.0, Sim::Cosine)),
        ),
        "cosent.euclidean" => (
            case(cosent(2.0, Sim::Euclidean)),
            case(cosent(2.0, Sim::Manhattan)),
        ),
        "angle" => (case(angle(20.0)), case(cosent(20.0, Sim::Cosine))),
        "angle.even" => (case(angle(5.0)), case(cosent(5.0, Sim::Cosine))),
        "angle.triplets" | "angle.scored_triplets" => (case(angle(20.0)), case(angle(19.0))),
        "cosine_similarity" => (case(CosineSimilarityLoss), case(cosent(1.0, Sim::Cosine))),

        "contrastive" => (
            case(contrastive(Siamese::CosineDistance, 0.5, true)),
            case(contrastive(Siamese::CosineDistance, 0.6, true)),
        ),
        "contrastive.euclidean" => (
            case(contrastive(Siamese::Euclidean, 4.0, true)),
            case(contrastive(Siamese::Manhattan, 4.0, true)),
        ),
        "contrastive.manhattan" => (
            case(contrastive(Siamese::Manhattan, 7.0, false)),
            case(contrastive(Siamese::Manhattan, 7.0, true)),
        ),
        "online_contrastive" => (
            case(online(Siamese::CosineDistance, 0.9)),
            case(online(Siamese::CosineDistance, 0.8)),
        ),
        "online_contrastive.euclidean" => (
            case(online(Siamese::Euclidean, 5.0)),
            case(contrastive(Siamese::Euclidean, 5.0, false)),
        ),
        "online_contrastive.positives_alone" => (
            case(online(Siamese::CosineDistance, 0.5)),
            case(online(Siamese::Euclidean, 0.5)),
        ),

        "triplet" => (
            case(triplet(Distance::Euclidean, 5.0)),
            case(triplet(Distance::Manhattan, 5.0)),
        ),
        "triplet.cosine" => (
            case(triplet(Distance::Cosine, 0.5)),
            case(triplet(Distance::Euclidean, 0.5)),
        ),
        "triplet.manhattan" => (
            case(triplet(Distance::Manhattan, 2.0)),
            case(triplet(Distance::Euclidean, 2.0)),
        ),
        "batch_hard_triplet" => (
            case(batch_triplet!(BatchHardTripletLossConfig, euclidean, 5.0)),
            case(batch_triplet!(
                BatchSemiHardTripletLossConfig,
                euclidean,
                5.0
            )),
        ),
        "batch_hard_triplet.cosine" => (
            case(batch_triplet!(
                BatchHardTripletLossConfig,
                batch_cosine,
                0.3
            )),
            case(batch_triplet!(BatchAllTripletLossConfig, batch_cosine, 0.4)),
        ),
        "batch_all_triplet" => (
            case(batch_triplet!(BatchAllTripletLossConfig, euclidean, 5.0)),
            case(batch_triplet!(BatchHardTripletLossConfig, euclidean, 5.0)),
        ),
        "batch_all_triplet.cosine" => (
            case(batch_triplet!(BatchAllTripletLossConfig, batch_cosine, 0.3)),
            case(batch_triplet!(BatchAllTripletLossConfig, euclidean, 0.3)),
        ),
        "batch_semi_hard_triplet" => (
            case(batch_triplet!(
                BatchSemiHardTripletLossConfig,
                euclidean,
                5.0
            )),
            case(batch_triplet!(BatchAllTripletLossConfig, euclidean, 5.0)),
        ),
        "batch_semi_hard_triplet.cosine" => (
            case(batch_triplet!(
                BatchSemiHardTripletLossConfig,
                batch_cosine,
                0.3
            )),
            case(batch_triplet!(BatchAllTripletLossConfig, batch_cosine, 0.3)),
        ),
        "batch_hard_soft_margin_triplet" => (
            case(soft(euclidean)),
            case(batch_triplet!(BatchHardTripletLossConfig, euclidean, 0.0)),
        ),
        "batch_hard_soft_margin_triplet.cosine" => {
            (case(soft(batch_cosine)), case(soft(euclidean)))
        }

        "softmax" => {
            let both = softmax([true, true, false], "softmax", t);
            (both, softmax([true, false, true], "softmax", t))
        }
        "softmax.everything" => {
            let mut other = softmax([true; 3], "softmax_everything", t);
            other.head = None;
            let wrong = SoftmaxLossConfig::new(5, 3).init::<B>(&device()).unwrap();
            (softmax([true; 3], "softmax_everything", t), case(wrong))
        }
        "softmax.product" => (
            softmax([false, false, true], "softmax_product", t),
            softmax([false, true, false], "softmax_product", t),
        ),

        "mse" | "mse.by_column" => (case(mse()), distill(Distill::Cosine, None)),
        "mse.projected" => (
            distill(Distill::Mse, Some(t)),
            distill(Distill::L2, Some(t)),
        ),
        "embed_distill" => (distill(Distill::Cosine, None), distill(Distill::Mse, None)),
        "embed_distill.l2" => (distill(Distill::L2, None), distill(Distill::Mse, None)),
        "embed_distill.projected" => (
            distill(Distill::Cosine, Some(t)),
            distill(Distill::L2, Some(t)),
        ),

        "margin_mse" | "margin_mse.scores" | "margin_mse.negatives" => {
            (case(margin_mse(Sim::Dot)), case(margin_mse(Sim::Cosine)))
        }
        "margin_mse.negatives_scores" => {
            (case(margin_mse(Sim::Cosine)), case(margin_mse(Sim::Dot)))
        }
        "distill_kl_div" => (case(kl(Sim::Dot, 1.0, 1.0)), case(kl(Sim::Dot, 1.0, 2.0))),
        "distill_kl_div.temperature" => {
            (case(kl(Sim::Dot, 2.0, 2.0)), case(kl(Sim::Dot, 2.0, 1.0)))
        }
        "distill_kl_div.temperatures" => (
            case(kl(Sim::Cosine, 0.2, 1.5)),
            case(kl(Sim::Cosine, 1.5, 0.2)),
        ),

        "mega_batch_margin" => (case(mega(0.8, 0.3)), case(mega(0.4, 0.7))),
        "mega_batch_margin.at_once" => (case(mega(0.95, 0.1)), case(mega(0.4, 0.7))),
        "global_orthogonal_regularization" => (
            case(gor(Sim::Cosine, 1.0, 1.0, GorAggregation::Mean)),
            case(gor(Sim::Cosine, 1.0, 0.0, GorAggregation::Mean)),
        ),
        "global_orthogonal_regularization.sum" => (
            case(gor(Sim::Cosine, 0.5, 2.0, GorAggregation::Sum)),
            case(gor(Sim::Cosine, 0.5, 2.0, GorAggregation::Mean)),
        ),
        "global_orthogonal_regularization.mean_only" => (
            case(gor(Sim::Dot, 1.0, 0.0, GorAggregation::Mean)),
            case(gor(Sim::Cosine, 1.0, 0.0, GorAggregation::Mean)),
        ),

        "gist" => (
            case(gist(|c| c.temperature = 0.01)),
            case(gist(|c| (c.temperature, c.margin) = (0.01, -0.5))),
        ),
        "gist.negatives" => (case(gist(|_| ())), case(gist(|c| c.margin = 0.3))),
        "gist.absolute" => (case(gist(|c| c.margin = 0.3)), case(gist(|_| ()))),
        "gist.relative" => {
            let by = |strategy| {
                gist(|c| {
                    c.margin = 0.5;
                    c.margin_strategy = strategy;
                    c.contrast_anchors = false;
                })
            };
            (
                case(by(MarginStrategy::Relative)),
                case(by(MarginStrategy::Absolute)),
            )
        }
        "gist.without_positives" => (
            case(gist(|c| c.contrast_positives = false)),
            case(gist(|_| ())),
        ),
        "gist.cached" => (
            case(cached(gist(|c| c.margin = 0.1))),
            case(cached(gist(|c| c.margin = -0.5))),
        ),

        "matryoshka" | "matryoshka.cached" => (
            case(matryoshka(WEIGHTS, mnrl(|_| ()))),
            case(matryoshka([1.0; 3], cached(mnrl(|_| ())))),
        ),
        "matryoshka.unweighted" => {
            let cosent = |dims: [usize; 2]| {
                let config = MatryoshkaLossConfig::new(dims);
                config.init::<B, _>(cosent(20.0, Sim::Cosine)).unwrap()
            };
            (case(cosent([4, 2])), case(cosent([5, 2])))
        }
        "matryoshka.mse" | "matryoshka.mse_by_column" => (
            case(matryoshka(WEIGHTS, mse())),
            case(matryoshka([1.0; 3], mse())),
        ),
        "matryoshka.gist" => (
            case(matryoshka(WEIGHTS, gist(|_| ()))),
            case(matryoshka(WEIGHTS, gist(|c| c.temperature = 0.06))),
        ),
        other => panic!("the fixture's case {other} has no loss here"),
    }
}

/// The value of a case, and its gradients by the name of what they are of.
fn run(case: &Case, given: &Value, tensors: &Expected) -> (Vec<f32>, Vec<(String, Vec<f32>)>) {
    let names = strings(&given["columns"]);
    let tensor = |name: &String| Tensor::<B, 2>::from_data(tensors.data(name), &device());
    let columns: Vec<_> = names
        .iter()
        .map(|name| tensor(name).require_grad())
        .collect();
    let labels = given["labels"].as_str().map(|name| {
        let (values, rows) = (tensors.get(name), tensors.data(name).shape[0]);
        let width = values.len() / rows;
        Labels::from_rows(values.chunks(width), &device())
    });
    let guide = match &given["guide"] {
        Value::Null => Vec::new(),
        names => strings(names).iter().map(tensor).collect(),
    };
    let input = LossInput::new(columns.clone())
        .with_labels(labels)
        .with_guide(guide);
    let loss = (case.forward)(input);
    assert_eq!(loss.dims(), [1]);
    let gradients = loss.backward();
    let of_columns = columns
        .iter()
        .map(|column| values(column.grad(&gradients).unwrap()));
    let mut found: Vec<_> = names.into_iter().zip(of_columns).collect();
    if let (Some(head), Some(parameters)) = (&case.head, given["parameters"].as_str()) {
        let weight = head.weight.val().grad(&gradients).unwrap();
        let bias = head.bias.val().grad(&gradients).unwrap();
        found.push((format!("{parameters}.weight"), values(weight)));
        found.push((format!("{parameters}.bias"), values(bias)));
    }
    (values(loss.inner()), found)
}

/// The largest difference, relative to the largest expected value.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(
        0f32,
        |most, d| if d > most || d.is_nan() { d } else { most },
    ) / largest
}

/// The distance of the gradient that is furthest off.
fn furthest(found: &[(String, Vec<f32>)], expected: impl Fn(&str) -> Vec<f32>) -> f32 {
    let distances = found
        .iter()
        .map(|(name, gradient)| distance(gradient, &expected(&format!("grad.{name}"))));
    distances.fold(0.0, f32::max)
}

#[test]
fn values_and_gradients_are_pythons() {
    let tensors = Expected::read("losses/expected.safetensors");
    let cases = json("losses/expected.json");
    let cases = cases["cases"].as_object().unwrap();
    assert!(cases.len() > 60);
    for (name, given) in cases {
        let (right, control) = build(name, &tensors);
        let expected = |key: &str| tensors.get(&format!("{name}.{key}"));

        let (value, gradients) = run(&right, given, &tensors);
        let off = distance(&value, &expected("loss"));
        assert!(off < TOLERANCE, "{name}: {value:?} is off by {off:e}");
        let parameters = if given["parameters"].is_null() { 0 } else { 2 };
        let columns = given["columns"].as_array().unwrap().len();
        assert_eq!(gradients.len(), columns + parameters, "{name}");
        for (input, gradient) in &gradients {
            let off = distance(gradient, &expected(&format!("grad.{input}")));
            assert!(
                off < TOLERANCE,
                "{name}: gradient of {input} is off by {off:e}"
            );
        }

        let (value, gradients) = run(&control, given, &tensors);
        let off = distance(&value, &expected("loss"));
        assert!(
            off > 1e-3,
            "{name}: the control's value is off by only {off:e}"
        );
        let off = furthest(&gradients, expected);
        assert!(
            off > 1e-3,
            "{name}: the control's gradients are off by only {off:e}"
        );
    }
}

/// The value of a loss that reads the encoder's layers, and its gradients by weight.
fn run_layers<L: Loss<B>>(loss: L, given: &Value) -> (Vec<f32>, Vec<(String, Vec<f32>)>) {
    let model = SentenceTransformer::<B>::load(path("tiny_bert/v6"), &device()).unwrap();
    let columns = ["anchor", "positive"].map(|name| {
        let texts = strings(&given["texts"][name]);
        let tokens = model.tokenize(&texts, None, &device()).unwrap();
        model.forward_layers(&tokens, Pass::new(Mode::Inference))
    });
    let [anchors, positives] = columns;
    let layers = anchors.into_iter().zip(positives);
    let mut layers: Vec<_> = layers.map(|(a, p)| vec![a, p]).collect();
    assert_eq!(layers.len(), 3);
    let last = layers.pop().unwrap();
    let loss = loss.forward(LossInput::new(last).with_layers(layers));
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let ids = model.named_trainable();
    let found = strings(&given["weights"]).into_iter().map(|name| {
        let (_, id) = ids.iter().find(|(known, _)| *known == name).unwrap();
        let gradient = match name.contains("LayerNorm") {
            true => values(gradients.get::<TestBackend, 1>(*id).unwrap()),
            false => values(gradients.get::<TestBackend, 2>(*id).unwrap()),
        };
        (name, gradient)
    });
    (values(loss.inner()), found.collect())
}

#[test]
fn losses_of_earlier_layers_are_pythons() {
    let tensors = Expected::read("losses/expected.safetensors");
    let given = json("losses/expected.json");
    let all = || AdaptiveLayerLossConfig {
        n_layers_per_step: None,
        ..Default::default()
    };
    let adaptive = |config: AdaptiveLayerLossConfig| {
        run_layers(config.init::<B, _>(mnrl(|_| ())).unwrap(), &given)
    };
    let matryoshka_2d = |n_dims_per_step| {
        let mut config = Matryoshka2dLossConfig::new([20, 8]);
        config.matryoshka.matryoshka_weights = Some(vec![1.0, 0.5]);
        config.matryoshka.n_dims_per_step = n_dims_per_step;
        config.adaptive_layer = all();
        run_layers(config.init::<B, _>(mnrl(|_| ())).unwrap(), &given)
    };
    let weighted = AdaptiveLayerLossConfig {
        last_layer_weight: 0.5,
        prior_layers_weight: 2.0,
        kl_div_weight: 3.0,
        kl_temperature: 0.7,
        layer_weighting: LayerWeighting::Log,
        ..all()
    };
    let without = AdaptiveLayerLossConfig {
        kl_temperature: 0.0,
        layer_weighting: LayerWeighting::Linear,
        ..all()
    };
    let names = given["layer_cases"].as_object().unwrap().keys();
    for name in names {
        let (found, control) = match name.as_str() {
            "adaptive_layer" => (adaptive(all()), adaptive(without.clone())),
            "adaptive_layer.weighted" => {
                let uniform = AdaptiveLayerLossConfig {
                    layer_weighting: LayerWeighting::Uniform,
                    ..weighted.clone()
                };
                (adaptive(weighted.clone()), adaptive(uniform))
            }
            "adaptive_layer.without_divergence" => (adaptive(without.clone()), adaptive(all())),
            "matryoshka_2d" => (matryoshka_2d(None), matryoshka_2d(Some(1))),
            other => panic!("the fixture's case {other} has no loss here"),
        };
        let expected = |key: &str| tensors.get(&format!("{name}.{key}"));
        let off = distance(&found.0, &expected("loss"));
        assert!(off < TOLERANCE, "{name}: {:?} is off by {off:e}", found.0);
        let off = distance(&control.0, &expected("loss"));
        assert!(
            off > 1e-3,
            "{name}: the control's value is off by only {off:e}"
        );
        let off = furthest(&found.1, expected);
        assert!(off < TOLERANCE, "{name}: a gradient is off by {off:e}");
        let off = furthest(&control.1, expected);
        assert!(
            off > 1e-3,
            "{name}: the control's gradients are off by only {off:e}"
        );
    }
}
