use super::Metrics;
use crate::model::CardEvaluation;

/// What a model card says of an evaluator's result.
///
/// `type_name` is the evaluator's Rust type; names that Python writes in capitals are
/// written so.
pub(super) fn described(
    type_name: &str,
    name: &str,
    primary_metric: &str,
    metrics: &Metrics,
) -> CardEvaluation {
    let evaluator = class_name(type_name);
    let own = |metric: &str| {
        let own = metric
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('_'));
        own.unwrap_or(metric).to_owned()
    };
    CardEvaluation {
        task: task(&evaluator),
        evaluator,
        dataset: name.to_owned(),
        primary_metric: own(primary_metric),
        metrics: metrics
            .iter()
            .map(|(metric, value)| (own(metric), value))
            .collect(),
    }
}

/// `a::b::TripletEvaluator<c::D>` as `TripletEvaluator`.
fn class_name(type_name: &str) -> String {
    let path = type_name.split('<').next().unwrap_or(type_name);
    let name = path.rsplit("::").next().unwrap_or(path);
    name.replace("NanoBeir", "NanoBEIR").replace("Mse", "MSE")
}

/// What an evaluator tries a model at, from its name as Python takes it.
fn task(evaluator: &str) -> String {
    match evaluator {
        "EmbeddingSimilarityEvaluator" => return "Semantic Similarity".to_owned(),
        "MSEEvaluator" => return "Knowledge Distillation".to_owned(),
        _ => {}
    }
    let name = evaluator.strip_suffix("Evaluator").unwrap_or(evaluator);
    let mut words = String::new();
    let mut was_lower = false;
    for c in name.chars() {
        if was_lower && c.is_uppercase() {
            words.push(' ');
        }
        words.push(c);
        was_lower = c.is_lowercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{NanoBeirEvaluator, TripletEvaluator};

    #[test]
    fn evaluators_are_named_as_in_python() {
        let names = [
            std::any::type_name::<TripletEvaluator>(),
            std::any::type_name::<NanoBeirEvaluator>(),
            "a::InformationRetrievalEvaluator<b::C>",
            "a::MseEvaluator",
            "a::EmbeddingSimilarityEvaluator",
        ];
        let found = names.map(|name| {
            let class = class_name(name);
            (class.clone(), task(&class))
        });
        let expected = [
            ("TripletEvaluator", "Triplet"),
            ("NanoBEIREvaluator", "Nano BEIR"),
            ("InformationRetrievalEvaluator", "Information Retrieval"),
            ("MSEEvaluator", "Knowledge Distillation"),
            ("EmbeddingSimilarityEvaluator", "Semantic Similarity"),
        ];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn metrics_lose_the_evaluator_s_name() {
        let metrics = Metrics::from_iter([("dev_cosine_accuracy", 0.5), ("device", 1.0)]);
        let found = described("TripletEvaluator", "dev", "dev_cosine_accuracy", &metrics);
        assert_eq!(found.primary_metric, "cosine_accuracy");
        let names: Vec<_> = found
            .metrics
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["cosine_accuracy", "device"]);
    }
}
