use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    ExecutionStrategy, LearningComponentsMarker, MultiDeviceOptim, TrainingStrategy,
};

#[cfg(feature = "ddp")]
use super::distribution::{Distribution, Turn};
use super::learner::{TrainableLoss, TrainingModel};
use super::monitored_rate::MonitoredRate;
use super::optimizer::StepOptimizer;
use crate::error::{Result, TrainingError};

/// What burn-train does on one device or several.
pub(super) type Strategy<B, L> = TrainingStrategy<
    LearningComponentsMarker<B, MonitoredRate<B>, TrainingModel<B, L>, StepOptimizer<B, L>>,
>;

/// The devices of a run, and how they share its steps out.
pub(super) struct Devices<B: AutodiffBackend> {
    /// None for the model's own.
    all: Vec<B::Device>,
    #[cfg(feature = "ddp")]
    distribution: Option<Distribution<B>>,
}

impl<B: AutodiffBackend> Devices<B> {
    /// Those whose gradients the first one gathers.
    pub(super) fn gathering(all: Vec<B::Device>) -> Self {
        Self {
            all,
            #[cfg(feature = "ddp")]
            distribution: None,
        }
    }

    /// Those that each update weights of their own.
    #[cfg(feature = "ddp")]
    pub(super) fn distributed(all: Vec<B::Device>) -> Self
    where
        B: burn::tensor::backend::distributed::DistributedBackend,
    {
        Self {
            distribution: (all.len() > 1).then(Distribution::new),
            all,
        }
    }

    /// The number of devices that share a step.
    pub(super) fn workers(&self) -> usize {
        self.all.len().max(1)
    }

    /// The device of the worker that tells what was done, where each updates weights of its
    /// own.
    pub(super) fn main(&self) -> Option<B::Device> {
        #[cfg(feature = "ddp")]
        if self.distribution.is_some() {
            return self.all.first().cloned();
        }
        None
    }

    /// Checks that these devices can do so.
    pub(super) fn check(&self) -> Result<()> {
        #[cfg(feature = "ddp")]
        if let Some(distribution) = &self.distribution {
            distribution.check(&self.all)?;
        }
        let Some((first, others)) = self.all.split_first() else {
            return Ok(());
        };
        match others.iter().find(|other| !arrives::<B>(first, other)) {
            Some(other) => Err(TrainingError::NoTransfer {
                backend: B::name(other),
                from: format!("{first:?}"),
                to: format!("{other:?}"),
            }
            .into()),
            None => Ok(()),
        }
    }

    /// The turn of a run: Burn adds up for one at a time.
    #[cfg(feature = "ddp")]
    pub(super) fn turn(&self) -> Option<Turn> {
        let distribution = self.distribution.as_ref()?;
        Some(distribution.turn(&self.all))
    }

    /// The strategy; none is that of the model's own device.
    pub(super) fn strategy<L: TrainableLoss<B>>(self) -> Option<Strategy<B, L>> {
        #[cfg(feature = "ddp")]
        if let Some(distribution) = self.distribution {
            return Some(TrainingStrategy::Default(distribution.strategy(self.all)));
        }
        let mut devices = self.all;
        let strategy = match devices.len() {
            0 => return None,
            1 => ExecutionStrategy::single(devices.remove(0)),
            _ => ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice),
        };
        Some(TrainingStrategy::Default(strategy))
    }
}

/// Whether a number arrives that one device sends to another: a backend that sends nothing
/// says so to no one.
fn arrives<B: AutodiffBackend>(from: &B::Device, to: &B::Device) -> bool {
    let sent = Tensor::<B::InnerBackend, 1>::ones([1], from).to_device(to);
    let found = sent.try_into_data();
    found.is_ok_and(|found| found.iter::<f64>().eq([1.0]))
}
