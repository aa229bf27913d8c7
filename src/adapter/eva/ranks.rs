/// What one layer brings to the distribution of ranks.
#[derive(Debug, Clone, Copy)]
pub struct ExplainedVariance<'a> {
    /// The place of the first layer with the same inputs: the layer's own, if there is
    /// none before it.
    pub leader: usize,
    /// The part of its inputs' variance that each singular vector explains, falling; no
    /// more than the layer's rank may become.
    pub ratios: &'a [f64],
}

/// Each layer's new rank: how many of its singular vectors are among the `budget` that
/// explain most of their inputs, over all layers.
///
/// The ranks sum to the budget, unless there are not so many vectors. Of layers with the
/// same inputs the first gets the largest rank: it is the one whose vectors are computed.
/// Among equals, layers that lead come first, then the others.
///
/// Source: `_get_rank_distribution` in `tuners/lora/eva.py` of PEFT.
pub fn redistribute_ranks(layers: &[ExplainedVariance<'_>], budget: usize) -> Vec<usize> {
    let leads = |place: &usize| layers[*place].leader == *place;
    // Followers by group, groups by leader, as PEFT lists them.
    let mut followers: Vec<usize> = (0..layers.len()).filter(|place| !leads(place)).collect();
    followers.sort_by_key(|&place| layers[place].leader);
    let leaders = (0..layers.len()).filter(leads);
    let mut vectors: Vec<(usize, f64)> = leaders
        .chain(followers.iter().copied())
        .flat_map(|place| {
            layers[place]
                .ratios
                .iter()
                .map(move |&ratio| (place, ratio))
        })
        .collect();
    vectors.sort_by(|(_, a), (_, b)| b.total_cmp(a));

    let mut ranks = vec![0; layers.len()];
    for (place, _) in vectors.into_iter().take(budget) {
        ranks[place] += 1;
    }
    for place in followers {
        let leader = layers[place].leader;
        if ranks[leader] < ranks[place] {
            ranks.swap(leader, place);
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(leader: usize, ratios: &[f64]) -> ExplainedVariance<'_> {
        ExplainedVariance { leader, ratios }
    }

    #[test]
    fn ranks_go_where_they_explain_most_and_keep_the_budget() {
        let layers = [
            layer(0, &[0.9, 0.05, 0.01, 0.001]),
            layer(1, &[0.4, 0.3, 0.2, 0.1]),
            layer(2, &[0.02, 0.01, 0.0, 0.0]),
        ];
        assert_eq!(redistribute_ranks(&layers, 6), [2, 4, 0]);
        for budget in 0..=12 {
            let ranks = redistribute_ranks(&layers, budget);
            assert_eq!(ranks.iter().sum::<usize>(), budget);
        }
        assert_eq!(redistribute_ranks(&layers, 100), [4, 4, 4]);
    }

    #[test]
    fn of_equal_layers_the_first_gets_most() {
        // The third layer shares the first one's inputs; one rank is left for the two.
        let shared = [0.5, 0.25];
        let layers = [layer(0, &shared), layer(1, &[0.3, 0.1]), layer(0, &shared)];
        assert_eq!(redistribute_ranks(&layers, 2), [1, 0, 1]);
        assert_eq!(redistribute_ranks(&layers, 4), [2, 1, 1]);
        assert_eq!(redistribute_ranks(&layers, 1), [1, 0, 0]);
    }
}
