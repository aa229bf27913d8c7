/// How large one batch may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most texts in a batch; 0 counts as 1.
    pub texts: usize,
    /// The most work in a batch, in tokens of linear-layer work. A single text may
    /// exceed it.
    pub cost: usize,
    /// The encoder's hidden size: what attention costs beside the linear layers.
    pub hidden_size: usize,
}

impl BatchLimits {
    /// A text's work, in tokens of linear-layer work.
    ///
    /// A transformer layer spends `24·h²` operations a token in its linear layers and
    /// `4·n·h` in attention over `n` tokens: attention adds `n / 6h` of a token's
    /// linear work to each token.
    fn cost_of(&self, tokens: usize) -> usize {
        tokens + tokens * tokens / (6 * self.hidden_size.max(1))
    }
}

/// Groups texts into batches: longest first, so that texts of like length meet, at
/// most [`BatchLimits::texts`] texts and [`BatchLimits::cost`] work in each.
///
/// Returns the texts' places in `lengths`, each exactly once. Longest first, so that
/// memory peaks in the first batch rather than in the last.
pub fn plan(lengths: &[usize], limits: &BatchLimits) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut batches = Vec::new();
    let mut batch: Vec<usize> = Vec::new();
    let mut cost = 0;
    for index in order {
        let text_cost = limits.cost_of(lengths[index]);
        let full = batch.len() >= limits.texts.max(1) || cost + text_cost > limits.cost;
        if full && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            cost = 0;
        }
        batch.push(index);
        cost += text_cost;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn every_text_is_planned_once_and_within_the_limits() {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..200 {
            let n = rng.random_range(0..80);
            let lengths: Vec<usize> = (0..n).map(|_| rng.random_range(1..600)).collect();
            let limits = BatchLimits {
                texts: rng.random_range(0..40),
                cost: rng.random_range(0..5000),
                hidden_size: rng.random_range(0..512),
            };
            let batches = plan(&lengths, &limits);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
            for batch in &batches {
                let cost: usize = batch.iter().map(|&i| limits.cost_of(lengths[i])).sum();
                assert!(!batch.is_empty() && batch.len() <= limits.texts.max(1));
                assert!(batch.len() == 1 || cost <= limits.cost);
            }
            let flat: Vec<usize> = batches.iter().flatten().map(|&i| lengths[i]).collect();
            assert!(flat.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn equal_lengths_keep_their_order() {
        let limits = BatchLimits {
            texts: 2,
            cost: usize::MAX,
            hidden_size: 8,
        };
        assert_eq!(plan(&[3, 3, 3], &limits), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn a_long_text_costs_more_than_its_tokens() {
        let limits = BatchLimits {
            texts: 8,
            cost: 1000,
            hidden_size: 10,
        };
        assert_eq!(plan(&[300, 300], &limits), [vec![0], vec![1]]);
        let wide = BatchLimits {
            hidden_size: 1000,
            ..limits
        };
        assert_eq!(plan(&[300, 300], &wide), [vec![0, 1]]);
    }
}
