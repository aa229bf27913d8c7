//! Gradients of a batch that is embedded in parts (GradCache, Gao et al. 2021,
//! <https://arxiv.org/abs/2101.06983>).

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::learner::{TextBatch, TrainableLoss, TrainingModel, scalar};
use super::seed;
use crate::error::Result;

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
    let inner = model.model.valid();
    let mut columns = Vec::with_capacity(batch.columns.len());
    for (place, texts) in batch.columns.iter().enumerate() {
        let mut parts = Vec::new();
        for (part, texts) in texts.chunks(mini_batch_size).enumerate() {
            parts.push(model.embed_with(&inner, texts, mask_seed(batch, place, part))?);
        }
        columns.push(Tensor::from_inner(Tensor::cat(parts, 0)).require_grad());
    }

    let loss = model
        .loss
        .forward(columns.clone(), batch.labels(&model.device()));
    let mut of_loss = loss.clone().mul_scalar(share).backward();

    let mut gradients = GradientsAccumulator::new();
    for (place, (texts, column)) in batch.columns.iter().zip(&columns).enumerate() {
        // A column that the loss does not read has no gradient to pass on.
        let Some(of_column) = column.grad_remove(&mut of_loss) else {
            continue;
        };
        for (part, texts) in texts.chunks(mini_batch_size).enumerate() {
            let embeddings = model.embed(texts, mask_seed(batch, place, part))?;
            let start = part * mini_batch_size;
            let of_part = of_column.clone().narrow(0, start, texts.len());
            let passed_on = (embeddings * Tensor::from_inner(of_part)).sum().backward();
            gradients.accumulate(model, GradientsParams::from_grads(passed_on, model));
        }
    }
    gradients.accumulate(model, GradientsParams::from_grads(of_loss, model));
    Ok((scalar(loss), gradients.grads()))
}

fn mask_seed(batch: &TextBatch<'_>, column: usize, part: usize) -> u64 {
    seed::derive(batch.seed, &[column as u64, part as u64])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use crate::loss::{Loss, MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig};
    use crate::model::{Mode, SentenceTransformer};
    use crate::training::Dataset;

    type B = TestAutodiffBackend;
    type Model = TrainingModel<B, MultipleNegativesRankingLoss>;

    fn model() -> Model {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny_bert/v6");
        let mut model = SentenceTransformer::load(folder, &device()).unwrap();
        model.set_dropout(0.3);
        let loss = MultipleNegativesRankingLossConfig::default();
        TrainingModel::new(
            model,
            loss.init().unwrap(),
            0,
            Mode::Training,
            Default::default(),
        )
    }

    /// The gradient of one weight matrix.
    fn of_query(model: &Model, gradients: &GradientsParams) -> Vec<f32> {
        let names = model.model.named_trainable();
        let query = names
            .iter()
            .find(|(name, _)| name.ends_with("query.weight"))
            .unwrap();
        let gradient = gradients.get::<TestBackend, 2>(query.1).unwrap();
        gradient.into_data().to_vec().unwrap()
    }

    /// The gradient with every part in one graph, each part's masks drawn from its seed.
    fn directly(model: &Model, batch: &TextBatch<'_>, size: usize) -> Vec<f32> {
        let columns = batch.columns.iter().enumerate().map(|(place, texts)| {
            let parts = texts.chunks(size).enumerate();
            let parts =
                parts.map(|(part, texts)| model.embed(texts, mask_seed(batch, place, part)));
            Tensor::cat(parts.collect::<Result<_>>().unwrap(), 0)
        });
        let loss = Loss::<B>::forward(&model.loss, columns.collect(), None);
        of_query(model, &GradientsParams::from_grads(loss.backward(), model))
    }

    fn difference(a: &[f32], b: &[f32]) -> f32 {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    }

    #[test]
    fn the_second_pass_draws_the_masks_of_the_first() {
        let model = model();
        let texts = (0..5).map(|i| (format!("the quick fox {i}"), format!("a lazy dog {i}")));
        let dataset = Dataset::from_pairs(texts);
        let all = [0, 1, 2, 3, 4];
        let batch = TextBatch::read(&dataset, &all, 7);
        let other = TextBatch::read(&dataset, &all, 8);
        // Tests beside this one draw from the same generator, and now and then one comes
        // between a seed and its masks: that try does not count.
        let mut tries = (0..50).map(|_| {
            let cached = of_query(&model, &gradients(&model, &batch, 2, 1.0).unwrap().1);
            let wanted = directly(&model, &batch, 2);
            assert!(difference(&cached, &directly(&model, &other, 2)) > 1e-3);
            difference(&cached, &wanted)
        });
        assert!(tries.any(|difference| difference < 1e-5));
    }
}
