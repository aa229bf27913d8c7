//! What a training run keeps to go on with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::backend::{Autodiff, NdArray};
use sentence_burn::SentenceTransformer;
use sentence_burn::loss::{MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig};
use sentence_burn::repo::LoadAdapterOptions;
use sentence_burn::training::{
    Checkpoint, Dataset, History, Interval, IntervalStrategy, IterableDataset, LrSchedulerType,
    SaveStrategy, Trainer, TrainingArguments,
};

use crate::{TEXTS, copy, fixture, folder};

type B = Autodiff<NdArray>;

/// The most steps that a history is written for.
const MOST_STEPS: usize = 64;

/// A run of two steps in a folder, and its files as they were.
struct Run {
    dir: PathBuf,
    whole: PathBuf,
    checkpoint: &'static str,
    is_stream: bool,
}

impl Run {
    /// Trains, and keeps one of its two checkpoints.
    fn new(is_stream: bool, checkpoint: &'static str, other: &str) -> Self {
        let (dir, whole) = (folder(), folder());
        let run = Self {
            dir,
            whole,
            checkpoint,
            is_stream,
        };
        run.trainer().train().unwrap();
        fs::remove_dir_all(run.dir.join(other)).unwrap();
        copy(&run.dir, &run.whole);
        run
    }

    fn trainer(&self) -> Trainer<B, MultipleNegativesRankingLoss> {
        static MODEL: OnceLock<SentenceTransformer<B>> = OnceLock::new();
        let model = MODEL.get_or_init(|| {
            let device = Default::default();
            let mut model =
                SentenceTransformer::<B>::load(fixture("tiny_bert/v6"), &device).unwrap();
            let options = LoadAdapterOptions {
                is_trainable: true,
                ..Default::default()
            };
            let adapter = fixture("training_curve/initial");
            model.load_adapter_with(adapter, &options).unwrap();
            model
        });
        let arguments = TrainingArguments {
            output_dir: self.dir.clone(),
            max_steps: Some(2),
            per_device_train_batch_size: 2,
            save_strategy: SaveStrategy::Steps,
            save_steps: Interval::Steps(1),
            eval_strategy: IntervalStrategy::Steps,
            eval_steps: Some(Interval::Steps(1)),
            load_best_model_at_end: true,
            early_stopping_patience: Some(2),
            lr_scheduler_type: match self.is_stream {
                true => LrSchedulerType::ReduceLrOnPlateau,
                false => LrSchedulerType::Linear,
            },
            ..TrainingArguments::default()
        };
        let loss = MultipleNegativesRankingLossConfig::default();
        let loss = loss.init().unwrap();
        let pairs = fixture("training_curve/pairs.jsonl");
        let few = || Dataset::from_jsonl(&pairs).unwrap().split_at(4).0;
        let trainer = match self.is_stream {
            true => {
                let stream = IterableDataset::from_file(&pairs).unwrap();
                Trainer::with_stream(model.clone(), arguments, stream.shuffle(8, 1), loss)
            }
            false => Trainer::new(model.clone(), arguments, few(), loss),
        };
        trainer.with_eval_dataset(few()).with_dashboard(false)
    }

    /// A history whose last step is the checkpoint's, so that the checkpoint is the run's.
    fn write_history(&self) {
        let Ok(checkpoint) = Checkpoint::open(self.dir.join(self.checkpoint)) else {
            return;
        };
        let record = checkpoint.state().record;
        let line = serde_json::to_string(&record).unwrap() + "\n";
        if record.step <= MOST_STEPS {
            let history = line.repeat(record.step);
            fs::write(self.dir.join("history.jsonl"), history).unwrap();
        }
    }

    fn restore(&self) {
        fs::remove_dir_all(&self.dir).unwrap();
        copy(&self.whole, &self.dir);
    }
}

/// The files of a checkpoint: the first byte says which, and of what run.
pub fn checkpoint(data: &[u8]) {
    static RUNS: OnceLock<[Run; 4]> = OnceLock::new();
    let runs = RUNS.get_or_init(|| {
        let (first, last) = ("checkpoint-1", "checkpoint-2");
        [
            Run::new(false, last, first),
            Run::new(true, last, first),
            Run::new(false, first, last),
            Run::new(true, first, last),
        ]
    });
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    // A step takes its time: most inputs are of a run that has none left.
    let run = &runs[[0, 1, 0, 1, 0, 1, 2, 3][usize::from(choice & 7)]];
    let checkpoint = Path::new(run.checkpoint);
    let file = match choice >> 3 & 3 {
        0 | 1 => checkpoint.join("trainer_state.json"),
        2 => checkpoint.join("training_state.safetensors"),
        _ => "history.jsonl".into(),
    };
    fs::write(run.dir.join(file), data).unwrap();
    if choice >> 3 & 3 < 2 {
        run.write_history();
    }
    drop(History::read(run.dir.join("history.jsonl")));
    // Without a checkpoint of its own, a run begins anew.
    if let Ok(Some(_)) = Checkpoint::last_in(&run.dir) {
        match run.trainer().resume() {
            Ok(trained) => drop(trained.model.encode(&TEXTS)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    run.restore();
}
