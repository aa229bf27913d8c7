use std::fmt::{Display, Write};

use burn::tensor::backend::Backend;

use crate::adapter::{AdapterEntry, ModuleNames, PeftConfig};
use crate::model::SentenceTransformer;

/// The content of `README.md`: what the model is and how to load it, with the adapter
/// that Python's own card leaves out.
pub(super) fn model_card<B: Backend>(model: &SentenceTransformer<B>) -> String {
    let adapter = model.adapters().only_active("save").ok();
    let mut card = front_matter(model, adapter);
    // Writing to a string cannot fail.
    let _ = body(&mut card, model, adapter);
    card
}

/// The card's YAML; every value is written as JSON, which is YAML too.
fn front_matter<B: Backend>(
    model: &SentenceTransformer<B>,
    adapter: Option<&AdapterEntry>,
) -> String {
    let data = &model.config().card;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut yaml = String::from("---\n");
    let mut line = |key: &str, value: &str| {
        yaml.push_str(&format!("{key}: {value}\n"));
    };
    if let Some(language) = &data.language {
        line("language", &quoted(language));
    }
    if let Some(license) = &data.license {
        line("license", &quoted(license));
    }
    let mut tags = vec![
        "sentence-transformers",
        "sentence-similarity",
        "feature-extraction",
        "dense",
    ];
    if adapter.is_some() {
        tags.extend(["peft", "lora"]);
    }
    tags.extend(data.tags.iter().map(String::as_str));
    let tags: Vec<String> = tags.into_iter().map(quoted).collect();
    line("tags", &format!("[{}]", tags.join(", ")));
    if let Some(base) = base_model(model, adapter) {
        line("base_model", &quoted(base));
        if adapter.is_some() {
            line("base_model_relation", "adapter");
        }
    }
    line("pipeline_tag", "sentence-similarity");
    line("library_name", "sentence-transformers");
    yaml.push_str("---\n\n");
    yaml
}

/// The base model's hub id; a folder of this machine means nothing to a reader.
fn base_model<'a, B: Backend>(
    model: &'a SentenceTransformer<B>,
    adapter: Option<&'a AdapterEntry>,
) -> Option<&'a str> {
    let of_adapter = adapter.and_then(|adapter| adapter.config.base_model_name_or_path());
    let base = of_adapter.or(model.config().name_or_path.as_deref());
    base.filter(|base| !base.starts_with(['/', '.']) && !base.contains('\\'))
}

fn body<B: Backend>(
    card: &mut String,
    model: &SentenceTransformer<B>,
    adapter: Option<&AdapterEntry>,
) -> std::fmt::Result {
    let config = model.config();
    let data = &config.card;
    let title = data
        .model_name
        .as_deref()
        .unwrap_or("Sentence-embedding model");
    let dim = model.embedding_dim();
    writeln!(card, "# {title}\n")?;
    writeln!(
        card,
        "This [Sentence Transformers](https://www.sbert.net) model maps texts to a {dim}-dimensional \
         vector space, for semantic search, similarity, clustering and the like.\n"
    )?;
    writeln!(card, "## Model\n")?;
    writeln!(card, "| | |\n|---|---|")?;
    if let Some(base) = base_model(model, adapter) {
        let revision = config
            .revision
            .as_ref()
            .map(|r| format!(" at `{r}`"))
            .unwrap_or_default();
        writeln!(card, "| base model | `{base}`{revision} |")?;
    }
    writeln!(card, "| encoder | `{}` |", config.encoder.model_type())?;
    writeln!(
        card,
        "| maximum length | {} tokens |",
        model.max_seq_length()
    )?;
    writeln!(card, "| dimensions | {dim} |")?;
    writeln!(card, "| similarity | {} |", config.similarity_fn.name())?;
    let modules: Vec<&str> = model
        .modules()
        .iter()
        .map(|module| module.type_name())
        .collect();
    writeln!(card, "| modules | Transformer → {} |", modules.join(" → "))?;
    for (name, prompt) in &config.prompts.prompts {
        if !prompt.is_empty() {
            writeln!(card, "| prompt `{name}` | `{prompt}` |")?;
        }
    }
    if let Some(adapter) = adapter {
        adapter_section(card, adapter)?;
    }
    let id = data.model_id.as_deref().unwrap_or("path/to/this/folder");
    writeln!(
        card,
        "\n## Usage\n\nIn Rust:\n\n```rust\nuse burn::backend::NdArray;\nuse \
         sentence_burn::SentenceTransformer;\n\nlet model = \
         SentenceTransformer::<NdArray>::load(\"{id}\", &Default::default())?;\nlet embeddings = \
         model.encode(&[\"This is an example sentence\", \"Each sentence is converted\"])?;\n```\n\nIn \
         Python:\n\n```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = \
         SentenceTransformer(\"{id}\")\nembeddings = model.encode([\"This is an example sentence\", \
         \"Each sentence is converted\"])\n```"
    )
}

fn adapter_section(card: &mut String, adapter: &AdapterEntry) -> std::fmt::Result {
    let config = &adapter.config;
    writeln!(card, "\n## Adapter\n\n| | |\n|---|---|")?;
    let mut row = |name: &str, value: &dyn Display| writeln!(card, "| {name} | {value} |");
    match config {
        PeftConfig::Lora(config) => {
            row(
                "type",
                &if config.use_dora {
                    "LoRA (DoRA)"
                } else {
                    "LoRA"
                },
            )?;
            row("rank", &config.r)?;
            row("alpha", &config.lora_alpha)?;
            row("dropout", &config.lora_dropout)?;
        }
        PeftConfig::AdaLora(config) => {
            row("type", &"AdaLoRA")?;
            row("first rank", &config.init_r)?;
            row("alpha", &config.lora_alpha)?;
            row("dropout", &config.lora_dropout)?;
        }
        PeftConfig::Ia3(_) => row("type", &"IA³")?,
        PeftConfig::Loha(config) => {
            row("type", &"LoHa")?;
            row("rank", &config.r)?;
            row("alpha", &config.alpha)?;
        }
        PeftConfig::Lokr(config) => {
            row("type", &"LoKr")?;
            row("rank", &config.r)?;
            row("alpha", &config.alpha)?;
        }
    }
    let targets = match config.target_modules() {
        Some(ModuleNames::List(names)) => names.join(", "),
        Some(ModuleNames::Pattern(pattern)) => format!("`{pattern}`"),
        None => "the architecture's default ones".to_owned(),
    };
    row("layers", &targets)
}
