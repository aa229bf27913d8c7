use std::cmp::Ordering;

/// How well a threshold tells the pairs of one label from the others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct BestF1 {
    pub(super) f1: f64,
    pub(super) precision: f64,
    pub(super) recall: f64,
    pub(super) threshold: f32,
}

/// Scored pairs, the likeliest first.
pub(super) struct Ranked {
    pairs: Vec<(f32, bool)>,
    greater_is_better: bool,
    positives: usize,
}

/// All pairs down to one score: equal scores are one group.
struct Group {
    /// How many pairs, and how many of them are positive.
    pairs: usize,
    correct: usize,
    /// Halfway to the next score, where there is one.
    threshold: f32,
}

impl Ranked {
    /// Sorts pairs by their score: a similarity if greater is better, else a distance.
    pub(super) fn new(scores: &[f32], labels: &[bool], greater_is_better: bool) -> Self {
        let mut pairs: Vec<(f32, bool)> =
            scores.iter().copied().zip(labels.iter().copied()).collect();
        pairs.sort_by(|a, b| {
            let ascending = a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal);
            match greater_is_better {
                true => ascending.reverse(),
                false => ascending,
            }
        });
        Self {
            positives: pairs.iter().filter(|(_, label)| *label).count(),
            pairs,
            greater_is_better,
        }
    }

    fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        let (mut pairs, mut correct) = (0, 0);
        self.pairs.chunk_by(|a, b| a.0 == b.0).map(move |group| {
            pairs += group.len();
            correct += group.iter().filter(|(_, label)| *label).count();
            let score = group[0].0;
            let threshold = match self.pairs.get(pairs) {
                Some(&(next, _)) => {
                    let middle = (score + next) / 2.0;
                    // A rounded middle must not take the next group in.
                    if middle == next { score } else { middle }
                }
                None => score,
            };
            Group {
                pairs,
                correct,
                threshold,
            }
        })
    }

    /// The best share of pairs on the right side of a threshold, and the threshold.
    pub(super) fn best_accuracy(&self) -> (f64, f32) {
        let Some(&(first, _)) = self.pairs.first() else {
            return (0.0, -1.0);
        };
        let count = self.pairs.len() as f64;
        let negatives = self.pairs.len() - self.positives;
        // To begin with, no pair is taken for positive.
        let mut best = negatives as f64 / count;
        let mut threshold = match self.greater_is_better {
            true => first.next_up(),
            false => first.next_down(),
        };
        for group in self.groups() {
            let wrong = group.pairs - group.correct;
            let accuracy = (group.correct + negatives - wrong) as f64 / count;
            if accuracy > best {
                (best, threshold) = (accuracy, group.threshold);
            }
        }
        (best, threshold)
    }

    /// The best F1 of a threshold; all 0 if nothing is positive.
    pub(super) fn best_f1(&self) -> BestF1 {
        let mut best = BestF1::default();
        for group in self.groups().filter(|group| group.correct > 0) {
            let precision = group.correct as f64 / group.pairs as f64;
            let recall = group.correct as f64 / self.positives as f64;
            let f1 = 2.0 * precision * recall / (precision + recall);
            if f1 > best.f1 {
                best = BestF1 {
                    f1,
                    precision,
                    recall,
                    threshold: group.threshold,
                };
            }
        }
        best
    }

    /// The precision at each recall, summed over the steps of the recall; 0 if nothing is
    /// positive. As scikit-learn's `average_precision_score`.
    pub(super) fn average_precision(&self) -> f64 {
        let (mut sum, mut before) = (0.0, 0);
        for group in self.groups() {
            let found = group.correct - before;
            before = group.correct;
            if found > 0 {
                let precision = group.correct as f64 / group.pairs as f64;
                sum += found as f64 / self.positives as f64 * precision;
            }
        }
        sum
    }

    /// The Matthews correlation of the labels with what a threshold says; 0 where one of
    /// both never varies.
    pub(super) fn matthews_correlation(&self, threshold: f32) -> f64 {
        let (mut predicted, mut right) = (0.0, 0.0);
        for &(score, label) in &self.pairs {
            let positive = match self.greater_is_better {
                true => score >= threshold,
                false => score <= threshold,
            };
            predicted += f64::from(u8::from(positive));
            right += f64::from(u8::from(positive && label));
        }
        let (count, positives) = (self.pairs.len() as f64, self.positives as f64);
        let covariance = right * count - predicted * positives;
        let spread = predicted * (count - predicted) * positives * (count - positives);
        match spread > 0.0 {
            true => covariance / spread.sqrt(),
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 6] = [0.9, 0.7, 0.7, 0.5, 0.4, 0.1];
    const LABELS: [bool; 6] = [true, true, false, true, false, false];

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    fn ranked() -> Ranked {
        Ranked::new(&SCORES, &LABELS, true)
    }

    #[test]
    fn equal_scores_are_taken_together() {
        // Groups: .9 (1 of 1), .7 (2 of 3), .5 (3 of 4), .4 (3 of 5), .1 (3 of 6).
        let (accuracy, threshold) = ranked().best_accuracy();
        close(accuracy, 5.0 / 6.0);
        assert_eq!(threshold, (0.5 + 0.4) / 2.0);
        let best = ranked().best_f1();
        close(best.precision, 0.75);
        close(best.recall, 1.0);
        close(best.f1, 6.0 / 7.0);
        assert_eq!(best.threshold, threshold);
        let third = 1.0 / 3.0;
        let expected = third * 1.0 + third * (2.0 / 3.0) + third * 0.75;
        close(ranked().average_precision(), expected);
    }

    #[test]
    fn distances_are_the_other_way_round() {
        let distances = SCORES.map(|score| 1.0 - score);
        let ranked = Ranked::new(&distances, &LABELS, false);
        let (accuracy, threshold) = ranked.best_accuracy();
        close(accuracy, 5.0 / 6.0);
        assert!((threshold - 0.55).abs() < 1e-6);
        close(ranked.best_f1().f1, 6.0 / 7.0);
    }

    #[test]
    fn nothing_positive_is_best_left_alone() {
        let ranked = Ranked::new(&SCORES, &[false; 6], true);
        let (accuracy, threshold) = ranked.best_accuracy();
        close(accuracy, 1.0);
        assert!(threshold > 0.9 && threshold < 0.900_001);
        assert_eq!(ranked.best_f1(), BestF1::default());
        close(ranked.average_precision(), 0.0);
        close(ranked.matthews_correlation(0.5), 0.0);
    }

    #[test]
    fn matthews_correlates_labels_and_predictions() {
        // From .5 on: 3 right, 1 wrong, and 2 rightly left: (3·2 - 1·0) / √(4·3·3·2).
        close(ranked().matthews_correlation(0.5), 6.0 / 72f64.sqrt());
        close(ranked().matthews_correlation(0.0), 0.0);
    }

    #[test]
    fn a_threshold_never_takes_the_next_score_in() {
        let next = 1f32.next_down();
        let ranked = Ranked::new(&[1.0, next], &[true, false], true);
        let (accuracy, threshold) = ranked.best_accuracy();
        close(accuracy, 1.0);
        assert!(threshold > next);
    }
}
