use std::fmt::{self, Write};

use super::listed;
use super::table::{rounded, table};
use crate::model::CardEvaluation;

/// Where Sentence Transformers' evaluators are explained.
const EVALUATORS: &str = "https://sbert.net/docs/package_reference/sentence_transformer/evaluation.html#sentence_transformers.sentence_transformer.evaluation.";

/// Writes what evaluators found: a table for each, and one for those that found the same
/// metrics on different data.
pub(super) fn describe(text: &mut String, evaluations: &[CardEvaluation]) -> fmt::Result {
    if evaluations.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Evaluation\n\n### Metrics\n")?;
    for group in groups(evaluations) {
        let first = group[0];
        writeln!(text, "#### {}\n", first.task)?;
        let names: Vec<String> = group
            .iter()
            .map(|found| format!("`{}`", found.dataset))
            .collect();
        if !first.dataset.is_empty() {
            let plural = if names.len() > 1 { "s" } else { "" };
            writeln!(text, "* Dataset{plural}: {}", listed(&names))?;
        }
        let evaluator = &first.evaluator;
        match evaluator.ends_with("Evaluator") {
            true => writeln!(
                text,
                "* Evaluated with [<code>{evaluator}</code>]({EVALUATORS}{evaluator})\n"
            )?,
            false => writeln!(text, "* Evaluated with <code>{evaluator}</code>\n")?,
        }
        let header: Vec<&str> = match group.len() {
            1 => vec!["Metric", "Value"],
            _ => ["Metric"]
                .into_iter()
                .chain(group.iter().map(|found| found.dataset.as_str()))
                .collect(),
        };
        let bold = |is_bold: bool, text: String| match is_bold {
            true => format!("**{text}**"),
            false => text,
        };
        let rows: Vec<Vec<String>> = first
            .metrics
            .iter()
            .enumerate()
            .map(|(place, (metric, _))| {
                let is_primary = *metric == first.primary_metric;
                let values = group.iter().map(|found| rounded(found.metrics[place].1));
                [metric.clone()]
                    .into_iter()
                    .chain(values)
                    .map(|cell| bold(is_primary, cell))
                    .collect()
            })
            .collect();
        writeln!(text, "{}", table(&header, &rows))?;
    }
    Ok(())
}

/// Evaluations by the same evaluator with the same metrics, on data of different names.
fn groups(evaluations: &[CardEvaluation]) -> Vec<Vec<&CardEvaluation>> {
    let mut groups: Vec<Vec<&CardEvaluation>> = Vec::new();
    for evaluation in evaluations {
        let names = |found: &CardEvaluation| -> Vec<String> {
            found.metrics.iter().map(|(name, _)| name.clone()).collect()
        };
        let fits = |group: &&mut Vec<&CardEvaluation>| {
            let first = group[0];
            first.evaluator == evaluation.evaluator
                && names(first) == names(evaluation)
                && group
                    .iter()
                    .all(|other| other.dataset != evaluation.dataset)
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(evaluation),
            None => groups.push(vec![evaluation]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(evaluator: &str, dataset: &str, value: f64) -> CardEvaluation {
        CardEvaluation {
            evaluator: evaluator.to_owned(),
            task: "Triplet".to_owned(),
            dataset: dataset.to_owned(),
            primary_metric: "cosine_accuracy".to_owned(),
            metrics: vec![("cosine_accuracy".to_owned(), value)],
        }
    }

    #[test]
    fn the_same_metrics_on_several_data_share_a_table() {
        let evaluations = [
            found("TripletEvaluator", "a", 0.5),
            found("TripletEvaluator", "b", 0.25),
            found("OtherEvaluator", "a", 1.0),
            found("Own", "", 0.125),
        ];
        let mut text = String::new();
        describe(&mut text, &evaluations).unwrap();
        let expected = "\
            | Metric              | a       | b        |\n\
            |:--------------------|:--------|:---------|\n\
            | **cosine_accuracy** | **0.5** | **0.25** |\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("* Datasets: `a` and `b`\n"), "{text}");
        assert_eq!(text.matches("#### Triplet").count(), 3);
        assert!(
            text.contains("* Evaluated with <code>Own</code>\n"),
            "{text}"
        );
        assert!(
            text.contains("| **cosine_accuracy** | **0.125** |"),
            "{text}"
        );
    }

    #[test]
    fn without_evaluations_there_is_no_section() {
        let mut text = String::new();
        describe(&mut text, &[]).unwrap();
        assert_eq!(text, "");
    }
}
