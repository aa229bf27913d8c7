use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use indexmap::IndexMap;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::dataset::Dataset;
use super::seed;
use crate::error::{Result, TrainingError};

/// How the samples of an epoch are put into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BatchSampler {
    /// In an order drawn anew for each epoch. The reference's `batch_sampler`.
    #[default]
    #[serde(rename = "batch_sampler")]
    Random,
    /// As [`Random`](Self::Random), but no text twice in a batch, in whichever columns:
    /// with in-batch negatives a duplicate would be a false negative. The last batches
    /// of an epoch may be smaller.
    #[serde(alias = "no_duplicates_hashed")]
    NoDuplicates,
    /// Two samples a class in turn, the classes in an order drawn anew each time round: each
    /// batch has two classes or more, with two samples of each or more, for losses that look
    /// for triplets in the batch. What is left over once a single class is left does not take
    /// part in the epoch.
    GroupByLabel,
    /// In the data's own order.
    Sequential,
}

/// The samples of one batch, by their places in the data set.
type Samples = Vec<u32>;

impl BatchSampler {
    /// Checks that batches of a size, which an argument names, can be drawn from this data.
    ///
    /// # Errors
    /// [`TrainingError::InvalidArgument`] if classes are to be grouped and the data has
    /// none, or the batches are too small.
    pub(super) fn check(
        self,
        dataset: &Dataset,
        (argument, batch_size): (&'static str, usize),
    ) -> Result<()> {
        if self != Self::GroupByLabel {
            return Ok(());
        }
        let refuse = |argument, expected, found| {
            Err(TrainingError::InvalidArgument {
                argument,
                expected,
                found,
            }
            .into())
        };
        if batch_size < 4 || batch_size % 2 == 1 {
            let expected = "an even number of at least 4 to group by label";
            return refuse(argument, expected, batch_size.to_string());
        }
        let expected = "a class for each sample, and two samples or more of two classes or more,";
        match dataset.labels() {
            Some(rows) if rows.iter().all(|row| row.len() == 1) => match groups(rows).len() {
                0 | 1 => {
                    let found = "group_by_label with one class or none of that size";
                    refuse("batch_sampler", expected, found.to_owned())
                }
                _ => Ok(()),
            },
            _ => {
                let found = "group_by_label without classes".to_owned();
                refuse("batch_sampler", expected, found)
            }
        }
    }

    /// The batches of an epoch: every sample is in at most one.
    ///
    /// The same data, batch size, seed and path give the same batches; the path is the
    /// epoch and the data set's place in the run. With `drop_last` batches smaller than
    /// `batch_size` are left out.
    pub(super) fn batches(
        self,
        dataset: &Dataset,
        batch_size: usize,
        drop_last: bool,
        seed: u64,
        path: &[u64],
    ) -> Vec<Samples> {
        let path = [&[EPOCH_ORDER], path].concat();
        let mut rng = StdRng::seed_from_u64(seed::derive(seed, &path));
        let batch_size = batch_size.max(1);
        let mut order: Vec<u32> = (0..dataset.len() as u32).collect();
        if matches!(self, Self::Random | Self::NoDuplicates) {
            order.shuffle(&mut rng);
        }
        let mut batches = match self {
            Self::Random | Self::Sequential => {
                order.chunks(batch_size).map(<[u32]>::to_vec).collect()
            }
            Self::NoDuplicates => without_duplicates(&order, dataset, batch_size),
            Self::GroupByLabel => {
                let rows = dataset.labels().unwrap_or_default();
                grouped(groups(rows), batch_size, &mut rng)
            }
        };
        batches.retain(|batch: &Samples| !drop_last || batch.len() == batch_size);
        batches
    }
}

/// Keeps the seeds of the data's order apart from those of other things.
pub(super) const EPOCH_ORDER: u64 = 1;

/// The samples of each class that has two or more, classes in the order of their first
/// samples.
fn groups(rows: &[Vec<f32>]) -> Vec<Samples> {
    let mut groups: IndexMap<u32, Samples> = IndexMap::new();
    for (sample, row) in rows.iter().enumerate() {
        let class = row.first().map_or(0, |class| class.to_bits());
        groups.entry(class).or_default().push(sample as u32);
    }
    groups.into_values().filter(|g| g.len() >= 2).collect()
}

/// `GroupByLabelBatchSampler` of the reference.
fn grouped(groups: Vec<Samples>, batch_size: usize, rng: &mut StdRng) -> Vec<Samples> {
    let mut left = groups;
    for group in &mut left {
        group.shuffle(rng);
        group.truncate(group.len() / 2 * 2);
    }
    let mut turns: Vec<usize> = (0..left.len()).collect();
    let (mut batches, mut batch) = (Vec::new(), Samples::new());
    let mut last = None;
    while turns.len() >= 2 {
        turns.shuffle(rng);
        // A class does not follow itself inside a batch.
        if !batch.is_empty() && turns.first().copied() == last {
            turns.swap(0, 1);
        }
        for &class in &turns {
            let taken = left[class].len() - 2;
            batch.extend(left[class].drain(taken..));
            if batch.len() >= batch_size {
                batches.push(batch.drain(..batch_size).collect());
            }
        }
        last = turns.last().copied();
        turns.retain(|&class| !left[class].is_empty());
    }
    if batch.len() >= 4 {
        batches.push(batch);
    }
    batches
}

/// Goes through the order again and again: a sample with a text that the batch has
/// already is put off to a later batch (`NoDuplicatesBatchSampler` of the reference).
fn without_duplicates(order: &[u32], dataset: &Dataset, batch_size: usize) -> Vec<Samples> {
    let hashes: Vec<Vec<u64>> = dataset
        .columns()
        .iter()
        .map(|texts| texts.iter().map(|text| hash(text)).collect())
        .collect();
    let mut batches = Vec::new();
    // The samples that still wait are a linked list over the order, so that taking one
    // out costs nothing: `next[i]` follows place `i`, and `next[end]` is the first.
    let end = order.len();
    let mut next: Vec<usize> = (1..=end).chain([0]).collect();
    while next[end] != end {
        let mut batch = Samples::new();
        let mut seen = HashSet::new();
        let mut previous = end;
        while next[previous] != end && batch.len() < batch_size {
            let place = next[previous];
            let texts = || hashes.iter().map(|column| column[order[place] as usize]);
            if texts().any(|text| seen.contains(&text)) {
                previous = place;
                continue;
            }
            seen.extend(texts());
            batch.push(order[place]);
            next[previous] = next[place];
        }
        batches.push(batch);
    }
    batches
}

fn hash(text: &str) -> u64 {
    // `DefaultHasher::new` has fixed keys: the same text hashes alike in every run.
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    const ALL: [BatchSampler; 3] = [
        BatchSampler::Random,
        BatchSampler::NoDuplicates,
        BatchSampler::Sequential,
    ];

    /// Pairs out of so few texts that many samples share one.
    fn pairs(rng: &mut StdRng, samples: usize, texts: usize) -> Dataset {
        let mut text = || rng.random_range(0..texts.max(1)).to_string();
        Dataset::from_pairs((0..samples).map(|_| (text(), text())))
    }

    #[test]
    fn every_sample_is_in_exactly_one_batch() {
        let mut rng = StdRng::seed_from_u64(3);
        for round in 0..100 {
            let samples = rng.random_range(0..60);
            let texts = rng.random_range(1..40);
            let dataset = pairs(&mut rng, samples, texts);
            let size = rng.random_range(1..12);
            for sampler in ALL {
                let batches = sampler.batches(&dataset, size, false, 42, &[round]);
                assert!(batches.iter().all(|b| !b.is_empty() && b.len() <= size));
                let mut seen: Vec<u32> = batches.concat();
                seen.sort_unstable();
                assert_eq!(seen, (0..samples as u32).collect::<Vec<_>>(), "{sampler:?}");
                if sampler != BatchSampler::NoDuplicates {
                    assert_eq!(batches.len(), samples.div_ceil(size));
                }
            }
        }
    }

    /// Whether two samples of a batch share a text, in whichever columns.
    fn has_duplicate(batch: &[u32], dataset: &Dataset) -> bool {
        let mut seen = HashSet::new();
        batch.iter().any(|&sample| {
            let texts = || {
                dataset
                    .columns()
                    .iter()
                    .map(|column| &column[sample as usize])
            };
            let duplicate = texts().any(|text| seen.contains(text));
            seen.extend(texts());
            duplicate
        })
    }

    #[test]
    fn no_text_is_twice_in_a_batch() {
        let mut rng = StdRng::seed_from_u64(5);
        let mut random_had_some = false;
        for round in 0..100 {
            let dataset = pairs(&mut rng, 50, 30);
            let batches = BatchSampler::NoDuplicates.batches(&dataset, 8, false, 1, &[round]);
            assert!(!batches.iter().any(|batch| has_duplicate(batch, &dataset)));
            let random = BatchSampler::Random.batches(&dataset, 8, false, 1, &[round]);
            random_had_some |= random.iter().any(|batch| has_duplicate(batch, &dataset));
        }
        assert!(random_had_some);
    }

    #[test]
    fn a_sample_whose_two_texts_are_equal_is_kept() {
        let dataset = Dataset::from_pairs([("a", "a"), ("b", "b"), ("a", "c")]);
        let batches = BatchSampler::NoDuplicates.batches(&dataset, 3, false, 0, &[0]);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 3);
        assert_eq!(batches.len(), 2);
    }

    #[test]
    fn without_duplicates_in_the_data_the_order_is_the_random_one() {
        let dataset = Dataset::from_pairs((0..37).map(|i| (format!("a{i}"), format!("p{i}"))));
        let random = BatchSampler::Random.batches(&dataset, 8, false, 9, &[2]);
        assert_eq!(
            BatchSampler::NoDuplicates.batches(&dataset, 8, false, 9, &[2]),
            random
        );
    }

    #[test]
    fn the_order_follows_from_seed_and_epoch() {
        let dataset = Dataset::from_pairs((0..64).map(|i| (i.to_string(), format!("p{i}"))));
        for sampler in [BatchSampler::Random, BatchSampler::NoDuplicates] {
            let first = sampler.batches(&dataset, 8, false, 42, &[0]);
            assert_eq!(first, sampler.batches(&dataset, 8, false, 42, &[0]));
            assert_ne!(first, sampler.batches(&dataset, 8, false, 43, &[0]));
            assert_ne!(first, sampler.batches(&dataset, 8, false, 42, &[1]));
        }
        let sequential = BatchSampler::Sequential.batches(&dataset, 8, false, 42, &[3]);
        assert_eq!(sequential.concat(), (0..64).collect::<Vec<u32>>());
    }

    #[test]
    fn small_batches_can_be_left_out() {
        let dataset = Dataset::from_pairs((0..10).map(|i| (format!("a{i}"), format!("p{i}"))));
        for sampler in ALL {
            let batches = sampler.batches(&dataset, 4, true, 42, &[0]);
            let lengths: Vec<usize> = batches.iter().map(Vec::len).collect();
            assert_eq!(lengths, [4, 4], "{sampler:?}");
        }
    }

    fn labelled(labels: &[u64]) -> Dataset {
        let texts = vec!["x".to_owned(); labels.len()];
        let rows = labels.iter().map(|&label| vec![label as f32]).collect();
        let dataset = Dataset::from_columns([("text", texts)]).unwrap();
        dataset.with_labels(rows).unwrap()
    }

    #[test]
    fn classes_are_grouped_as_the_reference_groups_them() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/training_arguments/expected.json"
        );
        let expected: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<u64> {
            let values = value.as_array().unwrap().iter();
            values.map(|value| value.as_u64().unwrap()).collect()
        };
        for case in expected["group_by_label"].as_array().unwrap() {
            let labels = numbers(&case["labels"]);
            let dataset = labelled(&labels);
            let size = case["batch_size"].as_u64().unwrap() as usize;
            let drop_last = case["drop_last"].as_bool().unwrap();
            BatchSampler::GroupByLabel
                .check(&dataset, ("size", size))
                .unwrap();
            for seed in 0..20 {
                let batches =
                    BatchSampler::GroupByLabel.batches(&dataset, size, drop_last, seed, &[0]);
                let lengths: Vec<u64> = batches.iter().map(|batch| batch.len() as u64).collect();
                assert_eq!(lengths, numbers(&case["lengths"]), "{case}");
                for batch in &batches {
                    let mut of_class: IndexMap<u64, usize> = IndexMap::new();
                    for &sample in batch {
                        *of_class.entry(labels[sample as usize]).or_default() += 1;
                    }
                    assert!(of_class.len() >= 2 && of_class.values().all(|&n| n >= 2));
                }
                let mut seen = batches.concat();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), batches.iter().map(Vec::len).sum::<usize>());
            }
        }
    }

    #[test]
    fn what_has_no_classes_cannot_be_grouped() {
        let refused = |dataset: &Dataset, size| {
            let result = BatchSampler::GroupByLabel.check(dataset, ("size", size));
            matches!(
                result,
                Err(crate::Error::Training(
                    TrainingError::InvalidArgument { .. }
                ))
            )
        };
        assert!(refused(&labelled(&[0, 0, 1, 1]), 3));
        assert!(refused(&labelled(&[0, 0, 1]), 4));
        assert!(refused(&Dataset::from_pairs([("a", "b")]), 4));
        assert!(!refused(&labelled(&[0, 0, 1, 1]), 4));
    }
}
