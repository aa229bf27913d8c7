/// Which checkpoints to remove, by their steps, so that `limit` are left: the oldest, but
/// neither the last one nor the best (`rotate_checkpoints` of the reference).
pub(super) fn superfluous(
    steps: &[usize],
    limit: Option<usize>,
    best: Option<usize>,
) -> Vec<usize> {
    let last = steps.iter().max().copied();
    let stays = |step: usize| Some(step) == last || Some(step) == best;
    let staying = steps.iter().filter(|&&step| stays(step)).count();
    let kept = limit.map_or(steps.len(), |limit| limit.max(staying));
    let mut old: Vec<usize> = steps.iter().copied().filter(|&step| !stays(step)).collect();
    old.sort_unstable();
    old.truncate(steps.len().saturating_sub(kept));
    old
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_checkpoints_that_the_reference_keeps_are_kept() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/training_arguments/expected.json"
        );
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let number = |value: &Value| value.as_u64().map(|number| number as usize);
        let numbers = |value: &Value| -> Vec<usize> {
            value
                .as_array()
                .unwrap()
                .iter()
                .filter_map(number)
                .collect()
        };
        let mut best_counts = false;
        for case in expected["rotation"].as_array().unwrap() {
            let steps = numbers(&case["steps"]);
            let (limit, best) = (number(&case["limit"]), number(&case["best"]));
            let left = |best| -> Vec<usize> {
                let gone = superfluous(&steps, limit, best);
                steps
                    .iter()
                    .copied()
                    .filter(|s| !gone.contains(s))
                    .collect()
            };
            assert_eq!(left(best), numbers(&case["left"]), "{case}");
            best_counts |= left(None) != left(best);
        }
        assert!(best_counts);
    }
}
