use burn::tensor::{Tensor, backend::Backend, s};
use rayon::prelude::*;

use super::{Reading, TopK, check_usable, composed, finish};
use crate::error::DeviceError;

/// How many scores are on the host at a time: 64 MiB of them.
const SCORES_AT_A_TIME: usize = 1 << 24;

/// What a device was at when it failed.
const COMPARING: &str = "comparing embeddings";

/// Offers every document to every query's best, by their dot product.
///
/// NdArray scores a few documents at a time and never holds more scores than that; other
/// backends hold those of `queries_at_a_time` queries, or of fewer where the documents
/// are many.
///
/// # Shapes
/// - queries: `[queries, dim]`, as many as `best`
/// - documents: `[documents, dim]`, as many as `items`, the numbers they are offered under
///
/// # Errors
/// [`DeviceError`] if the device's memory does not suffice.
pub fn offer_products<B: Backend>(
    queries: Tensor<B, 2>,
    documents: Tensor<B, 2>,
    items: &[u32],
    queries_at_a_time: usize,
    best: &mut [TopK],
) -> Result<(), DeviceError> {
    #[cfg(feature = "ndarray")]
    if let Some(route) = super::cpu::route(&queries) {
        super::cpu::offer_products(route, queries, documents, items, best);
        return Ok(());
    }
    composed::offer_products(queries, documents, items, queries_at_a_time, best)
}

/// Offers every document to every query's best, by their cosine, as
/// [`offer_products`] does by their dot product.
///
/// # Shapes
/// - queries: `[queries, dim]`, as many as `best`
/// - documents: `[documents, dim]`, as many as `items`, the numbers they are offered under
///
/// # Errors
/// [`DeviceError`] if the device's memory does not suffice.
pub fn offer_cosines<B: Backend>(
    queries: Tensor<B, 2>,
    documents: Tensor<B, 2>,
    items: &[u32],
    queries_at_a_time: usize,
    best: &mut [TopK],
) -> Result<(), DeviceError> {
    #[cfg(feature = "ndarray")]
    if let Some(route) = super::cpu::route(&queries) {
        super::cpu::offer_cosines(route, queries, documents, items, best);
        return Ok(());
    }
    composed::offer_cosines(queries, documents, items, queries_at_a_time, best)
}

/// Offers every document to every query's best, by the scores that `compare` gives a
/// block of queries and all documents.
///
/// # Shapes
/// - queries: `[queries, dim]`, as many as `best`
/// - compare: `[block, dim]` to `[block, documents]`, as many as `items`
///
/// # Errors
/// Those of `compare`; [`DeviceError`] if the device's memory does not suffice.
pub fn offer_compared<B: Backend, E: From<DeviceError>>(
    queries: Tensor<B, 2>,
    items: &[u32],
    queries_at_a_time: usize,
    best: &mut [TopK],
    compare: impl Fn(Tensor<B, 2>) -> Result<Tensor<B, 2>, E>,
) -> Result<(), E> {
    if items.is_empty() {
        return Ok(());
    }
    let device = queries.device();
    check_usable::<B>(&device)?;
    let advice = || format!("fewer documents at a time than {} take less", items.len());
    let rows = (SCORES_AT_A_TIME / items.len()).clamp(1, queries_at_a_time.max(1));
    for (block, best) in best.chunks_mut(rows).enumerate() {
        let first = block * rows;
        let block = queries.clone().slice(s![first..first + best.len(), ..]);
        let scores = Reading::begin(compare(block)?).end(COMPARING, advice)?;
        finish::<B>(&device, COMPARING, advice)?;
        let scores: Vec<f32> = scores.iter().collect();
        let scores = scores.par_chunks(items.len());
        scores.zip(best).for_each(|(scores, best)| {
            for (&score, &item) in scores.iter().zip(items) {
                best.push(score, item);
            }
        });
    }
    Ok(())
}
