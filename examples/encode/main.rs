//! Encodes a file of texts, in memory that their number has no part in.
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
mod output;
mod texts;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::tensor::backend::Backend;
use clap::{Parser, ValueEnum};
use sentence_burn::model::{BASE_MODEL, quantize_embeddings};
use sentence_burn::{AdapterChoice, EncodeOptions, Precision, Prompt, SentenceTransformer};

use adapters::AdapterArgs;
use backend::{BackendArgs, Job};
use output::Output;
use texts::Lines;

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
    #[command(flatten)]
    backend: BackendArgs,
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
    let args: Args = backend::parse();
    args.backend.run(args)
}

impl Job for Args {
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>> {
        // Read twice: once for what is to be known of all texts, then a window at a time.
        let mut count = 0;
        let mut adapters = Vec::new();
        let mut is_by_text = false;
        for line in Lines::open(&self.input)? {
            let adapter = line?.adapter;
            count += 1;
            is_by_text |= adapter.is_some();
            if is_by_text {
                adapters.resize(count - 1, None);
                adapters.push(adapter);
            }
        }
        let mut output = Output::create(&self.output, count)?;
        let mut model = SentenceTransformer::<B>::load(&self.model, &device)?;
        self.adapters.load_into(&mut model)?;
        let tokens = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&tokens);
        let options = EncodeOptions {
            prompt: match (self.prompt, self.prompt_name) {
                (Some(text), _) => Some(Prompt::Text(text)),
                (None, name) => name.map(Prompt::Named),
            },
            adapters: is_by_text.then(|| by_line(&adapters, &model)),
            task: self.task,
            batch_size: self.batch_size,
            normalize: self.normalize,
            truncate_dim: self.truncate_dim,
            progress: Some(Arc::new(move |progress| {
                *counted.lock().unwrap_or_else(|e| e.into_inner()) = progress.total_tokens;
            })),
        };
        let precision = Precision::from(self.precision);
        let (texts, failure) = texts::texts(Lines::open(&self.input)?);
        let mut stream = model.encode_stream(texts, &options)?;
        if matches!(precision, Precision::Int8 | Precision::Uint8) {
            // The steps lie between the least and the greatest of all values.
            stream = stream.with_window(count);
        }
        let mut windows = stream.by_window();
        let mut seconds = 0.0;
        loop {
            let started = Instant::now();
            let embeddings = match windows.next() {
                Some(embeddings) => embeddings?,
                // A file of no embeddings has its header too.
                None if count == 0 => model.encode_with::<&str>(&[], &options)?,
                None => break,
            };
            let quantized = quantize_embeddings(embeddings, precision, None)?;
            seconds += started.elapsed().as_secs_f64();
            output.add(&quantized)?;
            if count == 0 {
                break;
            }
        }
        if let Some(error) = failure.take() {
            return Err(error.into());
        }
        output.finish()?;
        let tokens = *tokens.lock().unwrap_or_else(|e| e.into_inner());
        eprintln!(
            "encoded {count} texts ({tokens} tokens) in {seconds:.3} s: {:.1} texts/s, {:.0} tokens/s",
            count as f64 / seconds,
            tokens as f64 / seconds
        );
        Ok(())
    }
}

/// The adapters of each text: the active ones where its line names none.
fn by_line<B: Backend>(
    adapters: &[Option<String>],
    model: &SentenceTransformer<B>,
) -> AdapterChoice {
    let of_line = |adapter: &Option<String>| match adapter.as_deref() {
        Some(BASE_MODEL) => Vec::new(),
        Some(name) => vec![name.to_owned()],
        None => model.adapters().applied().to_vec(),
    };
    AdapterChoice::ByText(adapters.iter().map(of_line).collect())
}
