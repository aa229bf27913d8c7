use super::arguments::TrainingArguments;
use super::stream::{StreamReader, StreamedBatch};
use super::training_data::TrainingSet;

/// What each optimiser step of a run reads, settled before the first one; for data that are
/// not in memory, when it is read.
#[derive(Debug)]
pub(super) struct Plan {
    sets: Vec<TrainingSet>,
    arguments: TrainingArguments,
    /// The number of devices that share each step.
    workers: usize,
    /// The number of steps before the end of each epoch. A run on a stream is one.
    ends: Vec<usize>,
    /// The number of steps of the last epoch, were it run to its end.
    last_epoch: usize,
    stream: Option<StreamReader>,
}

/// The samples of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// The place of the data set that they are of.
    pub dataset: usize,
    /// The batch's place in its step.
    pub place: usize,
    /// The samples' places in the data set.
    pub samples: Vec<u32>,
}

/// What one optimiser step reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The step's place in the run, from 0.
    pub index: usize,
    /// The batches whose gradients make up the step, or one worker's part of them.
    pub batches: Vec<Batch>,
    /// The number of batches of the whole step.
    pub all_batches: usize,
}

impl Step {
    /// A step of batches that were read, all of whose samples it takes.
    pub(super) fn streamed(index: usize, batches: &[StreamedBatch]) -> Self {
        let batch = |(place, batch): (usize, &StreamedBatch)| Batch {
            dataset: 0,
            place,
            samples: (0..batch.dataset.len() as u32).collect(),
        };
        Self {
            index,
            batches: batches.iter().enumerate().map(batch).collect(),
            all_batches: batches.len(),
        }
    }

    /// The number of samples in its batches.
    pub(super) fn samples(&self) -> usize {
        self.batches.iter().map(|batch| batch.samples.len()).sum()
    }

    /// The part of the step that one of so many workers does: nothing if there are fewer
    /// batches.
    pub(super) fn of_worker(&self, worker: usize, workers: usize) -> Self {
        let mine = |batch: &&Batch| batch.place % workers == worker;
        let batches = self.batches.iter().filter(mine).cloned().collect();
        Self { batches, ..*self }
    }
}

impl Plan {
    pub(super) fn new(
        sets: Vec<TrainingSet>,
        arguments: TrainingArguments,
        workers: usize,
    ) -> Self {
        let mut plan = Self {
            sets,
            arguments,
            workers,
            ends: Vec::new(),
            last_epoch: 0,
            stream: None,
        };
        if let Some(dataset) = plan.sets.iter().find_map(|set| set.stream.clone()) {
            let batches = plan.batches_of_a_step();
            let max_steps = plan.arguments.max_steps.unwrap_or(0);
            return Self {
                stream: Some(StreamReader::new(dataset, &plan.arguments, batches)),
                ends: vec![max_steps],
                last_epoch: max_steps,
                ..plan
            };
        }
        let mut total = 0;
        loop {
            let epoch = plan.ends.len();
            // The no-duplicates sampler makes epochs of different lengths.
            let steps = plan.batches(epoch).len().div_ceil(plan.batches_of_a_step());
            if steps == 0 {
                return plan;
            }
            plan.last_epoch = steps;
            let wanted = match plan.arguments.max_steps {
                Some(max_steps) => max_steps - total,
                None => {
                    let epochs_left = plan.arguments.num_train_epochs - epoch as f64;
                    (epochs_left.min(1.0) * steps as f64).ceil() as usize
                }
            };
            total += wanted.min(steps);
            plan.ends.push(total);
            let done = match plan.arguments.max_steps {
                Some(max_steps) => total == max_steps,
                None => plan.ends.len() as f64 >= plan.arguments.num_train_epochs,
            };
            if done {
                return plan;
            }
        }
    }

    /// The data sets.
    pub(super) fn sets(&self) -> &[TrainingSet] {
        &self.sets
    }

    /// The arguments of the run.
    pub(super) fn arguments(&self) -> &TrainingArguments {
        &self.arguments
    }

    /// The number of devices that share each step.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Where the samples come from, if they are not in memory.
    pub(super) fn stream(&self) -> Option<&StreamReader> {
        self.stream.as_ref()
    }

    /// The number of optimiser steps of the run.
    pub(super) fn total_steps(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The number of epochs of the run, the last of which may be cut short.
    pub(super) fn epochs(&self) -> usize {
        self.ends.len()
    }

    /// The epoch that a step belongs to, both from 0.
    pub(super) fn epoch_of(&self, step: usize) -> usize {
        self.ends.partition_point(|&end| end <= step)
    }

    /// Whether an epoch is over after that many steps.
    pub(super) fn ends_epoch(&self, steps: usize) -> bool {
        let streamed = |stream: &StreamReader| stream.ends_epoch(steps);
        self.ends.contains(&steps) || self.stream().is_some_and(streamed)
    }

    /// The steps of an epoch, of data that are in memory.
    pub(super) fn steps(&self, epoch: usize) -> Vec<Step> {
        let start = self.start(epoch);
        let end = self.ends.get(epoch).copied().unwrap_or(start);
        let batches = self.batches(epoch);
        let mut groups = batches.chunks(self.batches_of_a_step());
        (start..end)
            .zip(&mut groups)
            .map(|(index, group)| Step {
                index,
                all_batches: group.len(),
                batches: group
                    .iter()
                    .enumerate()
                    .map(|(place, (dataset, samples))| Batch {
                        dataset: *dataset,
                        place,
                        samples: samples.clone(),
                    })
                    .collect(),
            })
            .collect()
    }

    /// How many epochs are behind once that many steps are.
    pub(super) fn epochs_after(&self, steps: usize) -> f64 {
        if steps == 0 {
            return 0.0;
        }
        if let Some(stream) = &self.stream {
            return stream.epochs_after(steps, self.total_steps());
        }
        let epoch = self.epoch_of(steps - 1);
        let whole = match epoch + 1 == self.ends.len() {
            true => self.last_epoch,
            false => self.ends[epoch] - self.start(epoch),
        };
        epoch as f64 + (steps - self.start(epoch)) as f64 / whole as f64
    }

    fn start(&self, epoch: usize) -> usize {
        match epoch {
            0 => 0,
            _ => self
                .ends
                .get(epoch - 1)
                .copied()
                .unwrap_or(self.total_steps()),
        }
    }

    fn batches_of_a_step(&self) -> usize {
        (self.arguments.gradient_accumulation_steps * self.workers).max(1)
    }

    /// The batches of an epoch, each with the place of its data set.
    fn batches(&self, epoch: usize) -> Vec<(usize, Vec<u32>)> {
        let arguments = &self.arguments;
        let batches = |(place, set): (usize, &TrainingSet)| {
            arguments.batch_sampler.batches(
                &set.dataset,
                arguments.per_device_train_batch_size,
                arguments.dataloader_drop_last,
                arguments.seed,
                &[epoch as u64, place as u64],
            )
        };
        let of_sets = self.sets.iter().enumerate().map(batches).collect();
        let sampler = arguments.multi_dataset_batch_sampler;
        sampler.merge(of_sets, arguments.seed, epoch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::training::{BatchSampler, Dataset};

    fn sets(dataset: Dataset) -> Vec<TrainingSet> {
        vec![TrainingSet {
            name: None,
            dataset: Arc::new(dataset),
            stream: None,
            loss: 0,
        }]
    }

    fn plan(samples: usize, change: impl FnOnce(&mut TrainingArguments)) -> Plan {
        let pairs = (0..samples).map(|i| (format!("a{i}"), format!("p{i}")));
        let mut arguments = TrainingArguments {
            per_device_train_batch_size: 4,
            num_train_epochs: 2.0,
            ..Default::default()
        };
        change(&mut arguments);
        Plan::new(sets(Dataset::from_pairs(pairs)), arguments, 1)
    }

    fn lengths(plan: &Plan) -> Vec<usize> {
        (0..plan.epochs())
            .map(|epoch| plan.steps(epoch).len())
            .collect()
    }

    #[test]
    fn goes_through_the_data_once_an_epoch() {
        let plan = plan(10, |_| ());
        assert_eq!((plan.total_steps(), lengths(&plan)), (6, vec![3, 3]));
        for epoch in 0..2 {
            let mut samples: Vec<u32> = plan
                .steps(epoch)
                .into_iter()
                .flat_map(|step| step.batches)
                .flat_map(|batch| batch.samples)
                .collect();
            samples.sort_unstable();
            assert_eq!(samples, (0..10).collect::<Vec<_>>());
        }
        let places: Vec<usize> = (0..2)
            .flat_map(|e| plan.steps(e))
            .map(|s| s.index)
            .collect();
        assert_eq!(places, (0..6).collect::<Vec<_>>());
        assert_ne!(plan.steps(0)[0].batches, plan.steps(1)[0].batches);
    }

    #[test]
    fn the_last_epoch_may_be_cut_short() {
        let half = plan(10, |a| a.num_train_epochs = 1.5);
        assert_eq!(lengths(&half), [3, 2]);
        let steps = plan(10, |a| a.max_steps = Some(7));
        assert_eq!(lengths(&steps), [3, 3, 1]);
        let exact = plan(10, |a| a.max_steps = Some(6));
        assert_eq!(lengths(&exact), [3, 3]);
    }

    #[test]
    fn accumulation_groups_batches_and_keeps_the_rest() {
        let plan = plan(10, |a| a.gradient_accumulation_steps = 2);
        let sizes: Vec<usize> = plan.steps(0).iter().map(|s| s.batches.len()).collect();
        assert_eq!((plan.total_steps(), sizes), (4, vec![2, 1]));
    }

    #[test]
    fn workers_share_each_step_out() {
        let pairs = (0..22).map(|i| (format!("a{i}"), format!("p{i}")));
        let arguments = TrainingArguments {
            per_device_train_batch_size: 4,
            num_train_epochs: 1.0,
            ..Default::default()
        };
        let sets = sets(Dataset::from_pairs(pairs));
        let plan = Plan::new(sets.clone(), arguments.clone(), 2);
        let steps = plan.steps(0);
        assert_eq!(steps.len(), 3);
        let accumulated = TrainingArguments {
            gradient_accumulation_steps: 2,
            ..arguments
        };
        assert_eq!(steps, Plan::new(sets, accumulated, 1).steps(0));
        let of = |step: usize, worker| steps[step].of_worker(worker, 2);
        let together = [of(0, 0).batches, of(0, 1).batches].concat();
        assert_eq!(together, steps[0].batches);
        assert_eq!(of(1, 1).all_batches, 2);
        assert_eq!((of(2, 0).samples(), of(2, 1).samples()), (4, 2));
        assert!(of(0, 0).of_worker(1, 2).batches.is_empty());
    }

    #[test]
    fn knows_where_epochs_end() {
        let plan = plan(10, |a| a.num_train_epochs = 1.5);
        let ends: Vec<usize> = (0..=5).filter(|&steps| plan.ends_epoch(steps)).collect();
        assert_eq!(ends, [3, 5]);
    }

    #[test]
    fn counts_the_steps_of_a_sampler_that_makes_smaller_batches() {
        let pairs = (0..8).map(|i| ("same".to_owned(), i.to_string()));
        let arguments = TrainingArguments {
            batch_sampler: BatchSampler::NoDuplicates,
            num_train_epochs: 1.0,
            ..Default::default()
        };
        let plan = Plan::new(sets(Dataset::from_pairs(pairs)), arguments, 1);
        assert_eq!(plan.total_steps(), 8);
    }

    #[test]
    fn knows_where_a_step_is() {
        let plan = plan(10, |a| a.num_train_epochs = 1.5);
        let epochs: Vec<usize> = (0..6).map(|step| plan.epoch_of(step)).collect();
        assert_eq!(epochs, [0, 0, 0, 1, 1, 2]);
        let after: Vec<f64> = (0..=5).map(|steps| plan.epochs_after(steps)).collect();
        let third = 1.0 / 3.0;
        let expected = [0.0, third, 2.0 * third, 1.0, 1.0 + third, 1.0 + 2.0 * third];
        assert!(
            after
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-12),
            "{after:?}"
        );
    }

    #[test]
    fn no_data_makes_no_steps() {
        assert_eq!(plan(0, |_| ()).total_steps(), 0);
    }
}
