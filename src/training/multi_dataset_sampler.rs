use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::sampler::EPOCH_ORDER;
use super::seed;

/// In what order the batches of several data sets come; each batch is of one data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MultiDatasetBatchSampler {
    /// All batches of all data sets, in an order drawn anew for each epoch.
    #[default]
    Proportional,
    /// A batch of each data set in turn, until one has none left.
    RoundRobin,
}

impl MultiDatasetBatchSampler {
    /// The batches of an epoch, given those of each data set, each with its data set's
    /// place. The batches of one data set keep their order.
    pub(super) fn merge(
        self,
        batches: Vec<Vec<Vec<u32>>>,
        seed: u64,
        epoch: usize,
    ) -> Vec<(usize, Vec<u32>)> {
        let lengths: Vec<usize> = batches.iter().map(Vec::len).collect();
        let order: Vec<usize> = match self {
            Self::Proportional => {
                let of_set = |(place, &length): (usize, &usize)| vec![place; length];
                let mut order: Vec<usize> = lengths.iter().enumerate().flat_map(of_set).collect();
                let path = [EPOCH_ORDER, epoch as u64];
                order.shuffle(&mut StdRng::seed_from_u64(seed::derive(seed, &path)));
                order
            }
            Self::RoundRobin => {
                let rounds = lengths.iter().copied().min().unwrap_or(0);
                (0..rounds).flat_map(|_| 0..lengths.len()).collect()
            }
        };
        let mut of_sets: Vec<_> = batches.into_iter().map(Vec::into_iter).collect();
        let next = |place: usize| Some((place, of_sets[place].next()?));
        order.into_iter().filter_map(next).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::{BatchSampler, Dataset};
    use serde_json::Value;

    fn batches(sizes: &[usize], batch_size: usize, drop_last: bool) -> Vec<Vec<Vec<u32>>> {
        let of_set = |(place, &size): (usize, &usize)| {
            let dataset = Dataset::from_pairs((0..size).map(|i| (i.to_string(), "p")));
            BatchSampler::Random.batches(&dataset, batch_size, drop_last, 7, &[0, place as u64])
        };
        sizes.iter().enumerate().map(of_set).collect()
    }

    fn numbers(value: &Value) -> Vec<usize> {
        let values = value.as_array().unwrap().iter();
        values
            .map(|value| value.as_u64().unwrap() as usize)
            .collect()
    }

    #[test]
    fn each_data_set_has_its_share_as_in_the_reference() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/training_arguments/expected.json"
        );
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in expected["multi_dataset"].as_array().unwrap() {
            let sizes = numbers(&case["sizes"]);
            let drop_last = case["drop_last"].as_bool().unwrap();
            let all = batches(
                &sizes,
                case["batch_size"].as_u64().unwrap() as usize,
                drop_last,
            );
            for (sampler, name) in [
                (MultiDatasetBatchSampler::Proportional, "proportional"),
                (MultiDatasetBatchSampler::RoundRobin, "round_robin"),
            ] {
                let merged = sampler.merge(all.clone(), 1, 0);
                let counts: Vec<usize> = (0..sizes.len())
                    .map(|place| merged.iter().filter(|(of, _)| *of == place).count())
                    .collect();
                assert_eq!(counts, numbers(&case[name]), "{case}");
                // The batches of one data set come in its own order.
                for (place, own) in all.iter().enumerate() {
                    let came: Vec<&Vec<u32>> = merged
                        .iter()
                        .filter(|(of, _)| *of == place)
                        .map(|(_, batch)| batch)
                        .collect();
                    assert!(came.iter().zip(own).all(|(came, own)| *came == own));
                }
                if sampler == MultiDatasetBatchSampler::RoundRobin {
                    let order: Vec<usize> = merged.iter().map(|(of, _)| *of).collect();
                    assert_eq!(order, numbers(&case["round_robin_order"]));
                }
            }
        }
    }

    #[test]
    fn the_order_follows_from_seed_and_epoch() {
        let order = |seed, epoch| -> Vec<usize> {
            let sampler = MultiDatasetBatchSampler::Proportional;
            let merged = sampler.merge(batches(&[40, 60], 4, false), seed, epoch);
            merged.into_iter().map(|(of, _)| of).collect()
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(2, 0));
        assert_ne!(order(1, 0), order(1, 1));
    }
}
