use std::error::Error;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sentence_burn::training::{
    BatchSampler, Interval, IntervalStrategy, IterableDataset, LrSchedulerType,
    MultiDatasetBatchSampler, RouterMapping, SaveStrategy, TrainingArguments, TrainingPrompts,
};

/// How to train: the reference's training arguments.
#[derive(Args)]
pub(crate) struct Options {
    /// Samples in a batch; each pair's negatives are the others of its batch.
    #[arg(long, default_value_t = 32)]
    pub(crate) batch_size: usize,
    /// Batches whose gradients are averaged into one step.
    #[arg(long, default_value_t = 1, value_name = "N")]
    gradient_accumulation_steps: usize,
    /// How often to go through the data.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// How many steps to take, whatever --epochs says.
    #[arg(long, value_name = "N")]
    max_steps: Option<usize>,
    /// Read the data while they are trained on, so that they need not fit into memory: needs
    /// --max-steps. Several --train are the files of one data set then.
    #[arg(long, requires = "max_steps")]
    pub(crate) stream: bool,
    /// With --stream: how many samples are held to draw the next one from.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    shuffle_buffer: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 2e-5)]
    lr: f64,
    /// How the learning rate moves: linear, cosine, cosine_with_restarts, polynomial, constant,
    /// constant_with_warmup, inverse_sqrt, reduce_lr_on_plateau, cosine_with_min_lr,
    /// cosine_warmup_with_min_lr or warmup_stable_decay.
    #[arg(long, default_value = "linear", value_name = "NAME", value_parser = scheduler)]
    lr_scheduler: LrSchedulerType,
    /// What else that schedule reads, as JSON: {"num_cycles": 2}, {"min_lr_rate": 0.1},
    /// {"num_decay_steps": 100}, {"patience": 2} …
    #[arg(long, value_name = "JSON")]
    lr_scheduler_kwargs: Option<String>,
    /// The share of the run to warm up over.
    #[arg(long, default_value_t = 0.1)]
    warmup_ratio: f64,
    /// Another rate for the weights whose name a pattern matches: lora_B=1e-4. May be repeated.
    #[arg(long, value_name = "PATTERN=RATE")]
    lr_of: Vec<String>,
    /// LoRA+: how many times the rate of lora_A lora_B has, 16 for instance.
    #[arg(long, value_name = "RATIO")]
    loraplus_lr_ratio: Option<f64>,
    /// The rate of adapters on embeddings under LoRA+.
    #[arg(long, default_value_t = 1e-6, value_name = "RATE")]
    loraplus_lr_embedding: f64,
    /// AdamW's weight decay; biases and norms are left out.
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f64,
    /// The norm that all gradients together are scaled down to; 0 leaves them alone.
    #[arg(long, default_value_t = 1.0)]
    max_grad_norm: f64,
    /// What order, masks and fresh weights follow from.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// No dropout, neither the model's nor the adapter's.
    #[arg(long)]
    no_dropout: bool,
    /// Take samples in the file's order, duplicates or not.
    #[arg(long)]
    no_shuffle: bool,
    /// How samples are put into batches; by default what suits the loss.
    #[arg(long, value_enum)]
    batch_sampler: Option<SamplerName>,
    /// Leave batches out that are smaller than the others.
    #[arg(long)]
    drop_last: bool,
    /// With several --train: a batch of each file in turn, instead of all batches of all files in
    /// a drawn order.
    #[arg(long)]
    round_robin: bool,
    /// What to put in front of a column's texts: anchor="query: ". May be repeated; with several
    /// files a file's name may stand for its column.
    #[arg(long, value_name = "COLUMN=TEXT")]
    prompt: Vec<String>,
    /// The route of a column's texts, where the model has a Router: anchor=query. May be repeated.
    #[arg(long, value_name = "COLUMN=ROUTE")]
    route: Vec<String>,
    /// Steps between two log lines, or a share of the run below 1.
    #[arg(long, default_value_t = 10.0, value_name = "STEPS")]
    logging_steps: f64,
    /// Steps between two evaluations, or a share of the run below 1; only before and after the
    /// run by default.
    #[arg(long, value_name = "STEPS")]
    eval_steps: Option<f64>,
    /// Evaluate at the end of each epoch.
    #[arg(long, conflicts_with = "eval_steps")]
    eval_epochs: bool,
    /// Steps between two checkpoints, or a share of the run below 1. By default where evaluations
    /// are, or 100.
    #[arg(long, value_name = "STEPS")]
    save_steps: Option<f64>,
    /// How many checkpoints to keep, besides which the best one stays.
    #[arg(long, default_value_t = 2, value_name = "N")]
    save_total_limit: usize,
    /// End with the weights of the best evaluation instead of the last step.
    #[arg(long)]
    load_best: bool,
    /// The metric that tells the best evaluation; by default the evaluator's main one.
    #[arg(long, value_name = "NAME")]
    metric_for_best_model: Option<String>,
    /// Stop after so many evaluations in a row without an improvement.
    #[arg(long, value_name = "N")]
    early_stopping_patience: Option<usize>,
    /// What an improvement must be larger than to count for that.
    #[arg(long, default_value_t = 0.0, value_name = "DIFFERENCE")]
    early_stopping_threshold: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum SamplerName {
    /// In a drawn order.
    Random,
    /// In a drawn order, no text twice in a batch.
    NoDuplicates,
    /// Two samples of each class in turn.
    GroupByLabel,
}

fn scheduler(name: &str) -> Result<LrSchedulerType, String> {
    let names = LrSchedulerType::ALL.map(LrSchedulerType::name).join(", ");
    LrSchedulerType::from_name(name).ok_or_else(|| format!("expected one of {names}"))
}

impl Options {
    /// The stream in the order to train in.
    pub(crate) fn order(&self, stream: IterableDataset) -> IterableDataset {
        match self.no_shuffle {
            true => stream,
            false => stream.shuffle(self.shuffle_buffer, self.seed),
        }
    }

    /// The training arguments; `sampler` is what suits the loss.
    pub(crate) fn training_arguments(
        &self,
        output_dir: PathBuf,
        sampler: BatchSampler,
    ) -> Result<TrainingArguments, Box<dyn Error>> {
        let sampler = match self.batch_sampler {
            _ if self.no_shuffle => BatchSampler::Sequential,
            Some(SamplerName::Random) => BatchSampler::Random,
            Some(SamplerName::NoDuplicates) => BatchSampler::NoDuplicates,
            Some(SamplerName::GroupByLabel) => BatchSampler::GroupByLabel,
            None => sampler,
        };
        let mut rates = Vec::with_capacity(self.lr_of.len());
        for given in &self.lr_of {
            let (pattern, rate) = given
                .rsplit_once('=')
                .ok_or_else(|| format!("--lr-of {given}: expected PATTERN=RATE"))?;
            rates.push((pattern.to_owned(), rate.parse()?));
        }
        let mut prompts = Vec::with_capacity(self.prompt.len());
        for given in &self.prompt {
            let (column, text) = given
                .split_once('=')
                .ok_or_else(|| format!("--prompt {given}: expected COLUMN=TEXT"))?;
            prompts.push((column.to_owned(), text.to_owned()));
        }
        let mut routes = Vec::with_capacity(self.route.len());
        for given in &self.route {
            let (column, route) = given
                .split_once('=')
                .ok_or_else(|| format!("--route {given}: expected COLUMN=ROUTE"))?;
            routes.push((column, route));
        }
        let kwargs = self.lr_scheduler_kwargs.as_deref().unwrap_or("{}");
        let kwargs = serde_json::from_str(kwargs)
            .map_err(|error| format!("--lr-scheduler-kwargs {kwargs}: {error}"))?;
        let eval_steps = self.eval_steps.map(Interval::from);
        let (eval_strategy, save_strategy) = match (eval_steps, self.eval_epochs, self.save_steps) {
            (Some(_), ..) => (IntervalStrategy::Steps, SaveStrategy::Steps),
            (None, true, None) => (IntervalStrategy::Epoch, SaveStrategy::Epoch),
            (None, true, Some(_)) => (IntervalStrategy::Epoch, SaveStrategy::Steps),
            (None, false, _) => (IntervalStrategy::No, SaveStrategy::Steps),
        };
        Ok(TrainingArguments {
            output_dir,
            num_train_epochs: self.epochs,
            max_steps: self.max_steps,
            per_device_train_batch_size: self.batch_size,
            per_device_eval_batch_size: self.batch_size,
            gradient_accumulation_steps: self.gradient_accumulation_steps,
            learning_rate: self.lr,
            learning_rate_mapping: rates.into_iter().collect(),
            loraplus_lr_ratio: self.loraplus_lr_ratio,
            loraplus_lr_embedding: self.loraplus_lr_embedding,
            lr_scheduler_type: self.lr_scheduler,
            lr_scheduler_kwargs: kwargs,
            warmup_ratio: self.warmup_ratio,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            seed: self.seed,
            prompts: (!prompts.is_empty())
                .then(|| TrainingPrompts::Named(prompts.into_iter().collect())),
            router_mapping: (!routes.is_empty()).then(|| RouterMapping::by_column(routes)),
            batch_sampler: sampler,
            multi_dataset_batch_sampler: match self.round_robin {
                true => MultiDatasetBatchSampler::RoundRobin,
                false => MultiDatasetBatchSampler::Proportional,
            },
            dataloader_drop_last: self.drop_last,
            dropout: !self.no_dropout,
            logging_steps: self.logging_steps.into(),
            logging_first_step: true,
            eval_strategy,
            eval_steps,
            save_strategy,
            save_steps: match self.save_steps {
                Some(steps) => steps.into(),
                None => eval_steps.unwrap_or(Interval::Steps(100)),
            },
            save_total_limit: Some(self.save_total_limit),
            load_best_model_at_end: self.load_best,
            metric_for_best_model: self.metric_for_best_model.clone(),
            early_stopping_patience: self.early_stopping_patience,
            early_stopping_threshold: self.early_stopping_threshold,
            ..TrainingArguments::default()
        })
    }
}
