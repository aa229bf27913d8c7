//! Trains a LoRA adapter on GooAQ's questions and answers, and scores the model on NanoBEIR
//! before and after: the script of Sentence Transformers' "Training with PEFT Adapters".
//!
//! ```text
//! cargo run --release --features cuda --example gooaq -- --backend cuda
//! cargo run --release --example gooaq -- --model MODEL --train pairs.jsonl --nano-beir DIR --samples 512
//! ```
//!
//! Without options: bert-base-uncased, a million pairs of sentence-transformers/gooaq, and
//! NanoBEIR, all from the hub. The output folder gets the adapter, the history, and
//! checkpoints that `--resume` continues from.

#[cfg(feature = "ddp")]
compile_error!(
    "this example trains on whatever backend is asked for, and with the feature `ddp` Burn trains \
     on those of CubeCL alone: build it without `ddp`"
);

#[path = "command_line/backend.rs"]
mod backend;
#[path = "command_line/nano_beir.rs"]
mod nano_beir;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use clap::Parser;
use sentence_burn::loss::{CachedLoss, MultipleNegativesRankingLossConfig};
use sentence_burn::training::{
    BatchSampler, Dataset, HubDatasetOptions, IntervalStrategy, Trainer, TrainingArguments,
    TrainingEvent,
};
use sentence_burn::{LoadOptions, LoraConfig, ModelCardData, SentenceTransformer, TaskType};

use backend::{BackendArgs, Job};
use nano_beir::{NANO_BEIR, nano_beir};

/// Trains a LoRA adapter on questions and answers, and scores it on NanoBEIR.
#[derive(Parser)]
struct Args {
    /// The model to adapt: a folder or a hub id.
    #[arg(long, default_value = "bert-base-uncased")]
    model: String,
    /// The pairs: a data file (.jsonl, .csv, .parquet…), or a data set of the hub.
    #[arg(
        long,
        value_name = "FILE|REPO",
        default_value = "sentence-transformers/gooaq"
    )]
    train: String,
    /// How many pairs to draw from them to train on.
    #[arg(long, default_value_t = 1_000_000)]
    samples: usize,
    /// NanoBEIR: a folder with a folder for each data set, or a repository of the hub.
    #[arg(long, value_name = "DIR|REPO", default_value = NANO_BEIR)]
    nano_beir: String,
    /// The data sets of NanoBEIR to score, separated by commas; all thirteen by default.
    #[arg(long, value_delimiter = ',')]
    datasets: Vec<String>,
    /// Where the adapter, the history and checkpoints go.
    #[arg(long, value_name = "DIR", default_value = "models/gooaq-peft")]
    output: PathBuf,
    /// The adapter's rank.
    #[arg(long, default_value_t = 64)]
    r: usize,
    /// The numerator of the adapter's scale.
    #[arg(long, default_value_t = 128.0)]
    lora_alpha: f64,
    /// Pairs in a batch; each pair's negatives are the others of its batch.
    #[arg(long, default_value_t = 1024)]
    batch_size: usize,
    /// Texts embedded at a time: what bounds the memory.
    #[arg(long, default_value_t = 32)]
    mini_batch_size: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 2e-5)]
    lr: f64,
    /// Steps between two evaluations and between two checkpoints.
    #[arg(long, default_value_t = 100)]
    eval_steps: usize,
    /// Continue from the last checkpoint in the output folder.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

fn main() -> ExitCode {
    let args: Args = backend::parse();
    args.backend.run(args)
}

impl Job for Args {
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>> {
        // 1. Load a model to finetune, with model card data
        let card = ModelCardData {
            language: Some("en".into()),
            license: Some("apache-2.0".into()),
            model_name: Some(format!("{} adapter finetuned on GooAQ pairs", self.model)),
            ..ModelCardData::default()
        };
        let options = LoadOptions {
            model_card_data: card,
            ..LoadOptions::default()
        };
        Autodiff::<B>::seed(&device, SEED);
        let mut model =
            SentenceTransformer::<Autodiff<B>>::load_with(&self.model, &options, &device)?;

        // 2. Create a LoRA adapter for the model & add it
        model.add_adapter(LoraConfig {
            task_type: Some(TaskType::FeatureExtraction),
            r: self.r,
            lora_alpha: self.lora_alpha,
            lora_dropout: 0.1,
            ..LoraConfig::default()
        })?;

        // 3. Load a dataset to finetune on, and one to evaluate with
        let pairs = if Path::new(&self.train).is_file() {
            Dataset::from_file(&self.train)?
        } else {
            Dataset::from_hub(&self.train, &HubDatasetOptions::default())?
        };
        let pairs = pairs.shuffle(SEED).split_at(self.samples).0;
        let evaluator = nano_beir(&self.nano_beir, self.datasets)?;

        // 4. Train
        let loss = MultipleNegativesRankingLossConfig::default().init()?;
        let loss = CachedLoss::new(loss, self.mini_batch_size)?;
        let arguments = TrainingArguments {
            output_dir: self.output.clone(),
            num_train_epochs: 1.0,
            per_device_train_batch_size: self.batch_size,
            learning_rate: self.lr,
            warmup_ratio: 0.1,
            batch_sampler: BatchSampler::NoDuplicates,
            eval_strategy: IntervalStrategy::Steps,
            eval_steps: Some(self.eval_steps.into()),
            save_steps: self.eval_steps.into(),
            save_total_limit: Some(2),
            seed: SEED,
            ..TrainingArguments::default()
        };
        let mut trainer = Trainer::new(model, arguments, pairs, loss).with_evaluator(evaluator);
        if !trainer.has_dashboard() {
            trainer = trainer.with_listener(print_line);
        }
        let trained = if self.resume {
            trainer.resume()?
        } else {
            trainer.train()?
        };

        // 5. Save the adapter
        trained.model.save(&self.output)?;
        if let [before, .., after] = trained.evaluations.as_slice() {
            let [first, last] = [before, after].map(|e| e.score().unwrap_or(f64::NAN));
            println!("{}: {first:.4} → {last:.4}", before.primary_metric);
        }
        Ok(())
    }
}

/// What the adapter's first weights, the order of the pairs and dropout follow from.
const SEED: u64 = 42;

fn print_line(event: TrainingEvent<'_>) {
    match event {
        TrainingEvent::Step {
            record,
            total_steps,
        } => eprintln!(
            "step {}/{total_steps}  loss {:.4}  {:.1} pairs/s",
            record.step, record.loss, record.pairs_per_second
        ),
        TrainingEvent::Evaluation(evaluation) => eprintln!(
            "after {} steps: {} {:.4}",
            evaluation.step,
            evaluation.primary_metric,
            evaluation.score().unwrap_or(f64::NAN)
        ),
        _ => {}
    }
}
