use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;

use super::dataset::Dataset;
use super::plan::{Batch, Plan, Step};
use super::session::Session;
use super::stream::{StreamReader, StreamedBatch};

/// What the learner's step reads: the samples of one optimiser step or of one worker's
/// part of it, still as texts.
///
/// The step tokenizes them itself, on the device that its model is on.
#[derive(Debug, Clone)]
pub(super) struct StepBatch {
    /// Where the texts are, if they are in memory.
    pub plan: Arc<Plan>,
    pub step: Step,
    /// The batches of the whole step, if they were read for it.
    pub streamed: Arc<[StreamedBatch]>,
}

impl StepBatch {
    /// Where the texts of a batch are, and the place of the first one, if they were read for
    /// it.
    pub(super) fn dataset(&self, batch: &Batch) -> (&Dataset, Option<usize>) {
        match self.streamed.get(batch.place) {
            Some(streamed) => (&streamed.dataset, Some(streamed.first_sample)),
            None => (&self.plan.sets()[batch.dataset].dataset, None),
        }
    }
}

/// Hands the learner the steps of one epoch after another.
///
/// burn-train divides a loader's items up among devices. Here an item is a worker of the
/// plan: a loader of some workers yields their parts of every step.
#[derive(Debug)]
pub(super) struct StepLoader {
    plan: Arc<Plan>,
    /// What a sample that cannot be read is reported to.
    session: Arc<Session>,
    /// The step that comes next; the epoch follows from it.
    next_step: AtomicUsize,
    workers: Range<usize>,
}

impl StepLoader {
    /// A loader whose first step is `first_step`, from 0.
    pub(super) fn new(plan: Arc<Plan>, session: Arc<Session>, first_step: usize) -> Self {
        let workers = 0..plan.workers();
        Self {
            plan,
            session,
            next_step: AtomicUsize::new(first_step),
            workers,
        }
    }

    fn again(&self, workers: Range<usize>) -> Self {
        Self {
            plan: self.plan.clone(),
            session: self.session.clone(),
            next_step: AtomicUsize::new(self.next_step.load(Ordering::SeqCst)),
            workers,
        }
    }

    /// The part of a step that this loader's workers do. Devices take their parts in step:
    /// one that has none here has nothing to do.
    fn part(&self, step: &Step) -> Step {
        let all = self.plan.workers();
        if self.workers == (0..all) {
            return step.clone();
        }
        let parts = self
            .workers
            .clone()
            .map(|worker| step.of_worker(worker, all));
        Step {
            batches: parts.flat_map(|part| part.batches).collect(),
            ..*step
        }
    }
}

impl<B: Backend> DataLoader<B, StepBatch> for StepLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<StepBatch> + 'a> {
        let first = self.next_step.load(Ordering::SeqCst);
        if let Some(stream) = self.plan.stream() {
            let of_a_step = stream.samples_of_a_step();
            let total = self.plan.total_steps();
            self.next_step.store(total, Ordering::SeqCst);
            return Box::new(StreamIterator {
                loader: self,
                stream,
                steps: first..total,
                progress: Progress::new(
                    first.saturating_mul(of_a_step),
                    total.saturating_mul(of_a_step),
                ),
            });
        }
        let steps = self.plan.steps(self.plan.epoch_of(first));
        if let Some(last) = steps.last() {
            self.next_step.store(last.index + 1, Ordering::SeqCst);
        }
        let parts = steps.iter().map(|step| self.part(step));
        let (behind, rest): (Vec<Step>, Vec<Step>) = parts.partition(|step| step.index < first);
        let samples = |steps: &[Step]| steps.iter().map(Step::samples).sum::<usize>();
        let (skipped, total) = (samples(&behind), samples(&behind) + samples(&rest));
        Box::new(StepIterator {
            plan: self.plan.clone(),
            steps: rest.into_iter(),
            progress: Progress::new(skipped, total),
        })
    }

    fn num_items(&self) -> usize {
        self.workers.len()
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, StepBatch>> {
        Arc::new(self.again(self.workers.clone()))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, StepBatch>> {
        let from = self.workers.start;
        Arc::new(self.again(from + start..(from + end).min(self.workers.end)))
    }
}

struct StepIterator {
    plan: Arc<Plan>,
    steps: std::vec::IntoIter<Step>,
    progress: Progress,
}

impl Iterator for StepIterator {
    type Item = StepBatch;

    fn next(&mut self) -> Option<StepBatch> {
        let step = self.steps.next()?;
        self.progress.items_processed += step.samples();
        Some(StepBatch {
            plan: self.plan.clone(),
            step,
            streamed: [].into(),
        })
    }
}

impl DataLoaderIterator<StepBatch> for StepIterator {
    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// The steps of a stream, read one by one.
struct StreamIterator<'a> {
    loader: &'a StepLoader,
    stream: &'a StreamReader,
    steps: Range<usize>,
    progress: Progress,
}

impl Iterator for StreamIterator<'_> {
    type Item = StepBatch;

    fn next(&mut self) -> Option<StepBatch> {
        let loader = self.loader;
        if loader.session.has_failed() {
            return None;
        }
        let index = self.steps.next()?;
        let streamed = match self.stream.step(index) {
            Ok(streamed) => streamed,
            Err(error) => {
                loader.session.fail(error);
                return None;
            }
        };
        let step = Step::streamed(index, &streamed);
        self.progress.items_processed += step.samples();
        Some(StepBatch {
            plan: loader.plan.clone(),
            step: loader.part(&step),
            streamed,
        })
    }
}

impl DataLoaderIterator<StepBatch> for StreamIterator<'_> {
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
    use crate::training::training_data::TrainingData;
    use crate::training::{Dataset, TrainingArguments};

    fn plan() -> Arc<Plan> {
        shared_by(1)
    }

    fn shared_by(workers: usize) -> Arc<Plan> {
        let dataset = Dataset::from_pairs((0..10).map(|i| (format!("a{i}"), format!("p{i}"))));
        let arguments = TrainingArguments {
            per_device_train_batch_size: 4,
            num_train_epochs: 2.0,
            ..Default::default()
        };
        let sets = TrainingData::single(dataset, ()).train;
        Arc::new(Plan::new(sets, arguments, workers))
    }

    fn steps(loader: &dyn DataLoader<TestBackend, StepBatch>) -> Vec<Step> {
        loader.iter().map(|batch| batch.step).collect()
    }

    #[test]
    fn each_iteration_is_the_next_epoch() {
        let plan = plan();
        let loader = StepLoader::new(plan.clone(), Arc::default(), 0);
        assert_eq!(steps(&loader), plan.steps(0));
        assert_eq!(steps(&loader), plan.steps(1));
        assert!(steps(&loader).is_empty());
    }

    #[test]
    fn continues_in_the_middle_of_an_epoch() {
        let plan = plan();
        let loader = StepLoader::new(plan.clone(), Arc::default(), 4);
        let mut iterator = DataLoader::<TestBackend, _>::iter(&loader);
        assert_eq!(iterator.progress().items_processed, 4);
        assert_eq!(iterator.next().unwrap().step, plan.steps(1)[1]);
        assert_eq!(iterator.progress().items_processed, 8);
        assert_eq!(iterator.count(), 1);
        assert!(steps(&loader).is_empty());
    }

    #[test]
    fn slices_are_the_parts_of_workers() {
        let plan = shared_by(2);
        let loader: Arc<dyn DataLoader<TestBackend, _>> =
            Arc::new(StepLoader::new(plan.clone(), Arc::default(), 0));
        let parts = [loader.slice(0, 1), loader.slice(1, 2)].map(|part| steps(&*part));
        let whole = plan.steps(0);
        for (step, index) in whole.iter().zip(0..) {
            assert_eq!(parts[0][index], step.of_worker(0, 2));
            assert_eq!(parts[1][index], step.of_worker(1, 2));
        }
        assert_eq!((whole.len(), parts[1].len()), (2, 2));
        assert_eq!((parts[1][1].index, parts[1][1].samples()), (1, 0));
        assert_eq!(steps(&*loader), whole);
        assert_eq!(loader.num_items(), 2);
    }
}
