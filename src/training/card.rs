use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde_json::Value;

use super::arguments::TrainingArguments;
use super::dataset::Dataset;
use super::history::EvaluationRecord;
use super::learner::TrainableLoss;
use super::monitor::Monitor;
use super::training_data::TrainingSet;
use crate::model::{
    CardArgument, CardColumn, CardDataset, CardEvaluation, CardLogLine, CardTraining,
    ModelCardData, SentenceTransformer,
};

/// How many samples a column's statistics are of.
const STATISTICS: usize = 100;

/// How many samples a card shows.
const SAMPLES: usize = 3;

/// How many samples the texts that show the model are looked for in.
const CANDIDATES: usize = 1000;

/// How many times the hub's own display shows the model.
const WIDGETS: usize = 5;

/// Arguments that say where things go and how often, and nothing about the model.
const NOT_ON_THE_CARD: [&str; 11] = [
    "output_dir",
    "logging_strategy",
    "logging_steps",
    "logging_first_step",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "metric_for_best_model",
    "greater_is_better",
];

/// Writes a run down on its model's card: the data sets with their losses, the arguments, the
/// log, what the evaluator found, and the step of the best weights where these were kept.
pub(super) fn note_run<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &mut SentenceTransformer<B>,
    losses: &[L],
    monitor: &Monitor<B>,
    best_step: Option<usize>,
) {
    let inner = model.valid();
    let evaluator = monitor.evaluator.as_deref();
    let found = |record: &EvaluationRecord| match evaluator {
        Some(evaluator) => evaluator.describe(&inner, &record.metrics),
        None => Vec::new(),
    };
    let training = CardTraining {
        arguments: described(monitor.plan.arguments()),
        log: log(monitor, &found),
        best_step,
        training_time: monitor.duration,
        evaluation_time: monitor.evaluating,
    };
    let evaluations = &monitor.evaluations;
    let kept = best_step.and_then(|step| evaluations.iter().find(|record| record.step == step));
    let of_the_model = kept.or(evaluations.last()).map(&found).unwrap_or_default();
    let card = model.model_card_data_mut();
    let describe = |sets: &[&TrainingSet], named: Vec<CardDataset>| {
        let entries = sets.iter().zip(entries(sets, named));
        let described = entries.map(|(set, entry)| CardDataset {
            size: match set.stream {
                Some(_) => 0,
                None => set.dataset.len(),
            },
            columns: columns(&inner, &set.dataset),
            samples: samples(&set.dataset),
            loss: losses.get(set.loss).map(|loss| loss.describe()),
            ..entry
        });
        described.collect()
    };
    let train: Vec<&TrainingSet> = monitor.plan.sets().iter().collect();
    card.train_datasets = describe(&train, std::mem::take(&mut card.train_datasets));
    let eval: Vec<&TrainingSet> = monitor.eval_sets.iter().map(|eval| &eval.set).collect();
    if !eval.is_empty() {
        card.eval_datasets = describe(&eval, std::mem::take(&mut card.eval_datasets));
    }
    card.training = Some(training);
    for evaluation in of_the_model {
        card.set_evaluation(evaluation);
    }
    for set in train {
        if card.widget.is_empty() {
            show(card, &set.dataset);
        }
    }
}

/// What the card data say of each data set beforehand, such as its id: of the one of its name,
/// or of the only one.
fn entries(sets: &[&TrainingSet], mut named: Vec<CardDataset>) -> Vec<CardDataset> {
    let is_only = sets.len() == 1 && named.len() == 1;
    let entry = |set: &&TrainingSet| {
        let of_name = named
            .iter()
            .position(|entry| set.name.is_some() && entry.name == set.name);
        let place = of_name.or(is_only.then_some(0));
        let mut entry = place.map_or_else(CardDataset::default, |place| {
            std::mem::take(&mut named[place])
        });
        entry.name = entry.name.or_else(|| set.name.clone());
        entry
    };
    sets.iter().map(entry).collect()
}

/// The arguments by name, and whether each is the default one.
fn described(arguments: &TrainingArguments) -> Vec<CardArgument> {
    let fields = |arguments: &TrainingArguments| match serde_json::to_value(arguments) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let defaults = fields(&TrainingArguments::default());
    fields(arguments)
        .into_iter()
        .filter(|(name, _)| !NOT_ON_THE_CARD.contains(&name.as_str()))
        .map(|(name, value)| CardArgument {
            is_default: defaults.get(&name) == Some(&value),
            name,
            value,
        })
        .collect()
}

/// The mean loss since the line before at each logged step, and the losses and the metric to
/// judge by at each evaluation.
fn log<B: AutodiffBackend>(
    monitor: &Monitor<B>,
    found: &dyn Fn(&EvaluationRecord) -> Vec<CardEvaluation>,
) -> Vec<CardLogLine> {
    let mut lines: Vec<CardLogLine> = Vec::new();
    let (mut sum, mut count) = (0.0, 0.0);
    for record in monitor.history().records() {
        sum += record.loss;
        count += 1.0;
        if monitor.is_logged(record.step) {
            lines.push(CardLogLine {
                epoch: record.epoch,
                step: record.step,
                values: vec![("Training Loss".to_owned(), sum / count)],
            });
            (sum, count) = (0.0, 0.0);
        }
    }
    for record in &monitor.evaluations {
        let place = lines.partition_point(|line| line.step < record.step);
        if lines.get(place).is_none_or(|line| line.step != record.step) {
            let line = CardLogLine {
                epoch: record.epoch,
                step: record.step,
                values: Vec::new(),
            };
            lines.insert(place, line);
        }
        for eval in &monitor.eval_sets {
            let name = eval.set.loss_name();
            if let Some(value) = record.metrics.get(&name) {
                let name = match &eval.set.name {
                    Some(_) => name.replace('_', " "),
                    None => "Validation Loss".to_owned(),
                };
                lines[place].values.push((name, value));
            }
        }
        for evaluation in found(record) {
            let metric = &evaluation.primary_metric;
            let value = evaluation.metrics.iter().find(|(name, _)| name == metric);
            if let Some((_, value)) = value {
                let name = match evaluation.dataset.is_empty() {
                    true => metric.clone(),
                    false => format!("{}_{metric}", evaluation.dataset),
                };
                lines[place].values.push((name, *value));
            }
        }
    }
    lines
}

fn columns<B: Backend>(model: &SentenceTransformer<B>, dataset: &Dataset) -> Vec<CardColumn> {
    let texts = dataset.column_names().iter().zip(dataset.columns());
    let mut columns: Vec<CardColumn> = texts
        .map(|(name, texts)| {
            let texts = &texts[..texts.len().min(STATISTICS)];
            let tokens = model.tokenize(texts, None, &model.device());
            CardColumn {
                name: name.clone(),
                kind: "string",
                details: tokens.map_or(Vec::new(), |batch| spread(batch.lengths())),
            }
        })
        .collect();
    if let Some(labels) = dataset.labels() {
        let labels = &labels[..labels.len().min(STATISTICS)];
        let (kind, details) = label_details(labels);
        columns.push(CardColumn {
            name: "label".to_owned(),
            kind,
            details,
        });
    }
    columns
}

/// The shortest, mean and longest text in tokens.
fn spread(lengths: &[usize]) -> Vec<(String, String)> {
    let (Some(min), Some(max)) = (lengths.iter().min(), lengths.iter().max()) else {
        return Vec::new();
    };
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    [
        ("min", format!("{min} tokens")),
        ("mean", format!("{} tokens", hundredths(mean))),
        ("max", format!("{max} tokens")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// What labels are, and their spread; whole numbers count as classes.
fn label_details(labels: &[Vec<f32>]) -> (&'static str, Vec<(String, String)>) {
    let named = |name: &str, value: String| (name.to_owned(), value);
    let width = labels.first().map_or(0, Vec::len);
    if width != 1 {
        return ("list", vec![named("size", format!("{width} elements"))]);
    }
    let mut values: Vec<f64> = labels.iter().flatten().map(|v| f64::from(*v)).collect();
    values.sort_by(f64::total_cmp);
    if values.iter().all(|value| value.fract() == 0.0) {
        let classes = values.chunk_by(|a, b| a == b);
        let approximate = if values.first() == values.last() {
            ""
        } else {
            "~"
        };
        let share = |class: &[f64]| {
            let percent = 100.0 * class.len() as f64 / values.len() as f64;
            named(&class[0].to_string(), format!("{approximate}{percent:.2}%"))
        };
        return ("int", classes.map(share).collect());
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let ends = [values[0], mean, values[values.len() - 1]];
    let names = ["min", "mean", "max"].into_iter();
    let details = names
        .zip(ends)
        .map(|(name, value)| named(name, hundredths(value)));
    ("float", details.collect())
}

/// A number with at most two decimals, as Python prints it.
fn hundredths(value: f64) -> String {
    format!("{:?}", (value * 100.0).round_ties_even() / 100.0)
}

fn samples(dataset: &Dataset) -> Vec<Vec<String>> {
    let sample = |at: usize| {
        let texts = dataset.columns().iter().map(|texts| texts[at].clone());
        let label = dataset.labels().map(|labels| match labels[at].as_slice() {
            [label] => format!("{label:?}"),
            [first @ .., _] if first.len() > 4 => {
                let first: Vec<String> = first[..5].iter().map(|v| format!("{v:?}")).collect();
                format!("[{}, ...]", first.join(", "))
            }
            labels => format!("{labels:?}"),
        });
        texts.chain(label).collect()
    };
    (0..dataset.len().min(SAMPLES)).map(sample).collect()
}

/// Takes texts to show the model with from the data: the shortest samples, and texts of the
/// next ones to compare them with.
fn show(card: &mut ModelCardData, dataset: &Dataset) {
    let columns = dataset.columns();
    let sample = |at: usize| columns.iter().map(move |texts| &texts[at]);
    let mut by_length: Vec<usize> = (0..dataset.len().min(CANDIDATES))
        .filter(|&at| sample(at).all(|text| !text.is_empty()))
        .collect();
    by_length.sort_by_key(|&at| sample(at).map(|text| text.chars().count()).sum::<usize>());
    let shown = by_length.len().min(WIDGETS);
    let (shortest, others) = by_length.split_at(shown);
    let mut others = others.iter();
    for &at in shortest {
        let mut texts: Vec<String> = sample(at).cloned().collect();
        while texts.len() < 4
            && let Some(&other) = others.next()
        {
            // The second column: the first may be another query.
            let column = columns.len().min(2) - 1;
            texts.push(columns[column][other].clone());
        }
        if texts.len() < 4 {
            continue;
        }
        card.widget.push((texts[0].clone(), texts[1..].to_vec()));
        if card.examples.is_empty() {
            card.examples = texts[..4].to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_from_each_other() {
        let one =
            |labels: &[f32]| label_details(&labels.iter().map(|l| vec![*l]).collect::<Vec<_>>());
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(a, b)| (a.to_string(), b.to_string()))
                .collect()
        };
        assert_eq!(
            one(&[1.0, 0.0, 1.0, 1.0]),
            ("int", pairs(&[("0", "~25.00%"), ("1", "~75.00%")]))
        );
        assert_eq!(one(&[1.0, 1.0]), ("int", pairs(&[("1", "100.00%")])));
        assert_eq!(
            one(&[0.5, 1.0, 0.25]),
            (
                "float",
                pairs(&[("min", "0.25"), ("mean", "0.58"), ("max", "1.0")])
            )
        );
        assert_eq!(
            label_details(&[vec![0.5, 1.0]]),
            ("list", pairs(&[("size", "2 elements")]))
        );
    }

    #[test]
    fn arguments_that_are_not_the_default_ones_are_marked() {
        let arguments = TrainingArguments {
            output_dir: "elsewhere".into(),
            learning_rate: 1e-3,
            ..TrainingArguments::default()
        };
        let described = described(&arguments);
        let changed: Vec<_> = described.iter().filter(|a| !a.is_default).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!(
            (changed[0].name.as_str(), &changed[0].value),
            ("learning_rate", &1e-3.into())
        );
        assert!(described.iter().all(|a| a.name != "output_dir"));
        assert!(described.iter().any(|a| a.name == "seed"));
    }

    #[test]
    fn the_shortest_samples_show_the_model() {
        let pairs = (0..12).map(|i| (format!("question {}", "x".repeat(i)), format!("answer {i}")));
        let dataset = Dataset::from_pairs(pairs);
        let mut card = ModelCardData::default();
        show(&mut card, &dataset);
        assert_eq!(
            card.widget.len(),
            3,
            "two further texts each, of seven samples"
        );
        let (source, others) = &card.widget[0];
        assert_eq!(source, "question ");
        assert_eq!(others, &["answer 0", "answer 5", "answer 6"]);
        assert_eq!(card.examples.len(), 4);
        let mut card = ModelCardData::default();
        show(&mut card, &Dataset::from_pairs([("a", "b")]));
        assert!(card.widget.is_empty() && card.examples.is_empty());
    }
}
