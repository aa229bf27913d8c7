//! Gradients of a batch that is embedded in parts (GradCache, Gao et al. 2021,
//! <https://arxiv.org/abs/2101.06983>).

use std::ops::Range;

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::learner::{TrainableLoss, TrainingModel, scalar};
use super::leaves::{embeddings_as_leaves, with_own_leaves};
use super::seed;
use super::text_batch::TextBatch;
use crate::error::Result;
use crate::loss::{LossInput, MiniBatch};
use crate::model::SentenceTransformer;
use crate::text::Encoding;

/// Loss and gradients of one batch, a mini-batch of a column at a time.
///
/// 1. Embed every mini-batch and forget how.
/// 2. The loss of all embeddings, and its gradient with respect to them: some rows at a
///    time, where the loss is a sum over rows.
/// 3. Embed every mini-batch again, with the dropout masks of the first time, and pass
///    its part of that gradient on to the weights.
pub(super) fn gradients<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &TrainingModel<B, L>,
    loss: &L,
    batch: &TextBatch<'_>,
    mini_batch: MiniBatch,
    share: f64,
) -> Result<(f64, GradientsParams)> {
    let parts = parts(model, batch, mini_batch)?;
    let with_layers = loss.needs_layers();
    // Without gradients, by the same operations: the masks drawn are those of step 3.
    let layers = embed(model, &model.model.valid(), batch, &parts, with_layers)?;
    let track = |column| Tensor::from_inner(column).require_grad();
    let layers: Vec<Vec<Tensor<B, 2>>> = layers
        .into_iter()
        .map(|columns| columns.into_iter().map(track).collect())
        .collect();

    let mut of_embeddings = vec![vec![None; batch.columns.len()]; layers.len()];
    let input = model.loss_input(loss, layers, batch)?;
    let mut gradients = GradientsAccumulator::new();
    let mut sum = 0.0;
    for part in rows_by_rows(loss, &input, mini_batch.rows) {
        let mut of_rows = part.value.clone().mul_scalar(share).backward();
        sum += scalar(part.value);
        let layers = part.input.layers.iter().chain([&part.input.embeddings]);
        for (layer, so_far) in layers.zip(&mut of_embeddings) {
            for (column, so_far) in layer.iter().zip(so_far) {
                let of_column = column.grad_remove(&mut of_rows);
                *so_far = match (so_far.take(), of_column) {
                    (Some(sum), Some(of_column)) => Some(sum + of_column),
                    (sum, of_column) => sum.or(of_column),
                };
            }
        }
        gradients.accumulate(model, GradientsParams::from_grads(of_rows, &part.loss));
    }

    for (place, (texts, parts)) in batch.columns.iter().zip(&parts).enumerate() {
        let of_column: Vec<_> = of_embeddings.iter().map(|layer| &layer[place]).collect();
        // A column that the loss does not read has no gradient to pass on.
        if of_column.iter().all(|gradient| gradient.is_none()) {
            continue;
        }
        for (part, range) in parts.iter().enumerate() {
            let texts = &texts[range.clone()];
            let seed = mask_seed(batch, place, part);
            let own = with_own_leaves(&model.model);
            let embeddings = model.embed(&own, texts, batch.pass(place), with_layers, seed)?;
            let products = embeddings.into_iter().zip(&of_column);
            let products = products.filter_map(|(layer, of_layer)| {
                let of_layer = of_layer.as_ref()?.clone();
                let of_part = of_layer.narrow(0, range.start, range.len());
                Some((layer * Tensor::from_inner(of_part)).sum())
            });
            let passed_on = Tensor::cat(products.collect(), 0).sum().backward();
            gradients.accumulate(model, GradientsParams::from_grads(passed_on, &own));
        }
    }
    Ok((sum, gradients.grads()))
}

/// A part of a loss, and the leaves that its gradients are of.
struct LossPart<B: AutodiffBackend, L> {
    loss: L,
    input: LossInput<B>,
    value: Tensor<B, 1>,
}

/// The parts of a loss: those of so many rows each, or the whole loss. A part is made when
/// it is asked for.
fn rows_by_rows<'a, B: AutodiffBackend, L: TrainableLoss<B>>(
    loss: &'a L,
    input: &'a LossInput<B>,
    rows: usize,
) -> impl Iterator<Item = LossPart<B, L>> + 'a {
    let batch = input
        .embeddings
        .first()
        .map_or(0, |column| column.dims()[0]);
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= batch {
            return None;
        }
        let range = start..(start + rows.max(1)).min(batch);
        start = range.end;
        let (loss, input) = (with_own_leaves(loss), embeddings_as_leaves(input));
        let value = loss.forward_rows(&input, range).unwrap_or_else(|| {
            start = batch;
            loss.forward(input.clone())
        });
        Some(LossPart { loss, input, value })
    })
}

/// The mini-batches of each column.
///
/// By tokens, each takes as many texts as fit, and at least one (`_minibatch_ranges` of the
/// reference).
fn parts<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &TrainingModel<B, L>,
    batch: &TextBatch<'_>,
    mini_batch: MiniBatch,
) -> Result<Vec<Vec<Range<usize>>>> {
    let of_column = |(place, texts): (usize, &Vec<&str>)| {
        let Some(most) = mini_batch.tokens else {
            let starts = (0..texts.len()).step_by(mini_batch.rows.max(1));
            let range = |start: usize| start..(start + mini_batch.rows.max(1)).min(texts.len());
            return Ok(starts.map(range).collect());
        };
        let pass = batch.pass(place);
        let prompt = pass.and_then(|pass| pass.prompt.as_deref());
        let task = pass.and_then(|pass| pass.task.as_deref());
        let encodings = model.model.tokenizer_for(task)?.encode(texts, prompt)?;
        let lengths: Vec<usize> = encodings.iter().map(Encoding::len).collect();
        Ok(by_tokens(&lengths, most))
    };
    batch.columns.iter().enumerate().map(of_column).collect()
}

fn by_tokens(lengths: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (text, &length) in lengths.iter().enumerate() {
        match ranges.last_mut() {
            Some(range) if tokens + length <= most => {
                range.end = text + 1;
                tokens += length;
            }
            _ => {
                ranges.push(text..text + 1);
                tokens = length;
            }
        }
    }
    ranges
}

/// The embeddings of a batch by layer and column, `[batch, dim]` each, in mini-batches.
pub(super) fn embed_in_parts<B: AutodiffBackend, L: TrainableLoss<B>, M: Backend>(
    model: &TrainingModel<B, L>,
    embedder: &SentenceTransformer<M>,
    batch: &TextBatch<'_>,
    mini_batch: MiniBatch,
    with_layers: bool,
) -> Result<Vec<Vec<Tensor<M, 2>>>> {
    let parts = parts(model, batch, mini_batch)?;
    embed(model, embedder, batch, &parts, with_layers)
}

fn embed<B: AutodiffBackend, L: TrainableLoss<B>, M: Backend>(
    model: &TrainingModel<B, L>,
    embedder: &SentenceTransformer<M>,
    batch: &TextBatch<'_>,
    parts: &[Vec<Range<usize>>],
    with_layers: bool,
) -> Result<Vec<Vec<Tensor<M, 2>>>> {
    let mut layers: Vec<Vec<Tensor<M, 2>>> = Vec::new();
    for (place, (texts, ranges)) in batch.columns.iter().zip(parts).enumerate() {
        let mut parts: Vec<Vec<Tensor<M, 2>>> = Vec::new();
        for (part, range) in ranges.iter().enumerate() {
            let texts = &texts[range.clone()];
            let seed = mask_seed(batch, place, part);
            let of_part = model.embed(embedder, texts, batch.pass(place), with_layers, seed)?;
            parts.resize_with(of_part.len(), Vec::new);
            for (layer, embeddings) in parts.iter_mut().zip(of_part) {
                layer.push(embeddings);
            }
        }
        layers.resize_with(parts.len(), Vec::new);
        for (layer, parts) in layers.iter_mut().zip(parts) {
            layer.push(Tensor::cat(parts, 0));
        }
    }
    Ok(layers)
}

fn mask_seed(batch: &TextBatch<'_>, column: usize, part: usize) -> u64 {
    seed::derive(batch.seed, &[column as u64, part as u64])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use crate::loss::{
        AdaptiveLayerLossConfig, GISTEmbedLossConfig, GlobalOrthogonalRegularizationLossConfig,
        Loss, Matryoshka2dLossConfig, MatryoshkaLossConfig, MultipleNegativesRankingLossConfig,
        MultipleNegativesSymmetricRankingLossConfig,
    };
    use crate::model::Mode;
    use crate::training::Dataset;

    type B = TestAutodiffBackend;

    fn tiny_bert(folder: &str) -> SentenceTransformer<B> {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny_bert/");
        SentenceTransformer::load(format!("{fixtures}{folder}"), &device()).unwrap()
    }

    fn model<L: TrainableLoss<B>>(loss: L) -> TrainingModel<B, L> {
        let mut model = tiny_bert("v6");
        model.set_dropout(0.3);
        let guide = loss.needs_guide().then(|| tiny_bert("dense"));
        TrainingModel::new(model, vec![loss], 0, Mode::Training, Default::default())
            .with_guide(guide)
    }

    /// The gradient of one weight matrix.
    fn of_query<L: TrainableLoss<B>>(
        model: &TrainingModel<B, L>,
        gradients: &GradientsParams,
    ) -> Vec<f32> {
        let names = model.model.named_trainable();
        let query = names
            .iter()
            .find(|(name, _)| name.ends_with("query.weight"))
            .unwrap();
        let gradient = gradients.get::<TestBackend, 2>(query.1).unwrap();
        gradient.into_data().to_vec().unwrap()
    }

    /// Loss and gradient with every part in one graph, each part's masks drawn from its
    /// seed.
    fn directly<L: TrainableLoss<B>>(
        model: &TrainingModel<B, L>,
        batch: &TextBatch<'_>,
        mini_batch: MiniBatch,
    ) -> (f64, Vec<f32>) {
        let loss = &model.losses[0];
        let with_layers = loss.needs_layers();
        let layers = embed_in_parts(model, &model.model, batch, mini_batch, with_layers).unwrap();
        let loss = loss.forward(model.loss_input(loss, layers, batch).unwrap());
        let gradients = GradientsParams::from_grads(loss.backward(), model);
        (scalar(loss), of_query(model, &gradients))
    }

    fn difference(a: &[f32], b: &[f32]) -> f32 {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    }

    /// Asserts that a batch in parts has the loss and the gradient of the batch at once.
    fn replays<L: TrainableLoss<B>>(loss: L) {
        replays_in(loss, MiniBatch::rows(2));
    }

    fn replays_in<L: TrainableLoss<B>>(loss: L, size: MiniBatch) {
        let model = model(loss);
        let texts = (0..5).map(|i| (format!("the quick fox {i}"), format!("a lazy dog {i}")));
        let dataset = Dataset::from_pairs(texts);
        let all = [0, 1, 2, 3, 4];
        let batch = TextBatch::read(&dataset, &all, 7);
        let other = TextBatch::read(&dataset, &all, 8);
        // Tests beside this one draw from the same generator, and now and then one comes
        // between a seed and its masks: that try does not count, and there is another when
        // the others are further on.
        let mut tries = (0..200).map(|place| {
            std::thread::sleep(std::time::Duration::from_millis(place.min(50)));
            let (value, cached) = gradients(&model, &model.losses[0], &batch, size, 1.0).unwrap();
            let cached = of_query(&model, &cached);
            let (expected, wanted) = directly(&model, &batch, size);
            let (_, others) = directly(&model, &other, size);
            let largest = difference(&wanted, &vec![0.0; wanted.len()]);
            assert!(difference(&cached, &others) > 1e-3 * largest);
            let apart = difference(&cached, &wanted) / largest.max(1.0);
            apart.max((value - expected).abs() as f32)
        });
        assert!(tries.any(|difference| difference < 1e-5));
    }

    #[test]
    fn the_second_pass_draws_the_masks_of_the_first() {
        replays(
            MultipleNegativesRankingLossConfig::default()
                .init()
                .unwrap(),
        );
    }

    #[test]
    fn mini_batches_by_tokens_are_replayed() {
        let config = MultipleNegativesRankingLossConfig::default();
        let size = MiniBatch {
            tokens: Some(13),
            ..MiniBatch::rows(2)
        };
        replays_in(config.init().unwrap(), size);
    }

    #[test]
    fn tokens_are_packed_greedily() {
        let ranges = by_tokens(&[3, 4, 5, 20, 1, 9, 9], 10);
        assert_eq!(ranges, [0..2, 2..3, 3..4, 4..6, 6..7]);
        assert!(by_tokens(&[], 10).is_empty());
    }

    #[test]
    fn a_loss_is_made_some_rows_at_a_time() {
        let loss = MultipleNegativesRankingLossConfig::default();
        let loss = loss.init().unwrap();
        let column = |shift: f32| {
            let rows = Tensor::<B, 1, burn::tensor::Int>::arange(0..14, &device());
            rows.float().add_scalar(shift).sin().reshape([7, 2])
        };
        let input = LossInput::new(vec![column(0.0), column(0.3)]);
        let parts: Vec<f64> = rows_by_rows(&loss, &input, 3)
            .map(|part| scalar(part.value))
            .collect();
        assert_eq!(parts.len(), 3);
        let whole = scalar(loss.forward(input.clone()));
        assert!((parts.iter().sum::<f64>() - whole).abs() < 1e-6);
        assert!(parts.iter().all(|part| (part - whole).abs() > 1e-3));
        // A loss that is no sum over rows comes whole.
        let whole = GlobalOrthogonalRegularizationLossConfig::default();
        let whole = whole.init().unwrap();
        assert_eq!(rows_by_rows(&whole, &input, 3).count(), 1);
    }

    #[test]
    fn both_ways_are_replayed() {
        let config = MultipleNegativesSymmetricRankingLossConfig::default();
        replays(config.init().unwrap());
    }

    #[test]
    fn a_guide_is_asked_once() {
        replays(GISTEmbedLossConfig::default().init().unwrap());
    }

    #[test]
    fn smaller_sizes_are_replayed() {
        let mnrl = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        replays(
            MatryoshkaLossConfig::new([20, 10, 5])
                .init::<B, _>(mnrl)
                .unwrap(),
        );
    }

    #[test]
    fn layers_are_replayed() {
        let mnrl = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        let all = AdaptiveLayerLossConfig {
            n_layers_per_step: None,
            ..Default::default()
        };
        replays(all.init::<B, _>(mnrl.clone()).unwrap());
        replays(
            Matryoshka2dLossConfig::new([20, 10])
                .init::<B, _>(mnrl)
                .unwrap(),
        );
    }
}
