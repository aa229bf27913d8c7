use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Bool, Tensor, backend::Backend};
use serde_json::json;

use super::description::{described, similarity_name};
use super::in_batch::{log_sum_exp, own_mask_of, own_scores_of};
use super::{Columns, LabelColumn, Loss, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;
use crate::model::similarity::SimilarityFunction;

/// Which texts of the batch stand against the positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Each anchor against all positives and negatives; always there, as it holds the
    /// positive pair.
    QueryToDoc,
    /// Each anchor against the other anchors.
    QueryToQuery,
    /// Each positive against all anchors.
    DocToQuery,
    /// Each positive against the positives and negatives of the others.
    DocToDoc,
}

/// How the scores of several directions are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartitionMode {
    /// By one softmax over all directions.
    #[default]
    Joint,
    /// By one softmax a direction, whose logarithms are averaged.
    PerDirection,
}

/// Which negatives weigh the more, the nearer they are to the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardnessMode {
    /// The positives and negatives of other anchors.
    InBatchNegatives,
    /// The anchor's own negatives.
    HardNegatives,
    /// Both.
    AllNegatives,
}

/// How [`MultipleNegativesRankingLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct MultipleNegativesRankingLossConfig {
    /// What similarities are multiplied with: the inverse of the temperature.
    pub scale: f64,
    /// How an anchor is compared with a candidate.
    pub similarity: SimilarityFunction,
    /// Which texts are compared; [`Direction::QueryToDoc`] must be among them.
    pub directions: Vec<Direction>,
    /// How the scores of several directions are normalised.
    pub partition_mode: PartitionMode,
    /// Which negatives weigh the more, the nearer they are to the anchor.
    pub hardness_mode: Option<HardnessMode>,
    /// By how much: a negative's score grows by this times its similarity, which counts
    /// as a constant (<https://arxiv.org/abs/2503.04812>, equation 5).
    pub hardness_strength: f64,
}

impl Default for MultipleNegativesRankingLossConfig {
    fn default() -> Self {
        Self {
            scale: 20.0,
            similarity: SimilarityFunction::Cosine,
            directions: vec![Direction::QueryToDoc],
            partition_mode: PartitionMode::Joint,
            hardness_mode: None,
            hardness_strength: 0.0,
        }
    }
}

impl MultipleNegativesRankingLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if `scale` is not a positive number, if `directions`
    /// leaves the positive pair out, if a direction that never holds it is normalised on
    /// its own, or if `hardness_strength` is negative.
    pub fn init(&self) -> Result<MultipleNegativesRankingLoss> {
        let invalid = |option, expected, found: String| {
            Err(LossError::option(NAME, option, expected, found).into())
        };
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return invalid("scale", "a positive number", self.scale.to_string());
        }
        if !self.directions.contains(&Direction::QueryToDoc) {
            let found = format!("{:?}", self.directions);
            return invalid("directions", "QueryToDoc among them", found);
        }
        let without_positive = [Direction::QueryToQuery, Direction::DocToDoc];
        if self.partition_mode == PartitionMode::PerDirection
            && without_positive.iter().any(|d| self.directions.contains(d))
        {
            let expected = "Joint where QueryToQuery or DocToDoc is a direction";
            return invalid("partition_mode", expected, "PerDirection".to_owned());
        }
        if !(self.hardness_strength >= 0.0 && self.hardness_strength.is_finite()) {
            let found = self.hardness_strength.to_string();
            return invalid("hardness_strength", "0 or a positive number", found);
        }
        if self.hardness_mode.is_some() && self.hardness_strength == 0.0 {
            log::warn!("{NAME}: hardness_mode has no effect while hardness_strength is 0");
        }
        Ok(MultipleNegativesRankingLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "MultipleNegativesRankingLoss";

/// Each anchor's positive against all other candidates of the batch (Henderson et al.
/// 2017, <https://arxiv.org/abs/1705.00652>; also InfoNCE, in-batch negatives).
///
/// Reads (anchor, positive) or (anchor, positive, negative…) columns. With `d` all
/// positives of the batch followed by all negatives,
/// `loss = -mean_i[s·sim(a_i, p_i) - logsumexp_j s·sim(a_i, d_j)]`. More
/// [directions](Direction) put more scores under the logarithm.
#[derive(Module, Debug, Clone)]
pub struct MultipleNegativesRankingLoss {
    config: MultipleNegativesRankingLossConfig,
}

impl MultipleNegativesRankingLoss {
    /// What the scores of each anchor's negatives grow by.
    ///
    /// # Shapes
    /// - similarities: `[rows, columns * batch]`
    /// - own: `[rows, batch]`, where a row meets its own text
    /// - output: as `similarities`
    fn hardness<B: Backend>(
        &self,
        similarities: Tensor<B, 2>,
        own: Tensor<B, 2, Bool>,
    ) -> Option<Tensor<B, 2>> {
        let mode = self.config.hardness_mode?;
        let columns = similarities.dims()[1] / own.dims()[1];
        let own = own.float();
        let others = own.clone().neg().add_scalar(1.0);
        let (positives, negatives) = match mode {
            HardnessMode::InBatchNegatives => (others.clone(), others),
            HardnessMode::HardNegatives => (own.zeros_like(), own),
            HardnessMode::AllNegatives => (others, own.ones_like()),
        };
        let mut counts = vec![negatives; columns];
        counts[0] = positives;
        let strength = self.config.hardness_strength;
        Some(similarities.detach() * Tensor::cat(counts, 1).mul_scalar(strength))
    }

    /// What some rows of the batch add to the loss, `[1]`.
    fn of_rows<B: Backend>(&self, embeddings: &[Tensor<B, 2>], rows: Range<usize>) -> Tensor<B, 1> {
        assert!(embeddings.len() >= 2, "{NAME} needs anchors and positives");
        let (all_queries, positives) = (embeddings[0].clone(), embeddings[1].clone());
        let columns = embeddings.len() - 1;
        let ([batch, _], device) = (all_queries.dims(), all_queries.device());
        let documents = Tensor::cat(embeddings[1..].to_vec(), 0);
        let of_rows = |all: &Tensor<B, 2>| all.clone().narrow(0, rows.start, rows.len());
        let queries = of_rows(&all_queries);
        let own = |columns| own_mask_of::<B>(rows.clone(), batch, columns, &device);

        let compare = self.config.similarity.to_similarity_fn();
        let scale = self.config.scale;
        let reads = |direction| self.config.directions.contains(&direction);
        let similarities = compare(queries.clone(), documents.clone());
        let mut scores = similarities.clone().mul_scalar(scale);
        if let Some(hardness) = self.hardness(similarities, own(1)) {
            scores = scores + hardness;
        }
        let mut pools = vec![scores.clone()];
        if reads(Direction::QueryToQuery) {
            let scores = compare(queries, all_queries.clone()).mul_scalar(scale);
            pools.push(scores.mask_fill(own(1), f32::NEG_INFINITY));
        }
        if reads(Direction::DocToQuery) {
            pools.push(compare(of_rows(&positives), all_queries).mul_scalar(scale));
        }
        if reads(Direction::DocToDoc) {
            let scores = compare(of_rows(&positives), documents).mul_scalar(scale);
            pools.push(scores.mask_fill(own(columns), f32::NEG_INFINITY));
        }
        let normalizer = match self.config.partition_mode {
            PartitionMode::Joint => log_sum_exp(Tensor::cat(pools, 1)),
            PartitionMode::PerDirection => {
                let share = 1.0 / pools.len() as f64;
                let each = pools.into_iter().map(log_sum_exp).collect();
                Tensor::cat(each, 1).sum_dim(1).mul_scalar(share)
            }
        };
        let losses = normalizer - own_scores_of(scores, rows);
        losses.sum().div_scalar(batch as f64)
    }
}

impl<B: Backend> Loss<B> for MultipleNegativesRankingLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        let directions = self
            .config
            .directions
            .iter()
            .map(|direction| match direction {
                Direction::QueryToDoc => "query_to_doc",
                Direction::QueryToQuery => "query_to_query",
                Direction::DocToQuery => "doc_to_query",
                Direction::DocToDoc => "doc_to_doc",
            });
        described(
            NAME,
            json!({
                "scale": self.config.scale,
                "similarity_fct": similarity_name(self.config.similarity),
                "directions": directions.collect::<Vec<_>>(),
                "partition_mode": match self.config.partition_mode {
                    PartitionMode::Joint => "joint",
                    PartitionMode::PerDirection => "per_direction",
                },
                "hardness_mode": self.config.hardness_mode.map(|mode| match mode {
                    HardnessMode::InBatchNegatives => "in_batch_negatives",
                    HardnessMode::HardNegatives => "hard_negatives",
                    HardnessMode::AllNegatives => "all_negatives",
                }),
                "hardness_strength": self.config.hardness_strength,
            }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::AtLeast(2),
            label: LabelColumn::Ignored,
        }
    }

    fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
        let batch = input
            .embeddings
            .first()
            .map_or(0, |column| column.dims()[0]);
        self.of_rows(&input.embeddings, 0..batch)
    }

    fn forward_rows(&self, input: &LossInput<B>, rows: Range<usize>) -> Option<Tensor<B, 1>> {
        Some(self.of_rows(&input.embeddings, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use crate::error::Error;

    type T = Tensor<TestAutodiffBackend, 2>;

    fn tensor(rows: &[[f32; 3]]) -> T {
        let flat: Vec<f32> = rows.iter().flatten().copied().collect();
        let flat = Tensor::<TestAutodiffBackend, 1>::from_floats(&flat[..], &device());
        flat.reshape([rows.len(), 3])
    }

    const ANCHORS: [[f32; 3]; 2] = [[0.3, -0.2, 0.9], [1.1, 0.4, -0.5]];
    const POSITIVES: [[f32; 3]; 2] = [[0.5, 0.1, 0.7], [0.9, -0.3, 0.2]];
    const NEGATIVES: [[f32; 3]; 2] = [[-0.4, 0.8, 0.6], [0.2, 0.2, -1.0]];

    fn config(scale: f64, similarity: SimilarityFunction) -> MultipleNegativesRankingLossConfig {
        MultipleNegativesRankingLossConfig {
            scale,
            similarity,
            ..Default::default()
        }
    }

    /// The formula of the documentation, in double precision on the host.
    fn by_hand(anchors: &[[f64; 3]], candidates: &[[f64; 3]], scale: f64, cosine: bool) -> f64 {
        let dot = |a: &[f64; 3], b: &[f64; 3]| -> f64 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
        let sim = |a, b| match cosine {
            true => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
            false => dot(a, b),
        };
        let losses = anchors.iter().enumerate().map(|(i, a)| {
            let all: f64 = candidates.iter().map(|d| (scale * sim(a, d)).exp()).sum();
            all.ln() - scale * sim(a, &candidates[i])
        });
        losses.sum::<f64>() / anchors.len() as f64
    }

    fn widen(rows: &[[f32; 3]]) -> Vec<[f64; 3]> {
        rows.iter().map(|row| row.map(f64::from)).collect()
    }

    fn value(config: &MultipleNegativesRankingLossConfig, columns: Vec<T>) -> f64 {
        let loss: Tensor<TestAutodiffBackend, 1> =
            config.init().unwrap().forward(LossInput::new(columns));
        assert_eq!(loss.dims(), [1]);
        f64::from(loss.into_scalar())
    }

    #[test]
    fn is_the_formula_for_pairs_and_triplets() {
        for (scale, similarity, cosine) in [
            (20.0, SimilarityFunction::Cosine, true),
            (1.0, SimilarityFunction::Dot, false),
        ] {
            let config = config(scale, similarity);
            let pairs = value(&config, vec![tensor(&ANCHORS), tensor(&POSITIVES)]);
            let expected = by_hand(&widen(&ANCHORS), &widen(&POSITIVES), scale, cosine);
            assert!((pairs - expected).abs() < 1e-5, "{pairs} for {expected}");

            let triplets = vec![tensor(&ANCHORS), tensor(&POSITIVES), tensor(&NEGATIVES)];
            let triplets = value(&config, triplets);
            let all = [widen(&POSITIVES), widen(&NEGATIVES)].concat();
            let expected_all = by_hand(&widen(&ANCHORS), &all, scale, cosine);
            assert!((triplets - expected_all).abs() < 1e-5);
            assert!(
                (expected_all - expected).abs() > 1e-3,
                "negatives must count"
            );
        }
    }

    #[test]
    fn gradient_is_the_slope() {
        let config = config(3.0, SimilarityFunction::Cosine);
        let loss = config.init().unwrap();
        let anchors = tensor(&ANCHORS).require_grad();
        let columns = vec![anchors.clone(), tensor(&POSITIVES), tensor(&NEGATIVES)];
        let grads = loss.forward(LossInput::new(columns)).backward();
        let gradient: Vec<f32> = anchors.grad(&grads).unwrap().into_data().iter().collect();

        let candidates = [widen(&POSITIVES), widen(&NEGATIVES)].concat();
        let step = 1e-5;
        for (i, &found) in gradient.iter().enumerate() {
            let at = |delta: f64| {
                let mut moved = widen(&ANCHORS);
                moved[i / 3][i % 3] += delta;
                by_hand(&moved, &candidates, 3.0, true)
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            assert!(
                (f64::from(found) - slope).abs() < 1e-5,
                "{found} for {slope}"
            );
        }
        assert!(gradient.iter().any(|g| g.abs() > 1e-2));
    }

    #[test]
    fn rows_add_up_to_the_whole_in_every_direction() {
        let all = [
            Direction::QueryToDoc,
            Direction::QueryToQuery,
            Direction::DocToQuery,
            Direction::DocToDoc,
        ];
        let config = MultipleNegativesRankingLossConfig {
            directions: all.to_vec(),
            hardness_mode: Some(HardnessMode::AllNegatives),
            hardness_strength: 2.0,
            ..config(3.0, SimilarityFunction::Cosine)
        };
        let loss = config.init().unwrap();
        let columns = || vec![tensor(&ANCHORS), tensor(&POSITIVES), tensor(&NEGATIVES)];
        let input = LossInput::new(columns());
        let batch = ANCHORS.len();
        let part = |rows| f64::from(loss.forward_rows(&input, rows).unwrap().into_scalar());
        let whole = value(&config, columns());
        assert!((part(0..1) + part(1..batch) - whole).abs() < 1e-6);
        assert!((part(0..1) - whole).abs() > 1e-3);
    }

    #[test]
    fn stays_finite_at_large_scores() {
        let config = config(1e4, SimilarityFunction::Cosine);
        let loss = value(&config, vec![tensor(&POSITIVES), tensor(&ANCHORS)]);
        assert!(loss.is_finite());
    }

    #[test]
    fn rejects_a_scale_that_is_not_positive() {
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                config(scale, SimilarityFunction::Cosine).init(),
                Err(Error::Loss(LossError::InvalidOption {
                    option: "scale",
                    ..
                }))
            ));
        }
    }

    #[test]
    fn rejects_options_that_do_not_go_together() {
        let pairs = MultipleNegativesRankingLossConfig::default();
        let rejected = |change: fn(&mut MultipleNegativesRankingLossConfig)| {
            let mut config = pairs.clone();
            change(&mut config);
            match config.init() {
                Err(Error::Loss(LossError::InvalidOption { option, .. })) => option,
                other => panic!("{other:?} for {config:?}"),
            }
        };
        assert_eq!(rejected(|c| c.directions.clear()), "directions");
        let alone = rejected(|c| {
            c.directions.push(Direction::QueryToQuery);
            c.partition_mode = PartitionMode::PerDirection;
        });
        assert_eq!(alone, "partition_mode");
        let negative = rejected(|c| c.hardness_strength = -1.0);
        assert_eq!(negative, "hardness_strength");
    }

    #[test]
    fn hardness_counts_for_the_negatives_of_its_mode() {
        let rows = [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]];
        let similarities = Tensor::<TestBackend, 2>::from_floats(rows, &device());
        let hardness = |mode| {
            let config = MultipleNegativesRankingLossConfig {
                hardness_mode: Some(mode),
                hardness_strength: 10.0,
                ..Default::default()
            };
            let own = own_mask_of::<TestBackend>(0..2, 2, 1, &device());
            let added = config.init().unwrap().hardness(similarities.clone(), own);
            added.unwrap().into_data().to_vec::<f32>().unwrap()
        };
        let in_batch = [0.0, 10.0, 0.0, 30.0, 40.0, 0.0, 60.0, 0.0];
        assert_eq!(hardness(HardnessMode::InBatchNegatives), in_batch);
        let hard = [0.0, 0.0, 20.0, 0.0, 0.0, 0.0, 0.0, 70.0];
        assert_eq!(hardness(HardnessMode::HardNegatives), hard);
        let all = [0.0, 10.0, 20.0, 30.0, 40.0, 0.0, 60.0, 70.0];
        assert_eq!(hardness(HardnessMode::AllNegatives), all);
    }

    #[test]
    fn reads_two_columns_or_more() {
        let loss = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        let columns = Loss::<TestBackend>::columns(&loss);
        assert!(columns.check(NAME, 4, None).is_ok());
        assert!(columns.check(NAME, 1, None).is_err());
    }
}
