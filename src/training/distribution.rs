use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};

use burn::tensor::backend::distributed::{
    CollectiveTensor, DistributedBackend, DistributedConfig, ReduceOperation,
};
use burn::tensor::backend::{AutodiffBackend, DeviceOps};
use burn::tensor::{Tensor, TensorPrimitive};
use burn::train::ExecutionStrategy;

use super::learner::scalar;
use super::session::lock;
use crate::error::{Result, TrainingError};

/// Burn's distributed data parallel, as a run finds it that does not know whether its backend
/// has it.
pub(super) struct Distribution<B: AutodiffBackend> {
    strategy: fn(Vec<B::Device>) -> ExecutionStrategy<B>,
    sums: fn(&[B::Device]) -> Vec<f64>,
    close: fn(&B::Device),
}

/// A run's turn.
pub(super) type Turn = MutexGuard<'static, ()>;

impl<B: AutodiffBackend + DistributedBackend> Distribution<B> {
    pub(super) fn new() -> Self {
        Self {
            strategy: |devices| {
                // Each worker's gradients are already its part of the mean over all batches.
                let all_reduce_op = ReduceOperation::Sum;
                ExecutionStrategy::ddp(devices, DistributedConfig { all_reduce_op })
            },
            sums: sums::<B>,
            close: B::close_communication_server,
        }
    }
}

impl<B: AutodiffBackend> Distribution<B> {
    pub(super) fn strategy(&self, devices: Vec<B::Device>) -> ExecutionStrategy<B> {
        (self.strategy)(devices)
    }

    /// Checks that the devices differ, and that the backend adds up what they hold: one that
    /// cannot does not say so, it goes on with what each device had.
    pub(super) fn check(&self, devices: &[B::Device]) -> Result<()> {
        let twice = |(place, device): (usize, &B::Device)| devices[..place].contains(device);
        if devices.iter().enumerate().any(twice) {
            return Err(TrainingError::InvalidArgument {
                argument: "devices",
                expected: "devices that differ",
                found: format!("{devices:?}"),
            }
            .into());
        }
        let _turn = self.turn(devices);
        let expected = devices.len();
        let found = catch_unwind(AssertUnwindSafe(|| (self.sums)(devices))).unwrap_or_default();
        match found == vec![expected as f64; expected] {
            true => Ok(()),
            false => Err(TrainingError::NoCollectiveOperations {
                backend: B::name(&devices[0]),
                devices: format!("{devices:?}"),
                expected,
                found,
            }
            .into()),
        }
    }

    /// Waits for the runs before this one: a process has one server of Burn's that adds up,
    /// for the devices of one run.
    pub(super) fn turn(&self, devices: &[B::Device]) -> Turn {
        static ONE: Mutex<()> = Mutex::new(());
        let turn = lock(&ONE);
        // A run that panicked leaves its server behind.
        devices.first().inspect(|device| (self.close)(device));
        turn
    }
}

/// What each device holds once a one of each has been added up.
fn sums<B: AutodiffBackend + DistributedBackend>(devices: &[B::Device]) -> Vec<f64> {
    let ids: Vec<_> = devices.iter().map(DeviceOps::id).collect();
    let sum = |device| {
        let one = Tensor::<B, 1>::ones([1], device).into_primitive().tensor();
        B::all_reduce(one, ReduceOperation::Sum, ids.clone())
    };
    // Each device waits for the others: all are asked before one is, and sent off before one
    // is read.
    let asked: Vec<_> = devices.iter().map(sum).collect();
    let sent: Vec<_> = asked.into_iter().map(CollectiveTensor::resolve).collect();
    let read = |sum| scalar(Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(sum)));
    sent.into_iter().map(read).collect()
}
