use std::cmp::Ordering;

/// An item and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The score.
    pub score: f32,
    /// The item, by whatever number the caller gave it.
    pub item: u32,
}

impl Scored {
    fn best_first(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then(self.item.cmp(&other.item))
    }
}

/// The `k` best of a stream of scored items, in memory of order `k`.
///
/// The order is total: the higher score first, among equal scores the lower item. Which
/// items are kept therefore does not depend on the order they come in.
#[derive(Debug, Clone)]
pub struct TopK {
    k: usize,
    kept: Vec<Scored>,
    /// The worst that still belongs, once `k` are known.
    floor: Option<Scored>,
    not_a_number: Option<u32>,
}

impl TopK {
    /// The `k` best items.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            kept: Vec::new(),
            floor: None,
            not_a_number: None,
        }
    }

    /// All items with at least that score.
    pub fn at_least(score: f32) -> Self {
        let worst = Scored {
            score: score + 0.0,
            item: u32::MAX,
        };
        Self {
            floor: Some(worst),
            ..Self::new(usize::MAX)
        }
    }

    /// Offers an item.
    pub fn push(&mut self, score: f32, item: u32) {
        if score.is_nan() {
            self.note_not_a_number(item);
            return;
        }
        // -0 and 0 are one score, but `total_cmp` tells them apart.
        let candidate = Scored {
            score: score + 0.0,
            item,
        };
        if self
            .floor
            .is_some_and(|floor| candidate.best_first(&floor).is_gt())
        {
            return;
        }
        self.kept.push(candidate);
        // Let twice as many gather before each selection: its cost then spreads over `k`
        // offers.
        if self.kept.len() >= self.k.max(1).saturating_mul(2) {
            self.select();
        }
    }

    /// A score below which no item is kept.
    pub fn floor(&self) -> f32 {
        self.floor.map_or(f32::NEG_INFINITY, |floor| floor.score)
    }

    /// The lowest item whose score was not a number, if there was one. Such items are
    /// never kept.
    pub fn not_a_number(&self) -> Option<u32> {
        self.not_a_number
    }

    /// The best items, best first.
    pub fn into_sorted(mut self) -> Vec<Scored> {
        self.kept.sort_unstable_by(Scored::best_first);
        self.kept.truncate(self.k);
        self.kept
    }

    /// One that keeps nothing yet and takes no item that this one would not.
    #[cfg(any(feature = "ndarray", test))]
    pub(super) fn fork(&self) -> Self {
        Self {
            kept: Vec::new(),
            not_a_number: None,
            ..*self
        }
    }

    /// Takes in what another one kept.
    #[cfg(any(feature = "ndarray", test))]
    pub(super) fn absorb(&mut self, other: Self) {
        if let Some(item) = other.not_a_number {
            self.note_not_a_number(item);
        }
        for kept in other.kept {
            self.push(kept.score, kept.item);
        }
    }

    fn note_not_a_number(&mut self, item: u32) {
        let lowest = self.not_a_number.map_or(item, |known| known.min(item));
        self.not_a_number = Some(lowest);
    }

    fn select(&mut self) {
        if self.k > 0 && self.kept.len() > self.k {
            let (_, worst, _) = self
                .kept
                .select_nth_unstable_by(self.k - 1, Scored::best_first);
            self.floor = Some(*worst);
        }
        self.kept.truncate(self.k);
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

    use super::*;

    fn items(top: TopK) -> Vec<u32> {
        top.into_sorted().into_iter().map(|s| s.item).collect()
    }

    fn top(k: usize, scored: &[(f32, u32)]) -> Vec<u32> {
        let mut top = TopK::new(k);
        for &(score, item) in scored {
            top.push(score, item);
        }
        items(top)
    }

    #[test]
    fn higher_scores_come_first_and_equal_ones_by_item() {
        let scored = [(0.5, 9), (0.9, 4), (0.5, 2), (-1.0, 0), (0.9, 1)];
        assert_eq!(top(4, &scored), [1, 4, 2, 9]);
        assert_eq!(top(10, &scored), [1, 4, 2, 9, 0]);
        assert_eq!(top(0, &scored), [] as [u32; 0]);
        assert_eq!(top(2, &[(-0.0, 0), (0.0, 1), (0.0, 2)]), [0, 1]);
    }

    #[test]
    fn equals_sorting_everything_in_any_order_and_in_parts() {
        let mut rng = StdRng::seed_from_u64(3);
        for k in [1, 2, 7, 100] {
            // Few distinct scores: most of the cut falls among ties.
            let mut scored: Vec<(f32, u32)> = (0..500)
                .map(|item| (rng.random_range(0..12) as f32 / 4.0, item))
                .collect();
            let mut expected = scored.clone();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let expected: Vec<u32> = expected.into_iter().take(k).map(|(_, item)| item).collect();
            scored.shuffle(&mut rng);
            assert_eq!(top(k, &scored), expected, "k = {k}");

            let mut whole = TopK::new(k);
            let (first, rest) = scored.split_at(250);
            for &(score, item) in first {
                whole.push(score, item);
            }
            for part in rest.chunks(60) {
                let mut fork = whole.fork();
                for &(score, item) in part {
                    fork.push(score, item);
                }
                whole.absorb(fork);
            }
            assert_eq!(items(whole), expected, "k = {k}, in parts");
        }
    }

    #[test]
    fn a_threshold_keeps_all_from_it_on() {
        let mut top = TopK::at_least(0.5);
        for (score, item) in [(0.49, 0), (0.5, 1), (2.0, 2), (-1.0, 3), (0.5, 0)] {
            top.push(score, item);
        }
        assert_eq!(top.floor(), 0.5);
        assert_eq!(items(top), [2, 0, 1]);
    }

    #[test]
    fn what_is_not_a_number_is_noted_and_never_kept() {
        let mut top = TopK::new(3);
        top.push(f32::NAN, 7);
        top.push(1.0, 1);
        let mut fork = top.fork();
        fork.push(-f32::NAN, 4);
        assert_eq!(top.not_a_number(), Some(7));
        top.absorb(fork);
        assert_eq!(top.not_a_number(), Some(4));
        assert_eq!(items(top), [1]);
    }
}
