use burn::tensor::backend::Backend;
use serde_json::{Map, Value, json};

use super::yaml::yaml;
use super::{base_model, title};
use crate::adapter::{AdapterEntry, PeftConfig};
use crate::model::{CardEvaluation, ModelCardData, SentenceTransformer};

/// The card's metadata for the hub, as YAML.
pub(super) fn front_matter<B: Backend>(
    model: &SentenceTransformer<B>,
    adapter: Option<&AdapterEntry>,
) -> String {
    let card = &model.config().card;
    let mut fields = Map::new();
    let mut field = |name: &str, value: Value| {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            fields.insert(name.to_owned(), value);
        }
    };
    let languages = card
        .language
        .iter()
        .flat_map(|languages| languages.split(','));
    field("language", languages.map(str::trim).collect());
    field("license", json!(card.license));
    field("tags", tags(card, adapter).into());
    let ids = card.train_datasets.iter().chain(&card.eval_datasets);
    let mut datasets: Vec<&str> = Vec::new();
    for id in ids.filter_map(|set| set.id.as_deref()) {
        if !datasets.contains(&id) {
            datasets.push(id);
        }
    }
    field("datasets", datasets.into());
    let base = base_model(model, adapter);
    field("base_model", json!(base));
    if adapter.is_some() && base.is_some() {
        field("base_model_relation", "adapter".into());
    }
    let widget = card.widget.iter();
    let widget =
        widget.map(|(source, others)| json!({ "source_sentence": source, "sentences": others }));
    field("widget", widget.collect());
    field("pipeline_tag", "sentence-similarity".into());
    field("library_name", "sentence-transformers".into());
    let mut metrics: Vec<&str> = Vec::new();
    for (metric, _) in card.evaluations.iter().flat_map(|found| &found.metrics) {
        if !metrics.contains(&metric.as_str()) {
            metrics.push(metric);
        }
    }
    field("metrics", metrics.into());
    if !card.evaluations.is_empty() {
        let results: Vec<Value> = card.evaluations.iter().map(result).collect();
        let name = title(model, adapter);
        field("model-index", json!([{ "name": name, "results": results }]));
    }
    yaml(&fields)
}

fn tags(card: &ModelCardData, adapter: Option<&AdapterEntry>) -> Vec<String> {
    let mut tags: Vec<String> = [
        "sentence-transformers",
        "sentence-similarity",
        "feature-extraction",
        "dense",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(adapter) = adapter {
        let kind = match &adapter.config {
            PeftConfig::Lora(_) => "lora",
            PeftConfig::AdaLora(_) => "adalora",
            PeftConfig::Ia3(_) => "ia3",
            PeftConfig::Loha(_) => "loha",
            PeftConfig::Lokr(_) => "lokr",
        };
        tags.extend(["peft", kind].map(str::to_owned));
    }
    if card.training.is_some() {
        tags.push("generated_from_trainer".to_owned());
    }
    let size: usize = card.train_datasets.iter().map(|set| set.size).sum();
    if size > 0 {
        tags.push(format!("dataset_size:{size}"));
    }
    for loss in card
        .train_datasets
        .iter()
        .filter_map(|set| set.loss.as_ref())
    {
        let losses = [&loss.name].into_iter().chain(&loss.parts);
        tags.extend(losses.map(|name| format!("loss:{name}")));
    }
    tags.extend(card.tags.iter().cloned());
    let mut unique: Vec<String> = Vec::new();
    for tag in tags {
        if !unique.contains(&tag) {
            unique.push(tag);
        }
    }
    unique
}

/// An evaluation as the hub lists it.
fn result(evaluation: &CardEvaluation) -> Value {
    let CardEvaluation { task, dataset, .. } = evaluation;
    let metric = |(name, value): &(String, f64)| {
        // Not a number is no number in JSON.
        Some(
            json!({ "type": name, "value": serde_json::Number::from_f64(*value)?, "name": words(name) }),
        )
    };
    let metrics: Vec<Value> = evaluation.metrics.iter().filter_map(metric).collect();
    let (name, id) = match dataset.is_empty() {
        true => ("Unknown".to_owned(), "unknown".to_owned()),
        false => (dataset.replace(['_', '-'], " "), dataset.clone()),
    };
    json!({
        "task": { "type": task.to_lowercase().replace(' ', "-"), "name": task },
        "dataset": { "name": name, "type": id },
        "metrics": metrics,
    })
}

/// `cosine_ndcg@10` as `Cosine Ndcg@10`.
fn words(metric: &str) -> String {
    let mut text = String::new();
    let mut begins = true;
    for c in metric.chars() {
        let c = if c == '_' { ' ' } else { c };
        match begins {
            true => text.extend(c.to_uppercase()),
            false => text.extend(c.to_lowercase()),
        }
        begins = !c.is_alphabetic();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_python_names_them() {
        assert_eq!(words("cosine_ndcg@10"), "Cosine Ndcg@10");
        assert_eq!(words("spearman_cosine"), "Spearman Cosine");
        assert_eq!(words("cosine_mrr@10"), "Cosine Mrr@10");
    }
}
