use burn::tensor::backend::Backend;

/// Whether a backend computes on the CPU: where shapes cost nothing, and padding does.
pub(super) fn is_on_host<B: Backend>() -> bool {
    #[cfg(feature = "ndarray")]
    if super::cpu::has_route::<B>() {
        return true;
    }
    #[cfg(feature = "flex")]
    if is_one_of::<B, burn::backend::Flex>() {
        return true;
    }
    #[cfg(all(feature = "flex", feature = "autodiff"))]
    if is_one_of::<B, burn::backend::Autodiff<burn::backend::Flex>>() {
        return true;
    }
    false
}

/// Whether two backends share their tensors.
#[cfg(feature = "flex")]
fn is_one_of<B: Backend, Other: Backend>() -> bool {
    std::any::TypeId::of::<B::FloatTensorPrimitive>()
        == std::any::TypeId::of::<Other::FloatTensorPrimitive>()
}

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

/// The batches that [`map_batches`] runs at a time.
pub fn batches_at_once<B: Backend>() -> usize {
    #[cfg(feature = "ndarray")]
    return super::cpu::batches_at_once::<B>();
    #[cfg(not(feature = "ndarray"))]
    return 1;
}

/// Runs `run` where parallel operations begin without a change of threads: on NdArray in
/// rayon's current pool, elsewhere right here.
///
/// An operation that is called from outside the pool hands its work over and goes to
/// sleep; of many small ones, the handing over is what takes the time.
pub fn near_threads<B: Backend, R: Send>(run: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "ndarray")]
    return super::cpu::near_threads::<B, R>(run);
    #[cfg(not(feature = "ndarray"))]
    return run();
}
