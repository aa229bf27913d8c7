use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;

use super::dataset::Dataset;
use super::plan::{Plan, Step};

/// What the learner's step reads: the samples of one optimiser step, still as texts.
///
/// The step tokenizes them itself, on the device that its model is on.
#[derive(Debug, Clone)]
pub(super) struct StepBatch {
    pub dataset: Arc<Dataset>,
    pub step: Step,
}

/// Hands the learner the steps of one epoch after another.
#[derive(Debug)]
pub(super) struct StepLoader {
    plan: Arc<Plan>,
    /// The step that comes next; the epoch follows from it.
    next_step: AtomicUsize,
    /// The part of an epoch's samples whose batches this loader yields.
    samples: Range<usize>,
}

impl StepLoader {
    /// A loader whose first step is `first_step`, from 0.
    pub(super) fn new(plan: Arc<Plan>, first_step: usize) -> Self {
        let samples = 0..plan.dataset().len();
        Self {
            plan,
            next_step: AtomicUsize::new(first_step),
            samples,
        }
    }

    fn again(&self, samples: Range<usize>) -> Self {
        Self {
            plan: self.plan.clone(),
            next_step: AtomicUsize::new(self.next_step.load(Ordering::SeqCst)),
            samples,
        }
    }
}

impl<B: Backend> DataLoader<B, StepBatch> for StepLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<StepBatch> + 'a> {
        let first = self.next_step.load(Ordering::SeqCst);
        let steps = self.plan.steps(self.plan.epoch_of(first));
        if let Some(last) = steps.last() {
            self.next_step.store(last.index + 1, Ordering::SeqCst);
        }
        let mut skipped = 0;
        let mut begin = 0;
        let mut total = 0;
        let mut rest = Vec::with_capacity(steps.len());
        for step in steps {
            let samples: usize = step.batches.iter().map(Vec::len).sum();
            let mine = self.samples.contains(&begin);
            begin += samples;
            total += if mine { samples } else { 0 };
            match (mine, step.index < first) {
                (true, true) => skipped += samples,
                (true, false) => rest.push(step),
                (false, _) => {}
            }
        }
        Box::new(StepIterator {
            dataset: self.plan.dataset().clone(),
            steps: rest.into_iter(),
            progress: Progress::new(skipped, total),
        })
    }

    fn num_items(&self) -> usize {
        self.samples.len()
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, StepBatch>> {
        Arc::new(self.again(self.samples.clone()))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, StepBatch>> {
        let from = self.samples.start;
        Arc::new(self.again(from + start..(from + end).min(self.samples.end)))
    }
}

struct StepIterator {
    dataset: Arc<Dataset>,
    steps: std::vec::IntoIter<Step>,
    progress: Progress,
}

impl Iterator for StepIterator {
    type Item = StepBatch;

    fn next(&mut self) -> Option<StepBatch> {
        let step = self.steps.next()?;
        self.progress.items_processed += step.batches.iter().map(Vec::len).sum::<usize>();
        Some(StepBatch {
            dataset: self.dataset.clone(),
            step,
        })
    }
}

impl DataLoaderIterator<StepBatch> for StepIterator {
    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// The validation loader of a run: scores come from evaluators, not from burn-train's
/// validation loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoValidation;

impl<B: Backend> DataLoader<B, ()> for NoValidation {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<()> + 'a> {
        Box::new(Self)
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, ()>> {
        Arc::new(Self)
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<B, ()>> {
        Arc::new(Self)
    }
}

impl Iterator for NoValidation {
    type Item = ();

    fn next(&mut self) -> Option<()> {
        None
    }
}

impl DataLoaderIterator<()> for NoValidation {
    fn progress(&self) -> Progress {
        Progress::new(0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::TestBackend;
    use crate::training::TrainingArguments;

    fn plan() -> Arc<Plan> {
        let dataset = Dataset::from_pairs((0..10).map(|i| (format!("a{i}"), format!("p{i}"))));
        let arguments = TrainingArguments {
            per_device_train_batch_size: 4,
            num_train_epochs: 2.0,
            ..Default::default()
        };
        Arc::new(Plan::new(Arc::new(dataset), arguments))
    }

    fn steps(loader: &dyn DataLoader<TestBackend, StepBatch>) -> Vec<Step> {
        loader.iter().map(|batch| batch.step).collect()
    }

    #[test]
    fn each_iteration_is_the_next_epoch() {
        let plan = plan();
        let loader = StepLoader::new(plan.clone(), 0);
        assert_eq!(steps(&loader), plan.steps(0));
        assert_eq!(steps(&loader), plan.steps(1));
        assert!(steps(&loader).is_empty());
    }

    #[test]
    fn continues_in_the_middle_of_an_epoch() {
        let plan = plan();
        let loader = StepLoader::new(plan.clone(), 4);
        let mut iterator = DataLoader::<TestBackend, _>::iter(&loader);
        assert_eq!(iterator.progress().items_processed, 4);
        assert_eq!(iterator.next().unwrap().step, plan.steps(1)[1]);
        assert_eq!(iterator.progress().items_processed, 8);
        assert_eq!(iterator.count(), 1);
        assert!(steps(&loader).is_empty());
    }

    #[test]
    fn slices_share_the_batches_out() {
        let plan = plan();
        let loader: Arc<dyn DataLoader<TestBackend, _>> =
            Arc::new(StepLoader::new(plan.clone(), 0));
        let parts = [loader.slice(0, 5), loader.slice(5, 10)];
        let shared: Vec<Step> = parts.iter().flat_map(|part| steps(&**part)).collect();
        assert_eq!(shared, plan.steps(0));
        assert_eq!(parts.map(|part| part.num_items()), [5, 5]);
    }
}
