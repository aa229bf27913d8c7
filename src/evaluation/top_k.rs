use std::cmp::Ordering;

/// The `k` best of a stream of scored documents, in memory of order `k`.
///
/// The order is total: the higher score first, among equal scores the lower document.
/// Which documents are kept therefore does not depend on the order they come in.
#[derive(Debug, Clone)]
pub(super) struct TopK {
    k: usize,
    kept: Vec<Scored>,
    /// The worst that still belongs, once `k` are known.
    floor: Option<Scored>,
}

#[derive(Debug, Clone, Copy)]
struct Scored {
    score: f32,
    document: u32,
}

impl Scored {
    fn best_first(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then(self.document.cmp(&other.document))
    }
}

impl TopK {
    pub(super) fn new(k: usize) -> Self {
        Self {
            k,
            kept: Vec::new(),
            floor: None,
        }
    }

    /// Offers a document; `score` is not NaN.
    pub(super) fn push(&mut self, score: f32, document: u32) {
        // -0 and 0 are one score, but `total_cmp` tells them apart.
        let candidate = Scored {
            score: score + 0.0,
            document,
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
        if self.kept.len() >= 2 * self.k.max(1) {
            self.select();
        }
    }

    /// The best `k` documents, best first.
    pub(super) fn into_documents(mut self) -> Vec<u32> {
        self.kept.sort_unstable_by(Scored::best_first);
        self.kept.truncate(self.k);
        self.kept.into_iter().map(|kept| kept.document).collect()
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

    fn top(k: usize, scored: &[(f32, u32)]) -> Vec<u32> {
        let mut top = TopK::new(k);
        for &(score, document) in scored {
            top.push(score, document);
        }
        top.into_documents()
    }

    #[test]
    fn higher_scores_come_first_and_equal_ones_by_document() {
        let scored = [(0.5, 9), (0.9, 4), (0.5, 2), (-1.0, 0), (0.9, 1)];
        assert_eq!(top(4, &scored), [1, 4, 2, 9]);
        assert_eq!(top(10, &scored), [1, 4, 2, 9, 0]);
        assert_eq!(top(0, &scored), [] as [u32; 0]);
        assert_eq!(top(2, &[(-0.0, 0), (0.0, 1), (0.0, 2)]), [0, 1]);
    }

    #[test]
    fn equals_sorting_everything_in_any_order() {
        let mut rng = StdRng::seed_from_u64(3);
        for k in [1, 2, 7, 100] {
            // Few distinct scores: most of the cut falls among ties.
            let mut scored: Vec<(f32, u32)> = (0..500)
                .map(|document| (rng.random_range(0..12) as f32 / 4.0, document))
                .collect();
            let mut expected = scored.clone();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let expected: Vec<u32> = expected.into_iter().take(k).map(|(_, d)| d).collect();
            scored.shuffle(&mut rng);
            assert_eq!(top(k, &scored), expected, "k = {k}");
        }
    }
}
