//! The content of `README.md`: what Sentence Transformers' card says, and what it leaves
//! out: the adapter, and how to load the model with this crate.

mod adapter;
mod architecture;
mod citations;
mod description;
mod evaluation;
mod front_matter;
mod table;
mod training;
mod usage;
mod yaml;

use std::fmt::Write;

use burn::tensor::backend::Backend;

use crate::adapter::AdapterEntry;
use crate::model::SentenceTransformer;

#[cfg(feature = "hub")]
pub(super) use architecture::architecture;

/// The version of Burn that this crate is built on.
const BURN_VERSION: &str = "0.21.0";

/// Writes a model's card.
pub(super) fn model_card<B: Backend>(model: &SentenceTransformer<B>) -> String {
    let card = &model.config().card;
    let adapter = model.adapters().only_active("save").ok();
    let mut text = format!("---\n{}---\n\n", front_matter::front_matter(model, adapter));
    // Writing to a string cannot fail.
    let _ = description::describe(&mut text, model, adapter);
    if let Some(adapter) = adapter {
        let _ = adapter::describe(&mut text, model, adapter);
    }
    let _ = usage::describe(&mut text, model, adapter);
    let _ = evaluation::describe(&mut text, &card.evaluations);
    let _ = training::describe(&mut text, card);
    let _ = write!(
        text,
        "### Framework Versions\n- sentence-burn: {}\n- Burn: {BURN_VERSION}\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let _ = citations::describe(&mut text, card, adapter);
    text
}

/// The base model's hub id; a folder of this machine means nothing to a reader.
fn base_model<'a, B: Backend>(
    model: &'a SentenceTransformer<B>,
    adapter: Option<&'a AdapterEntry>,
) -> Option<&'a str> {
    let of_adapter = adapter.and_then(|adapter| adapter.config.base_model_name_or_path());
    let base = of_adapter.or(model.config().name_or_path.as_deref());
    base.filter(|base| !base.starts_with(['/', '.']) && !base.contains(['\\', ':']))
}

/// The card's heading.
fn title<B: Backend>(model: &SentenceTransformer<B>, adapter: Option<&AdapterEntry>) -> String {
    match (&model.config().card.model_name, base_model(model, adapter)) {
        (Some(name), _) => name.clone(),
        (None, Some(base)) => format!("SentenceTransformer based on {base}"),
        (None, None) => "SentenceTransformer".to_owned(),
    }
}

/// Whether the model is for finding documents by queries.
fn is_for_retrieval<B: Backend>(model: &SentenceTransformer<B>) -> bool {
    let card = &model.config().card;
    card.retrieval.unwrap_or_else(|| {
        let prompts = &model.config().prompts.prompts;
        let prompted = ["query", "document", "passage", "corpus"];
        let tried = ["InformationRetrievalEvaluator", "NanoBEIREvaluator"];
        let columns = card.train_datasets.iter().flat_map(|set| &set.columns);
        prompted
            .iter()
            .any(|name| prompts.get(*name).is_some_and(|prompt| !prompt.is_empty()))
            || columns
                .into_iter()
                .any(|column| ["query", "question"].contains(&column.name.as_str()))
            || card
                .evaluations
                .iter()
                .any(|evaluation| tried.contains(&evaluation.evaluator.as_str()))
    })
}

/// Names around commas, the last around `and`.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [name] => name.clone(),
        [names @ .., last] => format!("{} and {last}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burn_s_version_is_that_of_the_manifest() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(manifest.contains(&format!("burn = {{ version = \"={BURN_VERSION}\"")));
    }

    #[test]
    fn names_are_listed_as_in_a_sentence() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let lists = [0, 1, 2, 3].map(|count| listed(&names[..count]));
        assert_eq!(lists, ["", "a", "a and b", "a, b and c"]);
    }
}
