//! Evaluates a model: at retrieval, re-ranking, sentence similarity, pairs or triplets.
//!
//! ```text
//! cargo run --release --example evaluate -- --model all-MiniLM-L6-v2 --ir cranfield
//! cargo run --release --example evaluate -- --model all-MiniLM-L6-v2 --nano-beir --csv scores
//! cargo run --release --example evaluate -- --model all-MiniLM-L6-v2 --nano-beir folder --datasets msmarco,nq
//! cargo run --release --example evaluate -- --model base --adapter adapter --sts test.jsonl --json scores.json
//! ```

#[path = "command_line/adapters.rs"]
mod adapters;
#[path = "command_line/backend.rs"]
mod backend;
#[path = "command_line/nano_beir.rs"]
mod nano_beir;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::backend::Backend;
use clap::Parser;
use sentence_burn::SentenceTransformer;
use sentence_burn::evaluation::{
    BinaryClassificationEvaluator, EmbeddingSimilarityEvaluator, Evaluator,
    InformationRetrievalEvaluator, RerankingEvaluator, TripletEvaluator,
};

use adapters::AdapterArgs;
use backend::{BackendArgs, Job};
use nano_beir::{NANO_BEIR, nano_beir};

/// Evaluates a model: at retrieval, re-ranking, sentence similarity, pairs or triplets.
#[derive(Parser)]
struct Args {
    /// A model folder, an adapter folder, or a hub id.
    #[arg(long)]
    model: String,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    task: Task,
    /// With --nano-beir: the data sets to take, separated by commas; without it, all thirteen.
    #[arg(long, value_delimiter = ',', requires = "nano_beir")]
    datasets: Vec<String>,
    /// A file for the metrics as JSON.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// A folder for the metrics as the CSV files that Sentence Transformers writes.
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    backend: BackendArgs,
}

/// What to try the model at.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Task {
    /// A folder with corpus.jsonl, queries.jsonl and qrels.tsv.
    #[arg(long, value_name = "DIR")]
    ir: Option<PathBuf>,
    /// NanoBEIR, from the hub; or from a folder with a folder like that for each data set
    /// (NanoMSMARCO, NanoNQ…); or from another repository of the hub in its layout.
    #[arg(long, value_name = "DIR|REPO", num_args = 0..=1, default_missing_value = NANO_BEIR)]
    nano_beir: Option<String>,
    /// A file with {"query", "positive", "negative"} a line, the documents in lists.
    #[arg(long, value_name = "FILE")]
    reranking: Option<PathBuf>,
    /// A file with {"sentence1", "sentence2", "score"} a line.
    #[arg(long, value_name = "FILE")]
    sts: Option<PathBuf>,
    /// A file with {"sentence1", "sentence2", "label"} a line, the label 1 or 0.
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
    /// A file with {"anchor", "positive", "negative"} a line.
    #[arg(long, value_name = "FILE")]
    triplets: Option<PathBuf>,
}

impl Task {
    fn evaluator<B: Backend>(
        &self,
        dataset_names: Vec<String>,
    ) -> Result<Box<dyn Evaluator<B>>, Box<dyn Error>> {
        Ok(if let Some(folder) = &self.ir {
            Box::new(InformationRetrievalEvaluator::from_folder(folder)?)
        } else if let Some(source) = &self.nano_beir {
            Box::new(nano_beir(source, dataset_names)?)
        } else if let Some(file) = &self.reranking {
            Box::new(RerankingEvaluator::from_jsonl(file)?)
        } else if let Some(file) = &self.sts {
            Box::new(EmbeddingSimilarityEvaluator::from_jsonl(file)?)
        } else if let Some(file) = &self.pairs {
            Box::new(BinaryClassificationEvaluator::from_jsonl(file)?)
        } else if let Some(file) = &self.triplets {
            Box::new(TripletEvaluator::from_jsonl(file)?)
        } else {
            return Err(
                "give one of --ir, --nano-beir, --reranking, --sts, --pairs, --triplets".into(),
            );
        })
    }
}

fn main() -> ExitCode {
    let args: Args = backend::parse();
    args.backend.run(args)
}

impl Job for Args {
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>> {
        let evaluator = self.task.evaluator::<B>(self.datasets)?;
        let mut model = SentenceTransformer::<B>::load(&self.model, &device)?;
        self.adapters.load_into(&mut model)?;
        let metrics = match &self.csv {
            Some(folder) => evaluator.evaluate_to(&model, folder, Default::default())?,
            None => evaluator.evaluate(&model)?,
        };
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
