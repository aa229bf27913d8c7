//! Evaluates a model at retrieval or at sentence similarity.
//!
//! ```text
//! cargo run --release --example evaluate -- --model all-MiniLM-L6-v2 --ir cranfield
//! cargo run --release --example evaluate -- --model base --adapter adapter --sts test.jsonl --json scores.json
//! ```

#[path = "command_line/adapters.rs"]
mod adapters;
#[path = "command_line/backend.rs"]
mod backend;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::backend::Backend;
use clap::Parser;
use sentence_burn::SentenceTransformer;
use sentence_burn::evaluation::{
    EmbeddingSimilarityEvaluator, Evaluator, InformationRetrievalEvaluator,
};

use adapters::AdapterArgs;
use backend::{BackendName, Job};

/// Evaluates a model at retrieval or at sentence similarity.
#[derive(Parser)]
struct Args {
    /// A model folder, an adapter folder, or a hub id.
    #[arg(long)]
    model: String,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// A folder with corpus.jsonl, queries.jsonl and qrels.tsv.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "sts",
        conflicts_with = "sts"
    )]
    ir: Option<PathBuf>,
    /// A file with {"sentence1", "sentence2", "score"} a line.
    #[arg(long, value_name = "FILE")]
    sts: Option<PathBuf>,
    /// A file for the metrics as JSON.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = BackendName::first())]
    backend: BackendName,
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.backend.run(args)
}

impl Job for Args {
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>> {
        let evaluator: Box<dyn Evaluator<B>> = match (&self.ir, &self.sts) {
            (Some(folder), _) => Box::new(InformationRetrievalEvaluator::from_folder(folder)?),
            (None, Some(file)) => Box::new(EmbeddingSimilarityEvaluator::from_jsonl(file)?),
            (None, None) => return Err("give --ir or --sts".into()),
        };
        let mut model = SentenceTransformer::<B>::load(&self.model, &device)?;
        self.adapters.load_into(&mut model)?;
        let metrics = evaluator.evaluate(&model)?;
        for (name, value) in metrics.iter() {
            println!("{name}: {value:.4}");
        }
        if let Some(path) = &self.json {
            fs::write(path, format!("{:#}\n", metrics.to_json()))
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(())
    }
}
