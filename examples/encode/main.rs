//! Encodes a file of texts.
//!
//! ```text
//! cargo run --release --example encode -- --model all-MiniLM-L6-v2 --input texts.txt --output embeddings.npy
//! cargo run --release --example encode -- --model base --adapter adapter --input texts.jsonl --output embeddings.jsonl
//! ```

#[path = "../command_line/adapters.rs"]
mod adapters;
#[path = "../command_line/backend.rs"]
mod backend;
mod npy;
mod texts;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::tensor::backend::Backend;
use clap::{Parser, ValueEnum};
use sentence_burn::model::{BASE_MODEL, QuantizedValues, quantize_embeddings};
use sentence_burn::{AdapterChoice, EncodeOptions, Precision, Prompt, SentenceTransformer};

use adapters::AdapterArgs;
use backend::{BackendName, Job};
use texts::Line;

/// Encodes a file of texts.
#[derive(Parser)]
struct Args {
    /// A model folder, an adapter folder, or a hub id.
    #[arg(long)]
    model: String,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// The texts: .txt with a text a line, or .jsonl with {"text": …} a line. A line of the
    /// latter may name the adapter of its text: {"text": …, "adapter": …}, `__base__` being
    /// none.
    #[arg(long)]
    input: PathBuf,
    /// Where the embeddings go: .npy, or .jsonl with {"embedding": […]} a line.
    #[arg(long)]
    output: PathBuf,
    /// The most texts in a batch.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// A text to put in front of each.
    #[arg(long, conflicts_with = "prompt_name")]
    prompt: Option<String>,
    /// One of the model's named prompts to put in front of each text.
    #[arg(long)]
    prompt_name: Option<String>,
    /// What the texts are encoded for, `query` or `document`, where the model has a Router.
    #[arg(long)]
    task: Option<String>,
    /// Scale embeddings to unit length.
    #[arg(long)]
    normalize: bool,
    /// Keep only the first dimensions.
    #[arg(long, value_name = "D")]
    truncate_dim: Option<usize>,
    /// How to store embeddings.
    #[arg(long, value_enum, default_value_t = Stored::Float32)]
    precision: Stored,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = BackendName::first())]
    backend: BackendName,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stored {
    Float32,
    Int8,
    Uint8,
    Binary,
    Ubinary,
}

impl From<Stored> for Precision {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Float32 => Self::Float32,
            Stored::Int8 => Self::Int8,
            Stored::Uint8 => Self::Uint8,
            Stored::Binary => Self::Binary,
            Stored::Ubinary => Self::Ubinary,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.backend.run(args)
}

impl Job for Args {
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>> {
        let extension =
            |path: &PathBuf| path.extension().and_then(|e| e.to_str()).map(str::to_owned);
        let to_npy = match extension(&self.output).as_deref() {
            Some("npy") => true,
            Some("jsonl") => false,
            _ => return Err(format!("{}: expected .npy or .jsonl", self.output.display()).into()),
        };
        let lines = texts::read(&self.input)?;
        let mut model = SentenceTransformer::<B>::load(&self.model, &device)?;
        self.adapters.load_into(&mut model)?;
        let adapters = by_line(&lines, &model);
        let texts: Vec<String> = lines.into_iter().map(|line| line.text).collect();
        let tokens = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&tokens);
        let options = EncodeOptions {
            prompt: match (self.prompt, self.prompt_name) {
                (Some(text), _) => Some(Prompt::Text(text)),
                (None, name) => name.map(Prompt::Named),
            },
            adapters,
            task: self.task,
            batch_size: self.batch_size,
            normalize: self.normalize,
            truncate_dim: self.truncate_dim,
            progress: Some(Arc::new(move |progress| {
                *counted.lock().unwrap_or_else(|e| e.into_inner()) = progress.total_tokens;
            })),
        };
        let started = Instant::now();
        let embeddings = model.encode_with(&texts, &options)?;
        let quantized = quantize_embeddings(embeddings, self.precision.into(), None)?;
        let seconds = started.elapsed().as_secs_f64();
        let content = if to_npy {
            npy::write(&quantized)
        } else {
            jsonl(&quantized.values, quantized.shape[1])
        };
        fs::write(&self.output, content).map_err(|e| format!("{}: {e}", self.output.display()))?;
        let (count, tokens) = (
            texts.len(),
            *tokens.lock().unwrap_or_else(|e| e.into_inner()),
        );
        eprintln!(
            "encoded {count} texts ({tokens} tokens) in {seconds:.3} s: {:.1} texts/s, {:.0} tokens/s",
            count as f64 / seconds,
            tokens as f64 / seconds
        );
        Ok(())
    }
}

/// The adapters of each text, where a line names one: the active ones for the others.
fn by_line<B: Backend>(lines: &[Line], model: &SentenceTransformer<B>) -> Option<AdapterChoice> {
    lines.iter().find(|line| line.adapter.is_some())?;
    let of_line = |line: &Line| match line.adapter.as_deref() {
        Some(BASE_MODEL) => Vec::new(),
        Some(name) => vec![name.to_owned()],
        None => model.adapters().applied().to_vec(),
    };
    Some(AdapterChoice::ByText(lines.iter().map(of_line).collect()))
}

/// A line of JSON for each row.
fn jsonl(values: &QuantizedValues, columns: usize) -> Vec<u8> {
    fn lines<T: serde::Serialize>(values: &[T], columns: usize) -> Vec<u8> {
        let rows = values.chunks(columns.max(1));
        let lines = rows.map(|row| format!("{}\n", serde_json::json!({ "embedding": row })));
        lines.collect::<String>().into_bytes()
    }
    match values {
        QuantizedValues::F32(values) => lines(values, columns),
        QuantizedValues::I8(values) => lines(values, columns),
        QuantizedValues::U8(values) => lines(values, columns),
    }
}
