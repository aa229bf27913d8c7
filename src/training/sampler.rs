use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::dataset::Dataset;
use super::seed;

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
    NoDuplicates,
    /// In the data's own order.
    Sequential,
}

/// The samples of one batch, by their places in the data set.
pub(super) type Batch = Vec<u32>;

impl BatchSampler {
    /// The batches of an epoch: every sample is in exactly one.
    ///
    /// The same data, batch size, seed and epoch give the same batches.
    pub(super) fn batches(
        self,
        dataset: &Dataset,
        batch_size: usize,
        seed: u64,
        epoch: usize,
    ) -> Vec<Batch> {
        let mut order: Vec<u32> = (0..dataset.len() as u32).collect();
        if self != Self::Sequential {
            let mut rng = StdRng::seed_from_u64(seed::derive(seed, &[EPOCH_ORDER, epoch as u64]));
            order.shuffle(&mut rng);
        }
        match self {
            Self::Random | Self::Sequential => order
                .chunks(batch_size.max(1))
                .map(<[u32]>::to_vec)
                .collect(),
            Self::NoDuplicates => without_duplicates(&order, dataset, batch_size.max(1)),
        }
    }
}

/// Keeps the seeds of the data's order apart from those of other things.
const EPOCH_ORDER: u64 = 1;

/// Goes through the order again and again: a sample with a text that the batch has
/// already is put off to a later batch (`NoDuplicatesBatchSampler` of the reference).
fn without_duplicates(order: &[u32], dataset: &Dataset, batch_size: usize) -> Vec<Batch> {
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
        let mut batch = Batch::new();
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
                let batches = sampler.batches(&dataset, size, 42, round);
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
            let batches = BatchSampler::NoDuplicates.batches(&dataset, 8, 1, round);
            assert!(!batches.iter().any(|batch| has_duplicate(batch, &dataset)));
            let random = BatchSampler::Random.batches(&dataset, 8, 1, round);
            random_had_some |= random.iter().any(|batch| has_duplicate(batch, &dataset));
        }
        assert!(random_had_some);
    }

    #[test]
    fn a_sample_whose_two_texts_are_equal_is_kept() {
        let dataset = Dataset::from_pairs([("a", "a"), ("b", "b"), ("a", "c")]);
        let batches = BatchSampler::NoDuplicates.batches(&dataset, 3, 0, 0);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 3);
        assert_eq!(batches.len(), 2);
    }

    #[test]
    fn without_duplicates_in_the_data_the_order_is_the_random_one() {
        let dataset = Dataset::from_pairs((0..37).map(|i| (format!("a{i}"), format!("p{i}"))));
        let random = BatchSampler::Random.batches(&dataset, 8, 9, 2);
        assert_eq!(
            BatchSampler::NoDuplicates.batches(&dataset, 8, 9, 2),
            random
        );
    }

    #[test]
    fn the_order_follows_from_seed_and_epoch() {
        let dataset = Dataset::from_pairs((0..64).map(|i| (i.to_string(), format!("p{i}"))));
        for sampler in [BatchSampler::Random, BatchSampler::NoDuplicates] {
            let first = sampler.batches(&dataset, 8, 42, 0);
            assert_eq!(first, sampler.batches(&dataset, 8, 42, 0));
            assert_ne!(first, sampler.batches(&dataset, 8, 43, 0));
            assert_ne!(first, sampler.batches(&dataset, 8, 42, 1));
        }
        let sequential = BatchSampler::Sequential.batches(&dataset, 8, 42, 3);
        assert_eq!(sequential.concat(), (0..64).collect::<Vec<u32>>());
    }
}
