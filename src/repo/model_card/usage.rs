use std::fmt::{self, Write};

use burn::tensor::{Tensor, backend::Backend};

use super::description::quoted;
use super::{base_model, is_for_retrieval};
use crate::adapter::AdapterEntry;
use crate::error::Result;
use crate::model::SentenceTransformer;

/// What a model is shown with that brings no texts of its own: a query and documents.
const RETRIEVAL: [&str; 4] = [
    "Which planet is known as the Red Planet?",
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
];

/// The same for a model that is not for retrieval.
const SENTENCES: [&str; 3] = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
];

/// Writes how to load the model and what it then gives, from Python and from Rust.
pub(super) fn describe<B: Backend>(
    text: &mut String,
    model: &SentenceTransformer<B>,
    adapter: Option<&AdapterEntry>,
) -> fmt::Result {
    let card = &model.config().card;
    let is_retrieval = is_for_retrieval(model);
    let own: Vec<&str> = card.examples.iter().map(String::as_str).collect();
    let examples: Vec<&str> = match (is_retrieval, own.len()) {
        (true, 4..) => own[..4].to_vec(),
        (true, _) => RETRIEVAL.to_vec(),
        (false, 3..) => own[..3].to_vec(),
        (false, _) => SENTENCES.to_vec(),
    };
    let similarities = similarities(model, &examples, is_retrieval);
    let usage = Usage {
        id: card.model_id.as_deref().unwrap_or("path/to/this/folder"),
        examples: &examples,
        dim: model.embedding_dim(),
        is_retrieval,
        // A model that cannot encode them has no numbers to show.
        similarities: similarities
            .inspect_err(|error| log::warn!("no similarities on the model card: {error}"))
            .ok(),
    };
    let packages = match adapter {
        Some(_) => "sentence-transformers peft",
        None => "sentence-transformers",
    };
    writeln!(
        text,
        "## Usage\n\n### Direct Usage (Sentence Transformers)\n\nFirst install the Sentence \
         Transformers library:\n\n```bash\npip install -U {packages}\n```\n\nThen you can load this \
         model and run inference.\n\n```python"
    )?;
    usage.python(text)?;
    writeln!(
        text,
        "```\n\n### Direct Usage (sentence-burn)\n\n```bash\ncargo add sentence-burn burn"
    )?;
    writeln!(text, "```\n\n```rust")?;
    usage.rust(text)?;
    writeln!(text, "```\n")?;
    if let Some(base) = adapter.and(base_model(model, adapter)) {
        usage.with_base(text, base)?;
    }
    Ok(())
}

struct Usage<'a> {
    id: &'a str,
    examples: &'a [&'a str],
    dim: usize,
    is_retrieval: bool,
    /// A row for each query or text.
    similarities: Option<Vec<Vec<f32>>>,
}

impl Usage<'_> {
    fn python(&self, text: &mut String) -> fmt::Result {
        let Self { id, dim, .. } = self;
        writeln!(
            text,
            "from sentence_transformers import SentenceTransformer\n\n# Download from the 🤗 \
             Hub\nmodel = SentenceTransformer(\"{id}\")\n# Run inference"
        )?;
        let list = |text: &mut String, name: &str, texts: &[&str]| {
            writeln!(text, "{name} = [")?;
            for example in texts {
                writeln!(text, "    {},", quoted(example))?;
            }
            writeln!(text, "]")
        };
        if self.is_retrieval {
            list(text, "queries", &self.examples[..1])?;
            list(text, "documents", &self.examples[1..])?;
            writeln!(
                text,
                "query_embeddings = model.encode_query(queries)\ndocument_embeddings = \
                 model.encode_document(documents)\nprint(query_embeddings.shape, \
                 document_embeddings.shape)\n# [1, {dim}] [{}, {dim}]\n\n# Get the similarity \
                 scores for the embeddings\nsimilarities = model.similarity(query_embeddings, \
                 document_embeddings)",
                self.examples.len() - 1
            )?;
        } else {
            list(text, "sentences", self.examples)?;
            writeln!(
                text,
                "embeddings = model.encode(sentences)\nprint(embeddings.shape)\n# [{}, {dim}]\n\n# \
                 Get the similarity scores for the embeddings\nsimilarities = \
                 model.similarity(embeddings, embeddings)",
                self.examples.len()
            )?;
        }
        let Some(rows) = &self.similarities else {
            return Ok(());
        };
        writeln!(text, "print(similarities)")?;
        for (place, row) in rows.iter().enumerate() {
            let begin = if place == 0 {
                "# tensor(["
            } else {
                "#         "
            };
            let end = if place + 1 == rows.len() { "])" } else { "," };
            writeln!(text, "{begin}[{}]{end}", numbers(row))?;
        }
        Ok(())
    }

    fn rust(&self, text: &mut String) -> fmt::Result {
        let Self { id, dim, .. } = self;
        let list = |texts: &[&str]| -> String {
            texts
                .iter()
                .map(|text| format!("        {text:?},\n"))
                .collect()
        };
        writeln!(
            text,
            "use burn::backend::NdArray;\nuse sentence_burn::SentenceTransformer;\n\nfn main() -> \
             sentence_burn::Result<()> {{\n    let model = \
             SentenceTransformer::<NdArray>::load(\"{id}\", &Default::default())?;"
        )?;
        if self.is_retrieval {
            let (query, documents) = (list(&self.examples[..1]), list(&self.examples[1..]));
            writeln!(
                text,
                "    let queries = [\n{query}    ];\n    let documents = [\n{documents}    ];\n    let \
                 query_embeddings = model.encode_query(&queries)?;\n    let document_embeddings = \
                 model.encode_document(&documents)?;\n    let similarities = \
                 model.similarity(query_embeddings, document_embeddings)?;"
            )?;
        } else {
            writeln!(
                text,
                "    let sentences = [\n{}    ];\n    let embeddings = model.encode(&sentences)?;\n    \
                 println!(\"{{:?}}\", embeddings.dims()); // [{}, {dim}]\n    let similarities = \
                 model.similarity(embeddings.clone(), embeddings)?;",
                list(self.examples),
                self.examples.len()
            )?;
        }
        writeln!(text, "    println!(\"{{similarities}}\");\n    Ok(())\n}}")
    }

    /// How to load an adapter into a base model that is there already.
    fn with_base(&self, text: &mut String, base: &str) -> fmt::Result {
        let id = self.id;
        writeln!(
            text,
            "### Adapter Usage\n\nThe above loads the base model with the adapter. A base model that \
             is loaded already can take the adapter, beside others, and go without it \
             again:\n\n```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = \
             SentenceTransformer(\"{base}\")\nmodel.load_adapter(\"{id}\")\n```\n\n```rust\nuse \
             burn::backend::NdArray;\nuse sentence_burn::SentenceTransformer;\n\nfn main() -> \
             sentence_burn::Result<()> {{\n    let mut model = \
             SentenceTransformer::<NdArray>::load(\"{base}\", &Default::default())?;\n    \
             model.load_adapter(\"{id}\")?;\n    model.merge_and_unload()?; // as fast as the base \
             model\n    Ok(())\n}}\n```\n"
        )
    }
}

/// Numbers with four decimals, aligned as Python aligns them.
fn numbers(row: &[f32]) -> String {
    let numbers: Vec<String> = row.iter().map(|number| format!("{number:.4}")).collect();
    let width = numbers.iter().map(String::len).max().unwrap_or(0);
    let aligned = numbers.iter().map(|number| format!("{number:>width$}"));
    aligned.collect::<Vec<_>>().join(", ")
}

/// How like the examples are: the first, a query, to the others, or each to each.
fn similarities<B: Backend>(
    model: &SentenceTransformer<B>,
    examples: &[&str],
    is_retrieval: bool,
) -> Result<Vec<Vec<f32>>> {
    let scores: Tensor<B, 2> = match is_retrieval {
        true => {
            let query = model.encode_query(&examples[..1])?;
            model.similarity(query, model.encode_document(&examples[1..])?)?
        }
        false => {
            let embeddings = model.encode(examples)?;
            model.similarity(embeddings.clone(), embeddings)?
        }
    };
    let [_, columns] = scores.dims();
    let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
    Ok(scores.chunks(columns).map(<[f32]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage<'a>(examples: &'a [&'a str], is_retrieval: bool) -> Usage<'a> {
        Usage {
            id: "owner/name",
            examples,
            dim: 4,
            is_retrieval,
            similarities: Some(vec![vec![1.0, -0.25, 0.5]]),
        }
    }

    #[test]
    fn examples_stand_in_the_code_as_it_needs_them() {
        let examples = ["is it \"so\"?", "it's so", "no"];
        let mut python = String::new();
        usage(&examples, false).python(&mut python).unwrap();
        assert!(
            python.contains("    'is it \"so\"?',\n    \"it's so\",\n"),
            "{python}"
        );
        assert!(python.contains("# [3, 4]\n"), "{python}");
        assert!(
            python.ends_with("# tensor([[ 1.0000, -0.2500,  0.5000]])\n"),
            "{python}"
        );
        let mut rust = String::new();
        usage(&examples, true).rust(&mut rust).unwrap();
        assert!(rust.contains(r#""is it \"so\"?","#), "{rust}");
        assert!(rust.contains("encode_query(&queries)"), "{rust}");
    }
}
