//! A run whose process is killed, again and again, and goes on.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use sentence_burn::evaluation::{EmbeddingSimilarityEvaluator, ScoredPair};
use sentence_burn::loss::{AnyLoss, CachedLoss, SoftmaxLossConfig};
use sentence_burn::training::{
    Checkpoint, Dataset, EvaluationRecord, History, IntervalStrategy, SaveStrategy, Trained,
    Trainer, TrainingArguments, TrainingEvent,
};

use burn::tensor::backend::Backend;

use crate::{B, adapter, alone, mnrl, model, pairs, random_arguments};

/// Where a process that is to be killed trains.
const FOLDER: &str = "SENTENCE_BURN_TEST_FOLDER";
const NAME: &str = "crash::the_run_that_is_killed";

/// A run with everything that a resumption must bring back: two data sets, a classifier,
/// dropout, evaluations, the best model, a limit of checkpoints, and a plateau.
fn trainer(dir: &Path) -> Trainer<B, AnyLoss<B>> {
    let mut arguments = TrainingArguments {
        max_steps: Some(40),
        per_device_train_batch_size: 4,
        learning_rate: 1e-2,
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(3.into()),
        save_strategy: SaveStrategy::Steps,
        save_steps: 3.into(),
        save_total_limit: Some(2),
        load_best_model_at_end: true,
        early_stopping_patience: Some(20),
        lr_scheduler_type: sentence_burn::training::LrSchedulerType::ReduceLrOnPlateau,
        warmup_ratio: 0.0,
        ..random_arguments(dir)
    };
    arguments.lr_scheduler_kwargs.patience = Some(1);
    arguments.lr_scheduler_kwargs.factor = Some(0.7);
    let classes = (0..pairs().len()).map(|sample| vec![(sample % 3) as f32]);
    let labelled = pairs().with_labels(classes.collect()).unwrap();
    B::seed(&Default::default(), 1);
    let softmax = SoftmaxLossConfig::new(20, 3).init(&Default::default());
    let parts: [(&str, Dataset, AnyLoss<B>); 2] = [
        (
            "ranked",
            pairs(),
            CachedLoss::new(mnrl(), 2).unwrap().into(),
        ),
        ("labelled", labelled, softmax.unwrap().into()),
    ];
    let texts = pairs();
    let (anchors, positives) = (&texts.columns()[0], &texts.columns()[1]);
    let scored = anchors.iter().zip(positives).take(12).enumerate();
    let scored = scored.map(|(place, (sentence1, sentence2))| ScoredPair {
        sentence1: sentence1.clone(),
        sentence2: sentence2.clone(),
        score: (place % 4) as f64 / 3.0,
    });
    let evaluator = EmbeddingSimilarityEvaluator::new(scored.collect()).unwrap();
    Trainer::with_losses(model(), arguments, parts).with_evaluator(evaluator)
}

#[test]
fn the_run_that_is_killed() {
    let _alone = alone();
    let scratch = tempfile::tempdir().unwrap();
    let folder = env::var_os(FOLDER).map(PathBuf::from);
    let pause = folder.is_some();
    let folder = folder.unwrap_or_else(|| scratch.path().to_owned());
    let trained = trainer(&folder)
        .with_listener(move |event| {
            if pause && matches!(event, TrainingEvent::Step { .. }) {
                // Leaves the one who kills the time to see how far it is.
                thread::sleep(Duration::from_millis(10));
            }
        })
        .resume()
        .unwrap();
    assert_eq!((trained.steps, trained.finished), (40, true));
}

/// Goes on with the run in another process.
fn start(folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn lines(folder: &Path) -> usize {
    let text = fs::read(folder.join("history.jsonl")).unwrap_or_default();
    text.iter().filter(|&&byte| byte == b'\n').count()
}

fn is_writing_a_checkpoint(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten();
    entries.any(|entry| {
        let name = entry.map(|entry| entry.file_name().into_string());
        matches!(name, Ok(Ok(name)) if name.ends_with(".unfinished"))
    })
}

fn csv(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = fs::read_dir(folder.join("eval"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn killed_at_any_moment_it_goes_on_as_if_it_had_not_been() {
    let _alone = alone();
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let uninterrupted = trainer(whole.path()).train().unwrap();

    let mut killed_at = Vec::new();
    for (round, target) in [2, 5, 9, 14, 22, 30].into_iter().enumerate() {
        let mut child = start(cut.path());
        // Odd rounds kill while a checkpoint is being written, if they can.
        let in_checkpoint = round % 2 == 1;
        while child.try_wait().unwrap().is_none() {
            let far = lines(cut.path());
            let now = match in_checkpoint {
                true => (far >= target && is_writing_a_checkpoint(cut.path())) || far > target + 4,
                false => far >= target,
            };
            if now {
                break;
            }
            thread::yield_now();
        }
        // SIGKILL: nothing of the process runs any more.
        let _ = child.kill();
        child.wait().unwrap();
        let history = History::read(cut.path().join("history.jsonl")).unwrap();
        killed_at.push(history.records().len());
    }
    assert!(killed_at.iter().any(|&steps| (1..40).contains(&steps)));
    assert!(killed_at.iter().max() > killed_at.iter().min());

    let resumed = trainer(cut.path()).resume().unwrap();
    let whole_history = History::read(whole.path().join("history.jsonl")).unwrap();
    let cut_history = History::read(cut.path().join("history.jsonl")).unwrap();
    assert_eq!(
        cut_history.losses(),
        whole_history.losses(),
        "{killed_at:?}"
    );
    let rates = |history: &History| -> Vec<f64> {
        let records = history.records().iter();
        records.map(|record| record.learning_rate).collect()
    };
    assert_eq!(rates(&cut_history), rates(&whole_history));
    assert!(rates(&whole_history).last() < rates(&whole_history).first());
    let told =
        |trained: &Trained<B, AnyLoss<B>>| -> Vec<EvaluationRecord> { trained.evaluations.clone() };
    assert_eq!(told(&resumed), told(&uninterrupted));
    assert_eq!(resumed.best, uninterrupted.best);
    assert_eq!(adapter(&resumed.model), adapter(&uninterrupted.model));
    assert_eq!(csv(cut.path()), csv(whole.path()));
    let classifier = |trained: &Trained<B, AnyLoss<B>>| match &trained.losses[1] {
        AnyLoss::Softmax(softmax) => softmax.classifier.weight.val().into_data(),
        other => panic!("{other:?}"),
    };
    assert_eq!(classifier(&resumed), classifier(&uninterrupted));

    let state = |dir: &Path| Checkpoint::last_in(dir).unwrap().unwrap();
    let (one, other) = (state(cut.path()), state(whole.path()));
    assert_eq!(one.state().evaluations, other.state().evaluations);
    let file = "training_state.safetensors";
    assert_eq!(
        fs::read(one.path().join(file)).unwrap(),
        fs::read(other.path().join(file)).unwrap()
    );
    let mut left: Vec<_> = fs::read_dir(cut.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut expected: Vec<_> = fs::read_dir(whole.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    expected.sort();
    assert_eq!(left, expected);
}
