/// One query's ranking, judged: which of the first documents answer the query.
///
/// The measures are those of Sentence Transformers' `InformationRetrievalEvaluator`, with
/// binary relevance. A query that nothing answers scores 0 in all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedRanking {
    /// Whether each document is relevant, the highest ranked first. Measures at a rank
    /// beyond the last document see nothing relevant there.
    pub hits: Vec<bool>,
    /// How many relevant documents there are, ranked or not.
    pub relevant: usize,
}

impl JudgedRanking {
    /// 1 if one of the first `k` documents is relevant, else 0.
    pub fn accuracy_at(&self, k: usize) -> f64 {
        self.ranks_within(k).next().map_or(0.0, |_| 1.0)
    }

    /// The share of relevant documents among the first `k`.
    pub fn precision_at(&self, k: usize) -> f64 {
        self.ranks_within(k).count() as f64 / k.max(1) as f64
    }

    /// The share of the relevant documents that is among the first `k`.
    pub fn recall_at(&self, k: usize) -> f64 {
        self.ranks_within(k).count() as f64 / self.relevant.max(1) as f64
    }

    /// One over the rank of the first relevant document, 0 if it is not among the first
    /// `k`. Its mean over the queries is MRR@k.
    pub fn reciprocal_rank_at(&self, k: usize) -> f64 {
        self.ranks_within(k)
            .next()
            .map_or(0.0, |rank| 1.0 / rank as f64)
    }

    /// The precision at each relevant document among the first `k`, summed and divided by
    /// how many there could be. Its mean over the queries is MAP@k.
    pub fn average_precision_at(&self, k: usize) -> f64 {
        let precisions: f64 = self
            .ranks_within(k)
            .zip(1..)
            .map(|(rank, found)| f64::from(found) / rank as f64)
            .sum();
        precisions / self.relevant.min(k).max(1) as f64
    }

    /// The discounted gain of the first `k` documents over the best there could be:
    /// `Σ 1 / log2(rank + 1)` over the relevant ones. Its mean over the queries is NDCG@k.
    pub fn ndcg_at(&self, k: usize) -> f64 {
        let gain = |rank: usize| 1.0 / ((rank + 1) as f64).log2();
        let best: f64 = (1..=self.relevant.min(k)).map(gain).sum();
        if best == 0.0 {
            return 0.0;
        }
        self.ranks_within(k).map(gain).sum::<f64>() / best
    }

    /// The ranks, from 1, of the relevant documents among the first `k`.
    fn ranks_within(&self, k: usize) -> impl Iterator<Item = usize> {
        (1..=k)
            .zip(&self.hits)
            .filter_map(|(rank, &hit)| hit.then_some(rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    /// Relevant at ranks 2, 3 and 6, of five relevant documents.
    fn ranking() -> JudgedRanking {
        JudgedRanking {
            hits: vec![false, true, true, false, false, true, false],
            relevant: 5,
        }
    }

    #[test]
    fn accuracy_asks_for_one_hit() {
        let r = ranking();
        assert_eq!(
            [1, 2, 3, 100].map(|k| r.accuracy_at(k)),
            [0.0, 1.0, 1.0, 1.0]
        );
    }

    #[test]
    fn precision_divides_by_k_even_beyond_the_last_document() {
        let r = ranking();
        close(r.precision_at(1), 0.0);
        close(r.precision_at(3), 2.0 / 3.0);
        close(r.precision_at(6), 0.5);
        close(r.precision_at(10), 0.3);
    }

    #[test]
    fn recall_divides_by_all_relevant_documents() {
        let r = ranking();
        close(r.recall_at(1), 0.0);
        close(r.recall_at(3), 0.4);
        close(r.recall_at(10), 0.6);
    }

    #[test]
    fn reciprocal_rank_is_of_the_first_hit() {
        let r = ranking();
        close(r.reciprocal_rank_at(1), 0.0);
        close(r.reciprocal_rank_at(10), 0.5);
    }

    #[test]
    fn average_precision_divides_by_the_hits_there_could_be() {
        let r = ranking();
        // Precision 1/2, 2/3 and 3/6 at the hits; at 3 no more than three hits fit.
        close(r.average_precision_at(3), (0.5 + 2.0 / 3.0) / 3.0);
        close(r.average_precision_at(100), (0.5 + 2.0 / 3.0 + 0.5) / 5.0);
    }

    #[test]
    fn ndcg_compares_with_the_best_order() {
        let r = ranking();
        let found = 1.0 / 3f64.log2() + 1.0 / 4f64.log2() + 1.0 / 7f64.log2();
        let best = 1.0 + 1.0 / 3f64.log2() + 0.5 + 1.0 / 5f64.log2() + 1.0 / 6f64.log2();
        close(r.ndcg_at(10), found / best);
        // At 2 the best order has two hits, this one has its second.
        close(
            r.ndcg_at(2),
            (1.0 / 3f64.log2()) / (1.0 + 1.0 / 3f64.log2()),
        );
    }

    #[test]
    fn a_perfect_ranking_scores_one() {
        let r = JudgedRanking {
            hits: vec![true, true, false],
            relevant: 2,
        };
        for value in [
            r.ndcg_at(10),
            r.average_precision_at(100),
            r.recall_at(3),
            r.reciprocal_rank_at(1),
        ] {
            close(value, 1.0);
        }
    }

    #[test]
    fn nothing_relevant_and_no_documents_score_zero() {
        let nothing = JudgedRanking {
            hits: vec![false; 3],
            relevant: 0,
        };
        let unranked = JudgedRanking {
            hits: vec![],
            relevant: 2,
        };
        for r in [nothing, unranked] {
            for k in [0, 1, 10] {
                let all = [
                    r.accuracy_at(k),
                    r.precision_at(k),
                    r.recall_at(k),
                    r.reciprocal_rank_at(k),
                    r.average_precision_at(k),
                    r.ndcg_at(k),
                ];
                assert_eq!(all, [0.0; 6]);
            }
        }
    }
}
