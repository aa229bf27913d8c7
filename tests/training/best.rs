//! The best model, early stopping, and what is logged and saved when.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::backend::NdArray;
use sentence_burn::error::TrainingError;
use sentence_burn::evaluation::{Evaluator, Metrics};
use sentence_burn::training::{
    Checkpoint, IntervalStrategy, LrSchedulerType, SaveStrategy, Trained, Trainer,
    TrainingArguments, TrainingEvent,
};
use sentence_burn::{Error, Result, SentenceTransformer};

use crate::{B, Model, adapter, alone, mnrl, model, pairs, random_arguments};

/// Gives one score after the other, whatever the model.
struct Scripted {
    scores: Mutex<Vec<f64>>,
}

impl Scripted {
    /// These scores; the first is asked for before the first step.
    fn new(scores: &[f64]) -> Self {
        let mut scores = scores.to_vec();
        scores.reverse();
        Self {
            scores: Mutex::new(scores),
        }
    }
}

impl Evaluator<NdArray> for Scripted {
    fn name(&self) -> &str {
        ""
    }

    fn primary_metric(&self, _: &SentenceTransformer<NdArray>) -> String {
        "score".to_owned()
    }

    fn evaluate(&self, _: &SentenceTransformer<NdArray>) -> Result<Metrics> {
        let score = self.scores.lock().unwrap().pop().unwrap_or(0.0);
        Ok([("score", score)].into_iter().collect())
    }
}

/// Evaluations after every second step of twelve.
fn arguments(dir: &Path) -> TrainingArguments {
    TrainingArguments {
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(2.into()),
        save_steps: 2.into(),
        load_best_model_at_end: true,
        learning_rate: 2e-2,
        ..random_arguments(dir)
    }
}

type Run = Trained<B, sentence_burn::loss::MultipleNegativesRankingLoss>;

fn train(arguments: TrainingArguments, scores: &[f64]) -> Run {
    Trainer::new(model(), arguments, pairs(), mnrl())
        .with_evaluator(Scripted::new(scores))
        .train()
        .unwrap()
}

fn checkpoints(dir: &Path) -> Vec<usize> {
    let steps = fs::read_dir(dir).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("checkpoint-")?.parse().ok()
    });
    let mut steps: Vec<usize> = steps.collect();
    steps.sort_unstable();
    steps
}

#[test]
fn the_best_model_comes_back() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let scores = [9.0, 0.2, 0.5, 0.4, 0.3, 0.1, 0.0];
    let limited = TrainingArguments {
        save_total_limit: Some(1),
        ..arguments(dir.path())
    };
    let trained = train(limited.clone(), &scores);
    let best = trained.best.unwrap();
    assert_eq!((best.step, best.score), (4, 0.5));
    assert_eq!((trained.steps, trained.finished), (12, true));
    // The best one and the last one stay.
    assert_eq!(checkpoints(dir.path()), [4, 12]);
    let at_four = Model::load(dir.path().join("checkpoint-4"), &Default::default()).unwrap();
    assert_eq!(adapter(&trained.model), adapter(&at_four));

    let last = TrainingArguments {
        load_best_model_at_end: false,
        ..limited
    };
    let last = train(last, &scores);
    assert_ne!(adapter(&last.model), adapter(&trained.model));
    assert_eq!(last.history.losses(), trained.history.losses());
    let summary = trained.summary();
    assert_eq!(summary.best_global_step, Some(4));
    assert_eq!((summary.global_step, summary.stopped_early), (12, false));
}

#[test]
fn the_best_model_may_be_the_one_with_the_least() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let scores = [0.0, 0.2, 0.1, 0.4, 0.3, 0.5, 0.6];
    let least = TrainingArguments {
        greater_is_better: Some(false),
        metric_for_best_model: Some("eval_score".to_owned()),
        ..arguments(dir.path())
    };
    assert_eq!(train(least, &scores).best.unwrap().step, 4);
    let unknown = TrainingArguments {
        metric_for_best_model: Some("ndcg".to_owned()),
        ..arguments(dir.path())
    };
    let result = Trainer::new(model(), unknown, pairs(), mnrl())
        .with_evaluator(Scripted::new(&scores))
        .train();
    assert!(matches!(
        result,
        Err(Error::Training(TrainingError::UnknownMetric { .. }))
    ));
}

#[test]
fn stops_early_and_stays_stopped() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let scores = [9.0, 0.2, 0.5, 0.4, 0.3, 0.9, 0.9];
    let patient = TrainingArguments {
        early_stopping_patience: Some(2),
        ..arguments(dir.path())
    };
    let trained = train(patient.clone(), &scores);
    assert_eq!((trained.steps, trained.stopped_early), (8, true));
    assert!(trained.finished);
    assert_eq!(trained.best.unwrap().step, 4);
    assert_eq!(trained.history.records().len(), 8);
    // Going on with it does nothing, and gives the same model.
    let again = Trainer::new(model(), patient.clone(), pairs(), mnrl())
        .with_evaluator(Scripted::new(&[]))
        .resume()
        .unwrap();
    assert_eq!((again.steps, again.samples), (8, 0));
    assert!(again.stopped_early);
    assert_eq!(adapter(&again.model), adapter(&trained.model));
    // With more patience it goes to its end.
    let more = TrainingArguments {
        early_stopping_patience: Some(3),
        ..patient
    };
    assert_eq!(train(more, &scores).steps, 12);
}

#[test]
fn a_plateau_reduces_the_rate() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut plateau = TrainingArguments {
        lr_scheduler_type: LrSchedulerType::ReduceLrOnPlateau,
        load_best_model_at_end: false,
        ..arguments(dir.path())
    };
    plateau.lr_scheduler_kwargs.patience = Some(1);
    plateau.lr_scheduler_kwargs.factor = Some(0.5);
    let trained = train(plateau, &[9.0, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4]);
    let rates: Vec<f64> = trained
        .history
        .records()
        .iter()
        .map(|record| record.learning_rate)
        .collect();
    let half = [[2e-2; 6].to_vec(), [1e-2; 4].to_vec(), [5e-3; 2].to_vec()].concat();
    assert_eq!(rates, half);
}

#[test]
fn what_is_due_when() {
    let _alone = alone();
    let events = |change: fn(&mut TrainingArguments), scores: &[f64]| {
        let dir = tempfile::tempdir().unwrap();
        let mut arguments = TrainingArguments {
            load_best_model_at_end: false,
            ..arguments(dir.path())
        };
        change(&mut arguments);
        let seen = Arc::new(Mutex::new((Vec::new(), Vec::new(), Vec::new())));
        let heard = seen.clone();
        Trainer::new(model(), arguments, pairs(), mnrl())
            .with_evaluator(Scripted::new(scores))
            .with_listener(move |event| {
                let mut seen = heard.lock().unwrap();
                match event {
                    TrainingEvent::Log(log) => {
                        assert!(log.remaining >= std::time::Duration::ZERO);
                        seen.0.push(log.step);
                    }
                    TrainingEvent::Evaluation(evaluation) => seen.1.push(evaluation.step),
                    TrainingEvent::Checkpoint { path } => {
                        let checkpoint = Checkpoint::open(path).unwrap();
                        seen.2.push(checkpoint.state().record.step);
                    }
                    _ => {}
                }
            })
            .train()
            .unwrap();
        let seen = seen.lock().unwrap();
        seen.clone()
    };
    // 80 pairs in batches of 8: an epoch is about ten steps, of which twelve are taken.
    let steps = events(
        |a| {
            a.logging_steps = 5.into();
            a.logging_first_step = true;
            a.eval_steps = Some(0.25.into());
            a.save_steps = 0.4.into();
            a.batch_sampler = sentence_burn::training::BatchSampler::Random;
        },
        &[],
    );
    let expected = (vec![1, 5, 10, 12], vec![0, 3, 6, 9, 12], vec![5, 10, 12]);
    assert_eq!(steps, expected);
    let epochs = events(
        |a| {
            a.logging_strategy = IntervalStrategy::Epoch;
            a.eval_strategy = IntervalStrategy::Epoch;
            a.save_strategy = SaveStrategy::Epoch;
            a.batch_sampler = sentence_burn::training::BatchSampler::Random;
        },
        &[],
    );
    assert_eq!(epochs, (vec![10, 12], vec![0, 10, 12], vec![10, 12]));
    let never = events(
        |a| {
            a.logging_strategy = IntervalStrategy::No;
            a.eval_strategy = IntervalStrategy::No;
            a.save_strategy = SaveStrategy::No;
        },
        &[],
    );
    assert_eq!(never, (vec![12], vec![0, 12], vec![]));
    let best = events(
        |a| a.save_strategy = SaveStrategy::Best,
        &[9.0, 0.2, 0.5, 0.4, 0.6, 0.1, 0.0],
    );
    assert_eq!(best.2, [2, 4, 8]);
}

#[test]
fn evaluations_need_something_to_evaluate() {
    let dir = tempfile::tempdir().unwrap();
    let result = Trainer::new(model(), arguments(dir.path()), pairs(), mnrl()).train();
    assert!(matches!(
        result,
        Err(Error::Training(TrainingError::InvalidArgument {
            argument: "eval_strategy",
            ..
        }))
    ));
}
