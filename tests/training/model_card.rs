//! The model card after a run, against the one that Python writes after the same run
//! (`tests/fixtures/model_card`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sentence_burn::evaluation::{
    EmbeddingSimilarityEvaluator, Evaluator, InformationRetrievalEvaluator, RetrievalData,
    ScoredPair, SequentialEvaluator,
};
use sentence_burn::training::{
    Dataset, Interval, IntervalStrategy, SaveStrategy, Trainer, TrainingArguments,
};
use sentence_burn::{CardDataset, ModelCardData};
use serde_json::Value;

use super::{Model, alone, curve_arguments, fixture, mnrl, model, pairs};

/// What this crate's card has and Python's has not.
const OWN_HEADINGS: [&str; 3] = [
    "### Adapter",
    "### Direct Usage (sentence-burn)",
    "#### LoRA",
];

/// How far a measured value may be from Python's, which are rounded to four decimals.
const ROUNDING: f64 = 2e-4;

fn json(name: &str) -> Value {
    let text = fs::read_to_string(fixture("model_card").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn evaluator() -> SequentialEvaluator<burn::backend::NdArray> {
    let retrieval = json("retrieval.json");
    let texts = |name: &str| -> Vec<(String, String)> {
        let texts = retrieval[name].as_object().unwrap().iter();
        texts
            .map(|(id, text)| (id.clone(), text.as_str().unwrap().to_owned()))
            .collect()
    };
    let data = RetrievalData {
        queries: texts("queries"),
        corpus: texts("corpus"),
        relevant: serde_json::from_value(retrieval["relevant"].clone()).unwrap(),
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pair = |row: &Value| ScoredPair {
        sentence1: text(&row["sentence1"]),
        sentence2: text(&row["sentence2"]),
        score: row["score"].as_f64().unwrap(),
    };
    let scored = json("similarity.json");
    let scored = scored.as_array().unwrap().iter().map(pair).collect();
    SequentialEvaluator::new(vec![
        Box::new(
            InformationRetrievalEvaluator::new(data)
                .unwrap()
                .with_name("pairs-dev"),
        ),
        Box::new(
            EmbeddingSimilarityEvaluator::new(scored)
                .unwrap()
                .with_name("scored-dev"),
        ),
    ])
}

fn card_data() -> ModelCardData {
    ModelCardData {
        language: Some("en".to_owned()),
        license: Some("apache-2.0".to_owned()),
        model_name: Some("Tiny BERT adapter finetuned on pairs".to_owned()),
        model_id: Some("tester/tiny-adapter".to_owned()),
        train_datasets: vec![CardDataset {
            name: Some("pairs".to_owned()),
            ..CardDataset::default()
        }],
        ..ModelCardData::default()
    }
}

fn trained(dataset: Dataset, change: impl FnOnce(&mut TrainingArguments)) -> Model {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = TrainingArguments {
        logging_steps: Interval::Steps(5),
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(Interval::Steps(10)),
        ..curve_arguments(folder.path())
    };
    change(&mut arguments);
    let mut model = model();
    model.set_model_card_data(card_data());
    let trainer = Trainer::new(model, arguments, dataset, mnrl()).with_evaluator(evaluator());
    trainer.with_dashboard(false).train().unwrap().model
}

fn card_of(model: &Model) -> String {
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path()).unwrap();
    fs::read_to_string(folder.path().join("README.md")).unwrap()
}

/// A card's parts, as far as they can be compared.
struct Card {
    /// The metadata's fields in order, each with its lines.
    fields: Vec<(String, Vec<String>)>,
    headings: Vec<String>,
    /// The tables' rows below each heading, a list of cells a row.
    tables: Vec<(String, Vec<Vec<String>>)>,
    /// The text before the name of each point in bold.
    points: Vec<String>,
    text: String,
}

impl Card {
    fn read(text: &str) -> Self {
        let (front, text) = text
            .strip_prefix("---\n")
            .unwrap()
            .split_once("\n---\n")
            .unwrap();
        let mut fields: Vec<(String, Vec<String>)> = Vec::new();
        for line in front.lines() {
            match line.split_once(':') {
                Some((name, value)) if !line.starts_with([' ', '-']) => {
                    fields.push((name.to_owned(), vec![value.trim().to_owned()]));
                }
                _ => fields.last_mut().unwrap().1.push(line.to_owned()),
            }
        }
        let text = without_comments(text);
        let mut headings: Vec<String> = Vec::new();
        let mut tables: Vec<(String, Vec<Vec<String>>)> = Vec::new();
        let mut points = Vec::new();
        let mut is_code = false;
        for line in text.lines() {
            let line = line.trim();
            is_code ^= line.starts_with("```");
            if is_code {
                continue;
            }
            if line.starts_with('#') {
                headings.push(line.to_owned());
            } else if let Some(cells) = line.strip_prefix("| ").and_then(|l| l.strip_suffix('|')) {
                let cells = cells
                    .split(" |")
                    .map(|cell| cell.trim().to_owned())
                    .collect();
                let heading: &String = headings.last().unwrap();
                match tables.last_mut() {
                    Some((known, rows)) if known == heading => rows.push(cells),
                    _ => tables.push((heading.clone(), vec![cells])),
                }
            } else if let Some((name, _)) = line
                .strip_prefix("- **")
                .and_then(|rest| rest.split_once("**"))
            {
                points.push(name.to_owned());
            }
        }
        Self {
            fields,
            headings,
            tables,
            points,
            text,
        }
    }

    fn field(&self, name: &str) -> BTreeSet<String> {
        let field = self.fields.iter().find(|(known, _)| known == name);
        field.map_or(BTreeSet::new(), |(_, lines)| {
            lines.iter().cloned().collect()
        })
    }

    /// The JSON that the loss's parameters are shown in.
    fn loss(&self) -> Value {
        let (_, json) = self.text.split_once("```json\n").unwrap();
        serde_json::from_str(json.split("```").next().unwrap()).unwrap()
    }

    /// The arguments that are not the default ones.
    fn changed(&self) -> BTreeMap<String, String> {
        let (_, list) = self
            .text
            .split_once("#### Non-Default Hyperparameters\n")
            .unwrap();
        let lines = list.split("####").next().unwrap().lines();
        let argument = |line: &str| {
            let (name, value) = line.strip_prefix("- `")?.split_once("`: ")?;
            Some((name.to_owned(), value.to_owned()))
        };
        lines.filter_map(argument).collect()
    }
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("<!--");
    let mut kept = parts.next().unwrap().to_owned();
    for part in parts {
        kept.push_str(part.split_once("-->").unwrap().1);
    }
    kept
}

/// What of Python's card is not in ours, or otherwise.
fn differences(ours: &str, python: &str) -> Vec<String> {
    let (ours, python) = (Card::read(ours), Card::read(python));
    let mut found = Vec::new();
    let mut expect = |what: &str, good: bool| {
        if !good {
            found.push(what.to_owned());
        }
    };
    let names =
        |card: &Card| -> Vec<String> { card.fields.iter().map(|(name, _)| name.clone()).collect() };
    expect("metadata's fields", names(&ours) == names(&python));
    expect(
        "language",
        ours.field("language") == python.field("language"),
    );
    expect("license", ours.field("license") == python.field("license"));
    expect(
        "tags",
        ours.field("tags").is_superset(&python.field("tags")),
    );
    expect("metrics", ours.field("metrics") == python.field("metrics"));
    let index = |card: &Card| {
        let lines = card.fields.iter().find(|(name, _)| name == "model-index");
        lines.unwrap().1.clone()
    };
    let (our_index, their_index) = (index(&ours), index(&python));
    expect(
        "model-index",
        our_index.len() == their_index.len()
            && our_index.iter().zip(&their_index).all(|(a, b)| alike(a, b)),
    );
    let own = |heading: &&String| !OWN_HEADINGS.contains(&heading.as_str());
    let headings: Vec<&String> = ours.headings.iter().filter(own).collect();
    expect(
        "headings",
        headings == python.headings.iter().collect::<Vec<_>>(),
    );
    let points: BTreeSet<&String> = ours.points.iter().collect();
    expect(
        "points",
        python.points.iter().all(|point| points.contains(point)),
    );

    let table = |card: &Card, heading: &str| -> Vec<Vec<String>> {
        let of = |(known, _): &&(String, _)| known == heading;
        card.tables
            .iter()
            .find(of)
            .map_or(Vec::new(), |(_, rows)| rows.clone())
    };
    for heading in [
        "#### Information Retrieval",
        "#### Semantic Similarity",
        "#### pairs",
    ] {
        let (a, b) = (table(&ours, heading), table(&python, heading));
        expect(
            heading,
            a.len() > 2 && a.len() == b.len() && rows_alike(&a, &b),
        );
    }
    // Python does not know the step of what is evaluated around the run: it calls it -1.
    let (log, their_log) = (
        table(&ours, "### Training Logs"),
        table(&python, "### Training Logs"),
    );
    let (first, last) = (log.get(1), their_log.get(1));
    let around = first.zip(last).is_some_and(|(a, b)| {
        a[..2] == ["0.0", "0"] && rows_alike(&[a[2..].to_vec()], &[b[2..].to_vec()])
    });
    expect("the evaluation before the run", around);
    let in_run = |rows: &[Vec<String>], from: usize| -> Vec<Vec<String>> {
        let is_step = |row: &&Vec<String>| row[1] != "-1";
        rows.iter().skip(from).filter(is_step).cloned().collect()
    };
    expect("the log's columns", log.first() == their_log.first());
    let (a, b) = (in_run(&log, 2), in_run(&their_log, 2));
    expect(
        "the log",
        a.len() == b.len() && a.len() == 4 && rows_alike(&a, &b),
    );

    let (our_loss, their_loss) = (ours.loss(), python.loss());
    let parameters = our_loss.as_object().unwrap();
    expect(
        "the loss's parameters",
        parameters.len() + 1 == their_loss.as_object().unwrap().len()
            && parameters
                .iter()
                .all(|(name, value)| their_loss[name] == *value),
    );
    let (our_changed, their_changed) = (ours.changed(), python.changed());
    for name in ["per_device_train_batch_size", "learning_rate"] {
        expect(name, our_changed.get(name) == their_changed.get(name));
    }
    let usage = |card: &Card| {
        let numbers = ["encode_query(queries)", "# [1, 20] [3, 20]", "# tensor([["];
        numbers.map(|part| card.text.contains(part))
    };
    expect("usage", usage(&ours) == usage(&python));
    found
}

fn rows_alike(a: &[Vec<String>], b: &[Vec<String>]) -> bool {
    let cells = |rows: &[Vec<String>]| rows.concat();
    let (a, b) = (cells(a), cells(b));
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| alike(a, b))
}

/// Whether two texts are the same, but for numbers that were rounded and for quotes.
fn alike(a: &str, b: &str) -> bool {
    let number = |text: &str| -> Option<f64> {
        let text = text.trim().trim_start_matches("value: ");
        text.trim_matches('*').parse().ok()
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= ROUNDING,
        _ => a.replace('"', "") == b.replace('"', ""),
    }
}

fn python() -> String {
    fs::read_to_string(fixture("model_card/card.md")).unwrap()
}

#[test]
fn a_run_s_card_says_what_python_s_says() {
    let card = card_of(&trained(pairs(), |_| {}));
    assert_eq!(differences(&card, &python()), [""; 0], "{card}");
    for part in [
        "- peft\n- lora\n",
        "| Rank           | 4 ",
        "| Target modules | `query`, `value`",
        "pip install -U sentence-transformers peft\n",
        "SentenceTransformer::<NdArray>::load(\"tester/tiny-adapter\", &Default::default())?",
        "- **Evaluation**: ",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).to_str().unwrap();
    assert!(!card.contains(here), "{card}");
}

#[test]
fn another_run_s_card_would_be_noticed() {
    let other = |arguments: &mut TrainingArguments| arguments.learning_rate = 1e-2;
    let found = differences(&card_of(&trained(pairs(), other)), &python());
    for part in ["learning_rate", "the log", "#### Semantic Similarity"] {
        assert!(
            found.iter().any(|difference| difference == part),
            "{found:?}"
        );
    }
    let swapped = pairs();
    let columns = swapped.columns();
    let named = ["anchor", "positive"].into_iter();
    let swapped = named.zip([columns[1].clone(), columns[0].clone()]);
    let swapped = Dataset::from_columns(swapped).unwrap();
    let found = differences(&card_of(&trained(swapped, |_| {})), &python());
    assert!(
        found.iter().any(|difference| difference == "#### pairs"),
        "{found:?}"
    );
    // A card that lacks a part, or has one too many.
    let (whole, python) = (card_of(&trained(pairs(), |_| {})), python());
    for (part, by) in [
        ("\nmetrics:\n", "\nmeasures:\n"),
        ("- loss:MultipleNegativesRankingLoss\n", ""),
        ("### Model Sources", "## Model Sources"),
        ("- **Supported Modality:** Text\n", ""),
        (
            "\"partition_mode\": \"joint\"",
            "\"partition_mode\": \"apart\"",
        ),
        ("| cosine_mrr@10 ", "| cosine_mrr@11 "),
        (
            "cosine_map@100\n      value: 0.",
            "cosine_map@100\n      value: 1.",
        ),
        ("# [1, 20] [3, 20]", ""),
    ] {
        let spoilt = whole.replacen(part, by, 1);
        assert_ne!(spoilt, whole, "{part}");
        assert_ne!(differences(&spoilt, &python), [""; 0], "{part}");
    }
}

#[test]
fn a_card_of_a_model_that_no_one_trained_has_the_parts_of_python_s() {
    let plain = fs::read_to_string(fixture("model_card/plain.md")).unwrap();
    let mut model = super::base();
    model.set_model_card_data(ModelCardData::default());
    let (ours, python) = (Card::read(&card_of(&model)), Card::read(&plain));
    // Python cites the library itself only beside a loss.
    let own = |heading: &&String| {
        !OWN_HEADINGS.contains(&heading.as_str()) && *heading != "#### Sentence Transformers"
    };
    let headings: Vec<&String> = ours.headings.iter().filter(own).collect();
    assert_eq!(headings, python.headings.iter().collect::<Vec<_>>());
    let names =
        |card: &Card| -> Vec<String> { card.fields.iter().map(|(name, _)| name.clone()).collect() };
    assert_eq!(names(&ours), names(&python));
    assert_eq!(ours.field("tags"), python.field("tags"));
}

#[test]
fn an_evaluation_by_hand_goes_onto_the_card() {
    use burn::module::AutodiffModule;

    let mut model = model();
    let (evaluator, inner) = (evaluator(), model.valid());
    let metrics = evaluator.evaluate(&inner).unwrap();
    for evaluation in evaluator.describe(&inner, &metrics) {
        model.model_card_data_mut().set_evaluation(evaluation);
    }
    let card = Card::read(&card_of(&model));
    for heading in ["#### Information Retrieval", "#### Semantic Similarity"] {
        assert!(card.headings.iter().any(|known| known == heading));
    }
    assert!(
        !card
            .headings
            .iter()
            .any(|known| known == "### Training Logs")
    );
}

#[test]
fn every_data_set_of_a_run_goes_onto_the_card() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        max_steps: Some(8),
        logging_steps: Interval::Steps(4),
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(Interval::Steps(4)),
        save_strategy: SaveStrategy::Steps,
        save_steps: Interval::Steps(4),
        load_best_model_at_end: true,
        metric_for_best_model: Some("first_loss".to_owned()),
        ..curve_arguments(folder.path())
    };
    let mut model = model();
    let entry = |name: &str, id: Option<&str>| CardDataset {
        name: Some(name.to_owned()),
        id: id.map(str::to_owned),
        ..CardDataset::default()
    };
    model.set_model_card_data(ModelCardData {
        train_datasets: vec![
            entry("other", None),
            entry("second", Some("tester/second")),
            entry("first", None),
        ],
        ..ModelCardData::default()
    });
    let sets = [("first", pairs()), ("second", pairs())];
    let trained = Trainer::with_datasets(model, arguments, sets, mnrl())
        .with_named_eval_dataset("first", pairs())
        .with_dashboard(false)
        .train()
        .unwrap();
    let card = Card::read(&card_of(&trained.model));
    let place = |heading: &str| card.headings.iter().position(|known| known == heading);
    assert!(place("### Training Datasets") < place("#### second"));
    assert!(place("#### second") < place("### Evaluation Dataset"));
    assert_eq!(place("#### other"), None);
    let named = card.headings.iter().filter(|known| *known == "#### first");
    assert_eq!(named.count(), 2, "{:?}", card.headings);
    let link = "[second](https://huggingface.co/datasets/tester/second)";
    assert!(card.text.contains(&format!("* Dataset: {link}")));

    let (_, log) = card
        .tables
        .iter()
        .find(|(heading, _)| heading == "### Training Logs")
        .unwrap();
    assert_eq!(log[0], ["Epoch", "Step", "Training Loss", "first loss"]);
    let steps: Vec<&str> = log[1..].iter().map(|row| row[1].as_str()).collect();
    let best = format!("**{}**", trained.best.unwrap().step);
    assert_eq!(steps.iter().filter(|step| **step == best).count(), 1);
    assert_eq!(
        steps.len(),
        3,
        "the evaluation before the run, and two in it"
    );
    let losses = trained.history.losses();
    let mean = losses[..4].iter().sum::<f64>() / 4.0;
    let shown: f64 = log[2][2].trim_matches('*').parse().unwrap();
    assert!((shown - mean).abs() < ROUNDING, "{shown} for {mean}");
}
