use std::sync::Arc;

use super::arguments::TrainingArguments;
use super::dataset::Dataset;
use super::sampler::Batch;

/// What each optimiser step of a run reads, settled before the first one.
#[derive(Debug)]
pub(super) struct Plan {
    dataset: Arc<Dataset>,
    arguments: TrainingArguments,
    /// The number of steps before the end of each epoch.
    ends: Vec<usize>,
    /// The number of steps of the last epoch, were it run to its end.
    last_epoch: usize,
}

/// What one optimiser step reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The step's place in the run, from 0.
    pub index: usize,
    /// The batches whose gradients make up the step.
    pub batches: Vec<Batch>,
}

impl Plan {
    pub(super) fn new(dataset: Arc<Dataset>, arguments: TrainingArguments) -> Self {
        let mut plan = Self {
            dataset,
            arguments,
            ends: Vec::new(),
            last_epoch: 0,
        };
        if plan.dataset.is_empty() {
            return plan;
        }
        let mut total = 0;
        loop {
            let epoch = plan.ends.len();
            // Only the no-duplicates sampler makes epochs of different lengths.
            let steps = plan.batches(epoch).len().div_ceil(plan.accumulation());
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

    /// The samples.
    pub(super) fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The arguments of the run.
    pub(super) fn arguments(&self) -> &TrainingArguments {
        &self.arguments
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

    /// The steps of an epoch.
    pub(super) fn steps(&self, epoch: usize) -> Vec<Step> {
        let start = self.start(epoch);
        let end = self.ends.get(epoch).copied().unwrap_or(start);
        let batches = self.batches(epoch);
        let mut groups = batches.chunks(self.accumulation());
        (start..end)
            .zip(&mut groups)
            .map(|(index, batches)| Step {
                index,
                batches: batches.to_vec(),
            })
            .collect()
    }

    /// How many epochs are behind once that many steps are.
    pub(super) fn epochs_after(&self, steps: usize) -> f64 {
        if steps == 0 {
            return 0.0;
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

    fn accumulation(&self) -> usize {
        self.arguments.gradient_accumulation_steps.max(1)
    }

    fn batches(&self, epoch: usize) -> Vec<Batch> {
        self.arguments.batch_sampler.batches(
            &self.dataset,
            self.arguments.per_device_train_batch_size,
            self.arguments.seed,
            epoch,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::BatchSampler;

    fn plan(samples: usize, change: impl FnOnce(&mut TrainingArguments)) -> Plan {
        let pairs = (0..samples).map(|i| (format!("a{i}"), format!("p{i}")));
        let mut arguments = TrainingArguments {
            per_device_train_batch_size: 4,
            num_train_epochs: 2.0,
            ..Default::default()
        };
        change(&mut arguments);
        Plan::new(Arc::new(Dataset::from_pairs(pairs)), arguments)
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
                .flat_map(|s| s.batches.concat())
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
    fn counts_the_steps_of_a_sampler_that_makes_smaller_batches() {
        let pairs = (0..8).map(|i| ("same".to_owned(), i.to_string()));
        let arguments = TrainingArguments {
            batch_sampler: BatchSampler::NoDuplicates,
            num_train_epochs: 1.0,
            ..Default::default()
        };
        let plan = Plan::new(Arc::new(Dataset::from_pairs(pairs)), arguments);
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
