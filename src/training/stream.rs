use std::iter::Peekable;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::arguments::TrainingArguments;
use super::dataset::{Dataset, IterableDataset, Samples};
use super::session::lock;
use crate::error::{Result, TrainingError};

/// Where a run on a stream was: what its checkpoints say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// The steps before the end of each epoch so far.
    pub epoch_ends: Vec<usize>,
    /// The samples that were held to draw the next one from, and the seed; none in the data's
    /// own order.
    pub shuffle: Option<(usize, u64)>,
}

/// Reads what the steps of a run are to see from data that are not in memory, one step
/// after another, and the data from their beginning as often as it takes.
///
/// In memory are the samples that the stream holds, those of one step, and one batch more,
/// which tells whether the epoch goes on.
#[derive(Debug)]
pub(super) struct StreamReader {
    dataset: IterableDataset,
    batch_size: usize,
    batches_of_a_step: usize,
    drop_last: bool,
    position: Mutex<Position>,
}

/// A batch that was read.
#[derive(Debug, Clone)]
pub(super) struct StreamedBatch {
    pub dataset: Dataset,
    /// The place of its first sample in the epoch.
    pub first_sample: usize,
}

#[derive(Debug)]
struct Position {
    /// The steps before the end of each epoch so far.
    ends: Vec<usize>,
    /// The rest of the epoch, once it has begun.
    batches: Option<Peekable<Batches>>,
    /// The steps that were read.
    steps: usize,
    /// What the last one of them sees.
    step: Arc<[StreamedBatch]>,
}

impl StreamReader {
    pub(super) fn new(
        dataset: IterableDataset,
        arguments: &TrainingArguments,
        batches_of_a_step: usize,
    ) -> Self {
        Self {
            dataset,
            batch_size: arguments.per_device_train_batch_size.max(1),
            batches_of_a_step,
            drop_last: arguments.dataloader_drop_last,
            position: Mutex::new(Position {
                ends: Vec::new(),
                batches: None,
                steps: 0,
                step: [].into(),
            }),
        }
    }

    /// The batches of a step, which is that of the call before or the one behind it: the
    /// devices that share a step ask for it in turn.
    ///
    /// # Errors
    /// That of a sample that cannot be read; [`TrainingError::EmptyDataset`] if an epoch has
    /// no batch.
    pub(super) fn step(&self, index: usize) -> Result<Arc<[StreamedBatch]>> {
        let mut position = lock(&self.position);
        while position.steps <= index {
            self.advance(&mut position)?;
        }
        Ok(position.step.clone())
    }

    fn advance(&self, position: &mut Position) -> Result<()> {
        let epoch = position.ends.len();
        let batches = position
            .batches
            .get_or_insert_with(|| self.batches(self.dataset.samples(epoch), 0));
        let step = batches.by_ref().take(self.batches_of_a_step);
        let step: Vec<StreamedBatch> = step.collect::<Result<_>>()?;
        let goes_on = batches.peek().is_some();
        if step.is_empty() {
            return Err(TrainingError::EmptyDataset {
                source_name: format!("epoch {epoch} of the stream, smaller batches left out"),
            }
            .into());
        }
        position.step = step.into();
        position.steps += 1;
        if !goes_on {
            position.batches = None;
            position.ends.push(position.steps);
        }
        Ok(())
    }

    fn batches(&self, samples: Samples, behind: usize) -> Peekable<Batches> {
        let batches = Batches {
            samples,
            behind,
            size: self.batch_size,
            drop_last: self.drop_last,
        };
        batches.peekable()
    }

    /// Goes on behind so many steps, of a run that was in this state. False if the data are
    /// not those of that run.
    ///
    /// # Errors
    /// That of a sample that cannot be read.
    pub(super) fn go_on(&self, steps: usize, state: &StreamState) -> Result<bool> {
        let ends = &state.epoch_ends;
        let ascend = ends.is_sorted_by(|a, b| a < b);
        let behind = steps.checked_sub(ends.last().copied().unwrap_or(0));
        let Some(behind) = behind.filter(|_| ascend) else {
            return Ok(false);
        };
        let behind = behind.saturating_mul(self.samples_of_a_step());
        let mut samples = self.dataset.samples(ends.len());
        for _ in 0..behind {
            if samples.next().transpose()?.is_none() {
                return Ok(false);
            }
        }
        let mut batches = self.batches(samples, behind);
        // The epoch had not ended here.
        if batches.peek().is_none() {
            return Ok(false);
        }
        *lock(&self.position) = Position {
            ends: ends.clone(),
            batches: Some(batches),
            steps,
            step: [].into(),
        };
        Ok(true)
    }

    /// The samples of a step that is no epoch's last one.
    pub(super) fn samples_of_a_step(&self) -> usize {
        self.batch_size.saturating_mul(self.batches_of_a_step)
    }

    /// Where a run is after so many steps.
    pub(super) fn state(&self, steps: usize) -> StreamState {
        let ends = &lock(&self.position).ends;
        StreamState {
            epoch_ends: ends.iter().copied().filter(|&end| end <= steps).collect(),
            shuffle: self.dataset.shuffling(),
        }
    }

    /// Whether an epoch ends with that many steps.
    pub(super) fn ends_epoch(&self, steps: usize) -> bool {
        lock(&self.position).ends.contains(&steps)
    }

    /// How many epochs are behind once that many steps are. As how long an epoch is cannot be
    /// known, the reference takes it for as long as the run.
    pub(super) fn epochs_after(&self, steps: usize, total_steps: usize) -> f64 {
        let ends = &lock(&self.position).ends;
        let epoch = ends.partition_point(|&end| end < steps);
        let start = epoch.checked_sub(1).map_or(0, |before| ends[before]);
        epoch as f64 + (steps - start) as f64 / total_steps.max(1) as f64
    }
}

/// The batches of an epoch.
#[derive(Debug)]
struct Batches {
    samples: Samples,
    /// The samples behind.
    behind: usize,
    size: usize,
    drop_last: bool,
}

impl Iterator for Batches {
    type Item = Result<StreamedBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let dataset = match self.samples.next_dataset(self.size).transpose()? {
            Ok(dataset) => dataset,
            Err(error) => return Some(Err(error)),
        };
        if self.drop_last && dataset.len() < self.size {
            return None;
        }
        let first_sample = self.behind;
        self.behind += dataset.len();
        Some(Ok(StreamedBatch {
            dataset,
            first_sample,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::training::Sample;

    fn numbers(count: usize) -> IterableDataset {
        let sample = |i: usize| Sample {
            texts: vec![i.to_string()],
            label: None,
        };
        IterableDataset::from_generator(["text"], move || (0..count).map(sample).map(Ok)).unwrap()
    }

    fn reader(dataset: IterableDataset, drop_last: bool) -> StreamReader {
        let arguments = TrainingArguments {
            per_device_train_batch_size: 3,
            dataloader_drop_last: drop_last,
            ..Default::default()
        };
        StreamReader::new(dataset, &arguments, 2)
    }

    /// The texts of a step by batch, and the place of each batch's first one.
    fn texts(step: &[StreamedBatch]) -> Vec<(String, usize)> {
        let batch = |batch: &StreamedBatch| {
            let texts = batch.dataset.columns()[0].join(" ");
            (texts, batch.first_sample)
        };
        step.iter().map(batch).collect()
    }

    fn steps(reader: &StreamReader, range: std::ops::Range<usize>) -> Vec<Vec<(String, usize)>> {
        range.map(|i| texts(&reader.step(i).unwrap())).collect()
    }

    #[test]
    fn epochs_follow_each_other_and_keep_their_rest() {
        let reader = reader(numbers(8), false);
        let batch = |texts: &str, first| (texts.to_owned(), first);
        let first = vec![batch("0 1 2", 0), batch("3 4 5", 3)];
        let last = vec![batch("6 7", 6)];
        assert_eq!(steps(&reader, 0..3), [first.clone(), last, first.clone()]);
        // Who shares the step asks for the same one.
        assert_eq!(texts(&reader.step(2).unwrap()), first);
        assert!(reader.ends_epoch(2) && !reader.ends_epoch(1) && !reader.ends_epoch(3));
        let epochs = [1, 2, 3].map(|steps| reader.epochs_after(steps, 10));
        assert_eq!(epochs, [0.1, 0.2, 1.1]);
        assert!(reader.state(1).epoch_ends.is_empty());
        assert_eq!(reader.state(3).epoch_ends, [2]);
    }

    #[test]
    fn small_batches_can_be_left_out() {
        let reader = reader(numbers(8), true);
        let found = steps(&reader, 0..2);
        assert_eq!((found[0].len(), &found[0]), (2, &found[1]));
        assert!(reader.ends_epoch(1));
        let none = self::reader(numbers(2), true);
        for _ in 0..2 {
            assert!(matches!(
                none.step(0),
                Err(Error::Training(TrainingError::EmptyDataset { .. }))
            ));
        }
    }

    #[test]
    fn goes_on_anywhere() {
        let dataset = numbers(23).shuffle(5, 3);
        let whole = reader(dataset.clone(), false);
        let expected = steps(&whole, 0..11);
        assert_ne!(expected[0], expected[4]);
        for behind in 1..11 {
            let rest = reader(dataset.clone(), false);
            assert!(rest.go_on(behind, &whole.state(behind)).unwrap());
            assert_eq!(steps(&rest, behind..11), expected[behind..]);
            assert_eq!(rest.state(11), whole.state(11));
        }
    }

    #[test]
    fn other_data_do_not_go_on() {
        let go_on = |count, steps, epoch_ends: &[usize]| {
            let state = StreamState {
                epoch_ends: epoch_ends.to_vec(),
                shuffle: None,
            };
            reader(numbers(count), false).go_on(steps, &state).unwrap()
        };
        assert!(go_on(23, 3, &[]));
        assert!(!go_on(18, 3, &[]), "the epoch had not ended");
        assert!(!go_on(12, 3, &[]));
        assert!(!go_on(23, 3, &[4]));
        assert!(!go_on(23, 9, &[8, 4]));
        assert!(!go_on(23, usize::MAX, &[]));
    }
}
