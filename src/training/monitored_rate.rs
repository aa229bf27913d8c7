use std::sync::{Arc, Mutex};

use burn::lr_scheduler::LrScheduler;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::monitor::Monitor;
use super::session::lock;

/// The rate of the step that is under way, as burn-train's learner asks for it.
pub(super) struct MonitoredRate<B: AutodiffBackend> {
    monitor: Arc<Mutex<Monitor<B>>>,
    learning_rate: f64,
}

impl<B: AutodiffBackend> MonitoredRate<B> {
    pub(super) fn new(monitor: Arc<Mutex<Monitor<B>>>, learning_rate: f64) -> Self {
        Self {
            monitor,
            learning_rate,
        }
    }
}

impl<B: AutodiffBackend> Clone for MonitoredRate<B> {
    fn clone(&self) -> Self {
        Self::new(self.monitor.clone(), self.learning_rate)
    }
}

impl<B: AutodiffBackend> LrScheduler for MonitoredRate<B> {
    /// None: checkpoints are the monitor's.
    type Record<R: Backend> = ();

    fn step(&mut self) -> f64 {
        lock(&self.monitor).rate(self.learning_rate)
    }

    fn to_record<R: Backend>(&self) {}

    fn load_record<R: Backend>(self, (): ()) -> Self {
        self
    }
}
