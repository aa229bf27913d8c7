//! Trains a LoRA adapter, or with `--full` the whole model, on pairs of texts.
//!
//! ```text
//! cargo run --release --example train_lora -- --model all-MiniLM-L6-v2 --train pairs.jsonl --output adapter
//! ```
//!
//! The output folder gets the adapter, `history.jsonl` with a line a step, its plot
//! `history.svg`, and checkpoints that `--resume` continues from.

#[path = "command_line/backend.rs"]
mod backend;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::backend::Autodiff;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::{Parser, ValueEnum};
use sentence_burn::evaluation::InformationRetrievalEvaluator;
use sentence_burn::loss::{
    AnglELossConfig, AnyLoss, CachedLoss, GISTEmbedLossConfig,
    GlobalOrthogonalRegularizationLossConfig, MatryoshkaLossConfig, MegaBatchMarginLossConfig,
    MultipleNegativesRankingLossConfig, MultipleNegativesSymmetricRankingLossConfig,
    TripletLossConfig,
};
use sentence_burn::training::{
    BatchSampler, Dataset, TrainableLoss, Trained, Trainer, TrainingArguments, TrainingEvent,
    plot_history,
};
use sentence_burn::{LoraConfig, ModuleNames, SentenceTransformer, TaskType};

use backend::{BackendName, Job};

/// Trains a LoRA adapter, or the whole model, on pairs of texts.
#[derive(Parser)]
struct Args {
    /// A model folder or a hub id.
    #[arg(long)]
    model: String,
    /// The pairs: {"anchor": …, "positive": …[, "negative": …]} a line.
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Where the adapter, the history and checkpoints go.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// A folder with corpus.jsonl, queries.jsonl and qrels.tsv to score before and after.
    #[arg(long, value_name = "DIR")]
    eval_ir: Option<PathBuf>,
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
    /// Pairs in a batch; each pair's negatives are the others of its batch.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Texts embedded at a time by cached losses.
    #[arg(long, default_value_t = 32)]
    mini_batch_size: usize,
    /// How often to go through the data.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// The highest learning rate.
    #[arg(long, default_value_t = 2e-5)]
    lr: f64,
    /// The share of the run to warm up over.
    #[arg(long, default_value_t = 0.1)]
    warmup_ratio: f64,
    /// What order, masks and fresh weights follow from.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// No dropout, neither the model's nor the adapter's.
    #[arg(long)]
    no_dropout: bool,
    /// Take pairs in the file's order, duplicates or not.
    #[arg(long)]
    no_shuffle: bool,
    /// Train every weight instead of an adapter, and save the whole model.
    #[arg(long)]
    full: bool,
    /// Continue from the last checkpoint in the output folder.
    #[arg(long)]
    resume: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = BackendName::first())]
    backend: BackendName,
}

#[derive(Clone, Copy, ValueEnum)]
enum LossName {
    /// MultipleNegativesRankingLoss.
    Mnrl,
    /// CachedMultipleNegativesRankingLoss: the same over batches larger than memory.
    CachedMnrl,
    /// MultipleNegativesSymmetricRankingLoss: also each positive against all anchors.
    Symmetric,
    /// CachedMultipleNegativesSymmetricRankingLoss.
    CachedSymmetric,
    /// GISTEmbedLoss: without the negatives that --guide holds for positives.
    Gist,
    /// CachedGISTEmbedLoss.
    CachedGist,
    /// AnglELoss, which needs a negative.
    Angle,
    /// TripletLoss, which needs a negative.
    Triplet,
    /// MegaBatchMarginLoss: for large batches, embedded in parts.
    MegaBatchMargin,
    /// GlobalOrthogonalRegularizationLoss: spreads embeddings out.
    GlobalOrthogonalRegularization,
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.backend.run(args)
}

impl Job for Args {
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>> {
        let loss = self.loss::<Autodiff<B>>()?;
        if self.matryoshka_dims.is_empty() {
            return self.train_with(loss, &device);
        }
        let dims = MatryoshkaLossConfig::new(&self.matryoshka_dims[..]);
        self.train_with(dims.init(loss)?, &device)
    }
}

impl Args {
    fn loss<B: Backend>(&self) -> sentence_burn::Result<AnyLoss<B>> {
        let mnrl = MultipleNegativesRankingLossConfig::default();
        let symmetric = MultipleNegativesSymmetricRankingLossConfig::default();
        let gist = GISTEmbedLossConfig::default();
        let mini_batch = self.mini_batch_size;
        Ok(match self.loss {
            LossName::Mnrl => mnrl.init()?.into(),
            LossName::CachedMnrl => CachedLoss::new(mnrl.init()?, mini_batch)?.into(),
            LossName::Symmetric => symmetric.init()?.into(),
            LossName::CachedSymmetric => CachedLoss::new(symmetric.init()?, mini_batch)?.into(),
            LossName::Gist => gist.init()?.into(),
            LossName::CachedGist => CachedLoss::new(gist.init()?, mini_batch)?.into(),
            LossName::Angle => AnglELossConfig::default().init()?.into(),
            LossName::Triplet => TripletLossConfig::default().init()?.into(),
            LossName::MegaBatchMargin => {
                let config = MegaBatchMarginLossConfig {
                    mini_batch_size: mini_batch,
                    ..Default::default()
                };
                config.init()?.into()
            }
            LossName::GlobalOrthogonalRegularization => {
                GlobalOrthogonalRegularizationLossConfig::default()
                    .init()?
                    .into()
            }
        })
    }

    fn train_with<B: AutodiffBackend, L: TrainableLoss<B>>(
        &self,
        loss: L,
        device: &B::Device,
    ) -> Result<(), Box<dyn Error>> {
        let pairs = Dataset::from_jsonl(&self.train)?;
        B::seed(device, self.seed);
        let mut model = SentenceTransformer::<B>::load(&self.model, device)?;
        if !self.full {
            model.add_adapter(self.lora_config())?;
            // The adapter alone: loaded into its base, it embeds as it was trained.
            model.set_modules_trainable(false);
        }
        let mut trainer = Trainer::new(model, self.training_arguments(), pairs, loss);
        if let Some(guide) = &self.guide {
            trainer = trainer.with_guide(SentenceTransformer::load(guide, device)?);
        }
        if let Some(folder) = &self.eval_ir {
            trainer = trainer.with_evaluator(InformationRetrievalEvaluator::from_folder(folder)?);
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

    fn training_arguments(&self) -> TrainingArguments {
        TrainingArguments {
            output_dir: self.output.clone(),
            num_train_epochs: self.epochs,
            per_device_train_batch_size: self.batch_size,
            learning_rate: self.lr,
            warmup_ratio: self.warmup_ratio,
            seed: self.seed,
            batch_sampler: if self.no_shuffle {
                BatchSampler::Sequential
            } else {
                BatchSampler::NoDuplicates
            },
            dropout: !self.no_dropout,
            save_steps: Some(100),
            save_total_limit: Some(2),
            ..TrainingArguments::default()
        }
    }
}

/// What burn-train's dashboard shows, for where stdout is no terminal.
fn print_line(event: TrainingEvent<'_>) {
    match event {
        TrainingEvent::Step {
            record,
            total_steps,
        } => {
            let step = record.step;
            if step == 1 || step % 10 == 0 || step == total_steps {
                eprintln!(
                    "step {step}/{total_steps}  loss {:.4}  learning rate {:.2e}  gradient norm {:.3}  \
                     {:.1} pairs/s",
                    record.loss, record.learning_rate, record.grad_norm, record.pairs_per_second
                );
            }
        }
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

fn summarise<B: AutodiffBackend>(trained: &Trained<B>) {
    let seconds = trained.duration.as_secs_f64();
    if !trained.finished {
        eprintln!("stopped after {} steps: --resume continues", trained.steps);
    }
    if let [first, .., last] = trained.evaluations.as_slice() {
        for ((name, before), (_, after)) in first.metrics.iter().zip(last.metrics.iter()) {
            eprintln!("{name}: {before:.4} → {after:.4}");
        }
    }
    eprintln!(
        "trained {} pairs in {seconds:.1} s: {:.1} pairs/s",
        trained.samples,
        trained.samples as f64 / seconds
    );
}
