/// Derives a seed from a run's seed and what the seed is for: equal inputs give equal
/// seeds, neighbouring ones give unrelated seeds (SplitMix64's finaliser).
pub(super) fn derive(seed: u64, path: &[u64]) -> u64 {
    path.iter().fold(mix(seed), |state, &part| {
        mix(state ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15)))
    })
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn different_paths_give_different_seeds() {
        let mut seeds = HashSet::new();
        for seed in 0..10 {
            for step in 0..50 {
                for part in 0..10 {
                    seeds.insert(derive(seed, &[step, part]));
                }
            }
        }
        assert_eq!(seeds.len(), 5000);
        assert_eq!(derive(42, &[1, 2]), derive(42, &[1, 2]));
        assert_ne!(derive(42, &[1, 2]), derive(42, &[2, 1]));
        assert_ne!(derive(42, &[1]), derive(42, &[1, 0]));
    }
}
