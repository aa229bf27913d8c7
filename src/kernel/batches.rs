use burn::tensor::backend::Backend;

/// Runs `run` over every batch; gives the results in the batches' order.
///
/// On NdArray several batches run at a time, each on a thread of rayon's current pool
/// from beginning to end, so that no thread waits for another between layers. With fewer
/// batches than that takes, the kernels share out each operation instead. Other backends
/// take one batch after the other.
pub fn map_batches<B: Backend, T: Sync, R: Send>(
    batches: &[T],
    run: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    #[cfg(feature = "ndarray")]
    return super::cpu::map_batches::<B, T, R>(batches, run);
    #[cfg(not(feature = "ndarray"))]
    return batches.iter().map(run).collect();
}
