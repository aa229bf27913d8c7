use std::fmt::{self, Write};

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::architecture::architecture;
use super::{base_model, listed, title};
use crate::adapter::AdapterEntry;
use crate::model::{CardDataset, SentenceTransformer, SimilarityFunction};

/// What a model is for, unless its card data say.
const TASKS: &str = "semantic textual similarity, semantic search, paraphrase mining, \
                     classification, clustering, and more";

/// Writes the heading and what the model is.
pub(super) fn describe<B: Backend>(
    text: &mut String,
    model: &SentenceTransformer<B>,
    adapter: Option<&AdapterEntry>,
) -> fmt::Result {
    let config = model.config();
    let card = &config.card;
    let base = base_model(model, adapter);
    let dim = model.embedding_dim();
    let origin = match base {
        Some(base) => format!("finetuned from {}", on_hub(base, base)),
        None => "trained".to_owned(),
    };
    let named: Vec<String> = card.train_datasets.iter().filter_map(named).collect();
    let data = match named.len() {
        0 => String::new(),
        1 => format!(" on the {} dataset", named[0]),
        count if named.join(", ").len() > 200 => format!(" on {count} datasets"),
        _ => format!(" on the {} datasets", listed(&named)),
    };
    let tasks = card.task_name.as_deref().unwrap_or(TASKS);
    writeln!(text, "# {}\n", title(model, adapter))?;
    writeln!(
        text,
        "This is a [sentence-transformers](https://www.SBERT.net) model {origin}{data}. It maps \
         inputs to a {dim}-dimensional dense vector space and can be used for {tasks}.\n"
    )?;
    writeln!(text, "## Model Details\n\n### Model Description")?;
    writeln!(text, "- **Model Type:** Sentence Transformer")?;
    if let Some(base) = base {
        let revision = adapter.and_then(|adapter| adapter.config.revision());
        let revision = revision.or(config.revision.as_deref());
        let at = revision.map_or(String::new(), |revision| {
            format!(" at revision `{revision}`")
        });
        writeln!(text, "- **Base model:** {}{at}", on_hub(base, base))?;
    }
    let most = match model.max_seq_length() {
        // As Python prints that there is no limit.
        usize::MAX => "inf".to_owned(),
        most => most.to_string(),
    };
    writeln!(
        text,
        "- **Maximum Sequence Length:** {most} tokens\n- **Output Dimensionality:** {dim} dimensions"
    )?;
    let similarity = match config.similarity_fn {
        SimilarityFunction::Cosine => "Cosine Similarity",
        SimilarityFunction::Dot => "Dot Product",
        SimilarityFunction::Euclidean => "Euclidean Distance",
        SimilarityFunction::Manhattan => "Manhattan Distance",
    };
    writeln!(text, "- **Similarity Function:** {similarity}")?;
    writeln!(text, "- **Supported Modality:** Text")?;
    for (name, prompt) in config.prompts.prompts.iter().filter(|(_, p)| !p.is_empty()) {
        writeln!(text, "- **Prompt `{name}`:** `{prompt}`")?;
    }
    if !named.is_empty() {
        let plural = if named.len() > 1 { "s" } else { "" };
        writeln!(text, "- **Training Dataset{plural}:**")?;
        for name in &named {
            writeln!(text, "    - {name}")?;
        }
    }
    if let Some(languages) = &card.language {
        let plural = if languages.contains(',') { "s" } else { "" };
        writeln!(text, "- **Language{plural}:** {languages}")?;
    }
    if let Some(license) = &card.license {
        writeln!(text, "- **License:** {license}")?;
    }
    writeln!(
        text,
        "\n### Model Sources\n\n- **Documentation:** [Sentence Transformers \
         Documentation](https://sbert.net)\n- **Repository:** [Sentence Transformers on \
         GitHub](https://github.com/huggingface/sentence-transformers)\n- **Hugging Face:** \
         [Sentence Transformers on Hugging \
         Face](https://huggingface.co/models?library=sentence-transformers)\n"
    )?;
    writeln!(
        text,
        "### Full Model Architecture\n\n```\n{}\n```\n",
        architecture(model)
    )
}

/// A data set's name, as a link where it has a place on the hub.
pub(super) fn named(dataset: &CardDataset) -> Option<String> {
    let name = dataset.name.as_ref().or(dataset.id.as_ref())?;
    Some(match &dataset.id {
        Some(id) => on_hub(name, &format!("datasets/{id}")),
        None => name.clone(),
    })
}

fn on_hub(name: &str, path: &str) -> String {
    format!("[{name}](https://huggingface.co/{path})")
}

/// A value as Python prints it.
pub(super) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(python).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(name, value)| format!("{}: {}", quoted(name), python(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A string as Python writes it.
pub(super) fn quoted(text: &str) -> String {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    let mut quoted = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c == quote => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted.push(quote);
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_printed_as_python_does() {
        let value = json!({ "a": null, "b": [true, false, 1.5], "c": "it's" });
        assert_eq!(
            python(&value),
            r#"{'a': None, 'b': [True, False, 1.5], 'c': "it's"}"#
        );
        assert_eq!(quoted("both ' and \" \\\n"), r#"'both \' and " \\\n'"#);
    }
}
