//! Folds an adapter into its base: a plain Sentence Transformers folder that embeds the same.
//!
//! ```text
//! cargo run --release --example merge -- --model base --adapter adapter --output merged
//! ```

#[path = "command_line/backend.rs"]
mod backend;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::backend::Backend;
use clap::Parser;
use sentence_burn::{LoadOptions, SentenceTransformer};

use backend::{BackendArgs, Job};

/// Folds an adapter into its base model.
#[derive(Parser)]
struct Args {
    /// The base model: a folder or a hub id.
    #[arg(long)]
    model: String,
    /// The adapter: a folder or a hub id.
    #[arg(long)]
    adapter: String,
    /// Where the merged model goes.
    #[arg(long)]
    output: PathBuf,
    #[command(flatten)]
    backend: BackendArgs,
}

fn main() -> ExitCode {
    let args: Args = backend::parse();
    args.backend.run(args)
}

impl Job for Args {
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>> {
        // An adapter folder that Sentence Transformers saved has modules of its own, which
        // may have been trained beside the adapter.
        let options = LoadOptions {
            base: Some(self.model),
            ..LoadOptions::default()
        };
        let mut model = SentenceTransformer::<B>::load_with(&self.adapter, &options, &device)?;
        model.merge_and_unload()?;
        model.save(&self.output)?;
        eprintln!("merged {} into {}", self.adapter, self.output.display());
        Ok(())
    }
}
