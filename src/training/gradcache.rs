//! Gradients of a batch that is embedded in parts (GradCache, Gao et al. 2021,
//! <https://arxiv.org/abs/2101.06983>).

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
    let mut columns = Vec::with_capacity(batch.columns.len());
    for (place, texts) in batch.columns.iter().enumerate() {
        let mut parts = Vec::new();
        for (part, texts) in texts.chunks(mini_batch_size).enumerate() {
            // The pass with gradients, though they are thrown away: the masks must be
            // drawn by the same operations as in the third step.
            let embeddings = model.embed(texts, mask_seed(batch, place, part))?;
            parts.push(embeddings.inner());
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
