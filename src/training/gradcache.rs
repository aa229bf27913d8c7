//! Gradients of a batch that is embedded in parts (GradCache, Gao et al. 2021,
//! <https://arxiv.org/abs/2101.06983>).

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::learner::{TextBatch, TrainableLoss, TrainingModel, scalar};
use super::seed;
use crate::error::Result;
use crate::model::SentenceTransformer;

/// Loss and gradients of one batch, `mini_batch_size` texts of a column at a time.
///
/// 1. Embed every mini-batch and forget how.
/// 2. The loss of all embeddings, and its gradient with respect to them.
/// 3. Embed every mini-batch again, with the dropout masks of the first time, and pass
///    its part of that gradient on to the weights.
pub(super) fn gradients<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &TrainingModel<B, L>,
    batch: &TextBatch<'_>,
    mini_batch_size: usize,
    share: f64,
) -> Result<(f64, GradientsParams)> {
    // Without gradients, by the same operations: the masks drawn are those of step 3.
    let layers = embed_in_parts(model, &model.model.valid(), batch, mini_batch_size)?;
    let track = |column| Tensor::from_inner(column).require_grad();
    let layers: Vec<Vec<Tensor<B, 2>>> = layers
        .into_iter()
        .map(|columns| columns.into_iter().map(track).collect())
        .collect();

    let loss = model.loss.forward(model.loss_input(layers.clone(), batch)?);
    let mut of_loss = loss.clone().mul_scalar(share).backward();

    let mut gradients = GradientsAccumulator::new();
    for (place, texts) in batch.columns.iter().enumerate() {
        let columns = layers.iter().map(|columns| &columns[place]);
        let of_column: Vec<_> = columns
            .map(|column| column.grad_remove(&mut of_loss))
            .collect();
        // A column that the loss does not read has no gradient to pass on.
        if of_column.iter().all(Option::is_none) {
            continue;
        }
        for (part, texts) in texts.chunks(mini_batch_size).enumerate() {
            let embeddings =
                model.embed(&model.model, texts, place, mask_seed(batch, place, part))?;
            let start = part * mini_batch_size;
            let products = embeddings.into_iter().zip(&of_column);
            let products = products.filter_map(|(layer, of_layer)| {
                let of_part = of_layer.clone()?.narrow(0, start, texts.len());
                Some((layer * Tensor::from_inner(of_part)).sum())
            });
            let passed_on = Tensor::cat(products.collect(), 0).sum().backward();
            gradients.accumulate(model, GradientsParams::from_grads(passed_on, model));
        }
    }
    gradients.accumulate(model, GradientsParams::from_grads(of_loss, model));
    Ok((scalar(loss), gradients.grads()))
}

/// The embeddings of a batch by layer and column, `[batch, dim]` each.
fn embed_in_parts<B: AutodiffBackend, L: TrainableLoss<B>, M: Backend>(
    model: &TrainingModel<B, L>,
    embedder: &SentenceTransformer<M>,
    batch: &TextBatch<'_>,
    mini_batch_size: usize,
) -> Result<Vec<Vec<Tensor<M, 2>>>> {
    let mut layers: Vec<Vec<Tensor<M, 2>>> = Vec::new();
    for (place, texts) in batch.columns.iter().enumerate() {
        let mut parts: Vec<Vec<Tensor<M, 2>>> = Vec::new();
        for (part, texts) in texts.chunks(mini_batch_size).enumerate() {
            let of_part = model.embed(embedder, texts, place, mask_seed(batch, place, part))?;
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
        AdaptiveLayerLossConfig, GISTEmbedLossConfig, Matryoshka2dLossConfig, MatryoshkaLossConfig,
        MultipleNegativesRankingLossConfig, MultipleNegativesSymmetricRankingLossConfig,
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
        TrainingModel::new(model, loss, 0, Mode::Training, Default::default()).with_guide(guide)
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
        size: usize,
    ) -> (f64, Vec<f32>) {
        let layers = embed_in_parts(model, &model.model, batch, size).unwrap();
        let loss = model.loss.forward(model.loss_input(layers, batch).unwrap());
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
            let (value, cached) = gradients(&model, &batch, 2, 1.0).unwrap();
            let cached = of_query(&model, &cached);
            let (expected, wanted) = directly(&model, &batch, 2);
            let (_, others) = directly(&model, &other, 2);
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
