//! Trains a LoRA adapter, or with `--full` the whole model, on pairs of texts or on texts with
//! labels.
//!
//! ```text
//! cargo run --release --example train_lora -- --model all-MiniLM-L6-v2 --train pairs.jsonl --output adapter
//! ```
//!
//! The output folder gets the adapter, `history.jsonl` with a line a step, its plot
//! `history.svg`, the evaluators' CSV files, and checkpoints that `--resume` continues from.

#[cfg(feature = "ddp")]
compile_error!(
    "this example trains on whatever backend is asked for, and with the feature `ddp` Burn trains \
     on those of CubeCL alone: build it without `ddp`"
);

#[path = "../command_line/backend.rs"]
mod backend;
mod data;
mod loss;
mod options;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::backend::Autodiff;
use burn::prelude::DeviceOps;
use burn::tensor::backend::{AutodiffBackend, Backend, DeviceId};
use clap::Parser;
use sentence_burn::evaluation::{EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator};
use sentence_burn::loss::MatryoshkaLossConfig;
use sentence_burn::training::{
    BatchSampler, Dataset, TrainableLoss, Trained, TrainingEvent, plot_history,
};
use sentence_burn::{LoraConfig, ModuleNames, SentenceTransformer, TaskType};

use backend::{BackendArgs, Job};
use data::TrainingData;
use loss::{LossName, LossParts};
use options::Options;

/// Trains a LoRA adapter, or the whole model, on pairs of texts or on texts with labels.
#[derive(Parser)]
struct Args {
    /// A model folder or a hub id.
    #[arg(long)]
    model: String,
    /// The data: an object of texts a line, {"anchor": …, "positive": …[, "negative": …]} for
    /// instance, and "label" or "score" where the loss reads one. May be repeated: files of
    /// several data sets under one loss.
    #[arg(long, value_name = "FILE", required = true)]
    train: Vec<PathBuf>,
    /// Where the adapter, the history and checkpoints go.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// A folder with corpus.jsonl, queries.jsonl and qrels.tsv to score before, between and after.
    #[arg(long, value_name = "DIR")]
    eval_ir: Option<PathBuf>,
    /// A file with {"sentence1", "sentence2", "score"} a line to score instead.
    #[arg(long, value_name = "FILE", conflicts_with = "eval_ir")]
    eval_sts: Option<PathBuf>,
    /// Data like --train's to evaluate the loss on.
    #[arg(long, value_name = "FILE")]
    eval_data: Option<PathBuf>,
    /// The adapter's rank.
    #[arg(long, default_value_t = 64)]
    r: usize,
    /// The numerator of the adapter's scale.
    #[arg(long, default_value_t = 128.0)]
    lora_alpha: f64,
    /// The dropout on the input of adapted layers.
    #[arg(long, default_value_t = 0.1)]
    lora_dropout: f64,
    /// The layers to adapt, separated by commas, or all-linear; by default the architecture's own.
    #[arg(long, value_delimiter = ',')]
    target_modules: Option<Vec<String>>,
    /// The loss.
    #[arg(long, value_enum, default_value_t = LossName::Mnrl)]
    loss: LossName,
    /// The guide of gist and cached-gist: a model folder or a hub id.
    #[arg(long)]
    guide: Option<String>,
    /// Train these smaller sizes of the embeddings too, separated by commas (MatryoshkaLoss).
    #[arg(long, value_delimiter = ',')]
    matryoshka_dims: Vec<usize>,
    /// Texts embedded at a time by cached losses.
    #[arg(long, default_value_t = 32)]
    mini_batch_size: usize,
    /// Tokens embedded at a time by cached losses, instead.
    #[arg(long, value_name = "N")]
    mini_batch_num_tokens: Option<usize>,
    #[command(flatten)]
    options: Options,
    /// Train every weight instead of an adapter, and save the whole model.
    #[arg(long)]
    full: bool,
    /// Continue from the last checkpoint in the output folder.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    backend: BackendArgs,
    /// Share each step out among so many of the backend's devices, a batch each.
    #[arg(long, default_value_t = 1, value_name = "N")]
    devices: u16,
}

fn main() -> ExitCode {
    let args: Args = backend::parse();
    args.backend.run(args)
}

impl Job for Args {
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>> {
        let data = TrainingData::open(&self.train, &self.options)?;
        Autodiff::<B>::seed(&device, self.options.seed);
        let mut model = SentenceTransformer::<Autodiff<B>>::load(&self.model, &device)?;
        let parts = LossParts {
            mini_batch_size: self.mini_batch_size,
            mini_batch_num_tokens: self.mini_batch_num_tokens,
            embedding_dimension: model.output_dim(),
            data: &data,
        };
        let loss = self.loss.build::<Autodiff<B>>(&parts, &device)?;
        if !self.full {
            model.add_adapter(self.lora_config())?;
            // The adapter alone: loaded into its base, it embeds as it was trained.
            model.set_modules_trainable(false);
        }
        if self.matryoshka_dims.is_empty() {
            return self.train_with(model, data, loss);
        }
        let dims = MatryoshkaLossConfig::new(&self.matryoshka_dims[..]);
        self.train_with(model, data, dims.init(loss)?)
    }
}

impl Args {
    fn train_with<B: AutodiffBackend, L: TrainableLoss<B>>(
        &self,
        model: SentenceTransformer<B>,
        data: TrainingData,
        loss: L,
    ) -> Result<(), Box<dyn Error>> {
        let device = model.device();
        let sampler = match data {
            TrainingData::InMemory(_) => self.loss.sampler(),
            TrainingData::Stream(_) => BatchSampler::Random,
        };
        let arguments = self
            .options
            .training_arguments(self.output.clone(), sampler)?;
        let mut trainer = data.trainer(model, arguments, loss);
        if let Some(guide) = &self.guide {
            trainer = trainer.with_guide(SentenceTransformer::load(guide, &device)?);
        }
        if let Some(file) = &self.eval_data {
            trainer = trainer.with_eval_dataset(Dataset::from_jsonl(file)?);
        }
        if let Some(folder) = &self.eval_ir {
            trainer = trainer.with_evaluator(InformationRetrievalEvaluator::from_folder(folder)?);
        }
        if let Some(file) = &self.eval_sts {
            trainer = trainer.with_evaluator(EmbeddingSimilarityEvaluator::from_jsonl(file)?);
        }
        if self.devices > 1 {
            let kind = device.to_id().type_id;
            let device = |index| <B::Device>::from_id(DeviceId::new(kind, index));
            trainer = trainer.with_devices((0..self.devices).map(device));
        }
        if !trainer.has_dashboard() {
            trainer = trainer.with_listener(print_line);
        }
        let trained = if self.resume {
            trainer.resume()?
        } else {
            trainer.train()?
        };
        trained.model.save(&self.output)?;
        let plot = self.output.join("history.svg");
        fs::write(&plot, plot_history(&trained.history, &trained.evaluations))
            .map_err(|e| format!("{}: {e}", plot.display()))?;
        summarise(&trained);
        Ok(())
    }

    fn lora_config(&self) -> LoraConfig {
        LoraConfig {
            task_type: Some(TaskType::FeatureExtraction),
            r: self.r,
            lora_alpha: self.lora_alpha,
            lora_dropout: self.lora_dropout,
            target_modules: self.target_modules.as_deref().map(|names| match names {
                [all] if all == "all-linear" => ModuleNames::all_linear(),
                names => ModuleNames::list(names),
            }),
            ..LoraConfig::default()
        }
    }
}

/// What burn-train's dashboard shows, for where stdout is no terminal.
fn print_line(event: TrainingEvent<'_>) {
    match event {
        TrainingEvent::Log(log) => eprintln!("{log}"),
        TrainingEvent::Evaluation(evaluation) => {
            let name = &evaluation.primary_metric;
            if let Some(value) = evaluation.metrics.get(name) {
                eprintln!("after {} steps: {name} {value:.4}", evaluation.step);
            }
        }
        TrainingEvent::Checkpoint { path } => eprintln!("checkpoint {}", path.display()),
        _ => {}
    }
}

fn summarise<B: AutodiffBackend, L>(trained: &Trained<B, L>) {
    let seconds = trained.duration.as_secs_f64();
    if !trained.finished {
        eprintln!("stopped after {} steps: --resume continues", trained.steps);
    }
    if let [first, .., last] = trained.evaluations.as_slice() {
        for ((name, before), (_, after)) in first.metrics.iter().zip(last.metrics.iter()) {
            eprintln!("{name}: {before:.4} → {after:.4}");
        }
    }
    eprintln!("{}", trained.summary());
    eprintln!(
        "trained {} pairs in {seconds:.1} s: {:.1} pairs/s",
        trained.samples,
        trained.samples as f64 / seconds
    );
}
