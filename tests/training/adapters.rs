//! Training with adapters by other names, and with one for each side of the data.

use burn::tensor::backend::Backend;
use sentence_burn::adapter::{Bias, InitLoraWeights, InitScheme, TokenIndices};
use sentence_burn::error::{AdapterError, TrainingError};
use sentence_burn::loss::CachedLoss;
use sentence_burn::training::{IntervalStrategy, SaveStrategy, Trainer, TrainingArguments};
use sentence_burn::{
    AdapterChoice, EncodeOptions, Error, Ia3Config, LoadAdapterOptions, LohaConfig, LokrConfig,
    LoraConfig, PeftConfig,
};

use crate::{B, Failing, Model, alone, base, distance, mnrl, pairs, random_arguments};

fn eager(dropout: f64) -> LoraConfig {
    LoraConfig {
        init_lora_weights: InitLoraWeights::Flag(false),
        lora_dropout: dropout,
        ..LoraConfig::default()
    }
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    let tensors = model.get_adapter_state_dict(Some(name)).unwrap();
    let values = tensors
        .iter()
        .flat_map(|(_, data)| data.iter::<f32>().collect::<Vec<_>>());
    values.collect()
}

/// A model with an adapter for queries and one for documents.
fn two_sided() -> Model {
    let mut model = base();
    // Two models of a run begin alike.
    B::seed(&Default::default(), 5);
    for name in ["q.1", "d/2"] {
        model.add_named_adapter(name, eager(0.1)).unwrap();
    }
    model.set_adapter(&["q.1", "d/2"]).unwrap();
    model
}

fn by_column(arguments: TrainingArguments) -> TrainingArguments {
    let own = |name: &str| vec![name.to_owned()];
    TrainingArguments {
        learning_rate: 1e-3,
        column_adapters: [
            ("anchor".to_owned(), own("q.1")),
            ("positive".to_owned(), own("d/2")),
        ]
        .into(),
        ..arguments
    }
}

#[test]
fn each_side_trains_its_own_adapter_and_a_cut_run_continues() {
    let _alone = alone();
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = |arguments| Trainer::new(two_sided(), by_column(arguments), pairs(), mnrl());
    let trained = train(random_arguments(whole.path())).train().unwrap();
    let fresh = two_sided();
    for name in ["q.1", "d/2"] {
        let moved = distance(&values(&trained.model, name), &values(&fresh, name));
        assert!(moved > 1e-3, "{name} moved by {moved}");
    }
    // Each side's checkpoint lies under its own name.
    let checkpoint = whole.path().join("checkpoint-12");
    for folder in ["q.1", "d%2F2"] {
        let mut again = base();
        let options = LoadAdapterOptions::default();
        again
            .load_adapter_with(checkpoint.join(folder), &options)
            .unwrap();
    }
    let arguments = TrainingArguments {
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(4.into()),
        ..random_arguments(cut.path())
    };
    assert!(
        train(arguments)
            .with_evaluator(Failing::at(2))
            .train()
            .is_err()
    );
    let resumed = train(random_arguments(cut.path())).resume().unwrap();
    assert_eq!(resumed.history.losses(), trained.history.losses());
    for name in ["q.1", "d/2"] {
        assert_eq!(values(&resumed.model, name), values(&trained.model, name));
    }

    // The two sides embed by their own.
    let mut model = trained.model;
    model.set_query_adapter(Some(&["q.1"])).unwrap();
    model.set_document_adapter(Some(&["d/2"])).unwrap();
    let chosen = |name: &str| EncodeOptions {
        adapters: Some(AdapterChoice::all([name])),
        ..EncodeOptions::default()
    };
    let text = ["the quick fox"];
    let query = model.encode_query(&text).unwrap().into_data();
    assert_eq!(
        query,
        model
            .encode_with(&text, &chosen("q.1"))
            .unwrap()
            .into_data()
    );
    let document = model.encode_document(&text).unwrap().into_data();
    assert_eq!(
        document,
        model
            .encode_with(&text, &chosen("d/2"))
            .unwrap()
            .into_data()
    );
    assert_ne!(query, document);
    model.delete_adapter(&["q.1"]).unwrap();
    assert_eq!(model.config().adapters.query, None);
}

#[test]
fn a_side_is_trained_by_its_own_texts_alone() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = |column: &str| TrainingArguments {
        column_adapters: [(column.to_owned(), vec!["q.1".to_owned()])].into(),
        dropout: false,
        save_strategy: SaveStrategy::No,
        ..random_arguments(dir.path())
    };
    let mut model = two_sided();
    model.set_adapter(&["q.1"]).unwrap();
    let before = values(&model, "d/2");
    // Of the two, only the active one trains; the other only takes part.
    let mut both = arguments("anchor");
    both.column_adapters
        .insert("positive".to_owned(), vec!["d/2".to_owned()]);
    let trained = Trainer::new(model, both, pairs(), mnrl()).train().unwrap();
    assert_eq!(values(&trained.model, "d/2"), before);

    let refused = |arguments| Trainer::new(two_sided(), arguments, pairs(), mnrl()).train();
    assert!(matches!(
        refused(arguments("question")),
        Err(Error::Training(TrainingError::InvalidArgument {
            argument: "column_adapters",
            ..
        }))
    ));
    let mut unknown = arguments("anchor");
    unknown
        .column_adapters
        .insert("anchor".to_owned(), vec!["x".to_owned()]);
    assert!(matches!(
        refused(unknown),
        Err(Error::Adapter(AdapterError::UnknownName { .. }))
    ));
}

#[test]
fn a_cached_loss_sees_the_same_two_sides() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = || TrainingArguments {
        dropout: false,
        save_strategy: SaveStrategy::No,
        max_steps: Some(3),
        ..by_column(random_arguments(dir.path()))
    };
    let plain = Trainer::new(two_sided(), arguments(), pairs(), mnrl())
        .train()
        .unwrap();
    let cached = CachedLoss::new(mnrl(), 3).unwrap();
    let cached = Trainer::new(two_sided(), arguments(), pairs(), cached)
        .train()
        .unwrap();
    for (a, b) in plain.history.losses().iter().zip(cached.history.losses()) {
        assert!((a - b).abs() < 1e-5 * a.abs(), "{a} {b}");
    }
}

#[test]
fn every_kind_of_adapter_learns_and_comes_back() {
    let _alone = alone();
    let lora = |change: fn(&mut LoraConfig)| {
        let mut config = LoraConfig {
            r: 4,
            ..LoraConfig::default()
        };
        change(&mut config);
        PeftConfig::from(config)
    };
    let configs: [(&str, PeftConfig); 11] = [
        ("dora", lora(|c| c.use_dora = true)),
        (
            "dora with dropout",
            lora(|c| (c.use_dora, c.lora_dropout) = (true, 0.2)),
        ),
        ("lora_bias", lora(|c| c.lora_bias = true)),
        ("bias", lora(|c| c.bias = Bias::All)),
        (
            "modules",
            lora(|c| c.modules_to_save = Some(vec!["LayerNorm".to_owned()])),
        ),
        (
            "tokens",
            lora(|c| c.trainable_token_indices = Some(TokenIndices::Words(vec![7, 9, 30]))),
        ),
        (
            "pissa",
            lora(|c| c.init_lora_weights = InitLoraWeights::Scheme(InitScheme::Pissa)),
        ),
        (
            "orthogonal",
            lora(|c| c.init_lora_weights = InitLoraWeights::Scheme(InitScheme::Orthogonal)),
        ),
        ("ia3", Ia3Config::default().into()),
        (
            "loha",
            LohaConfig {
                r: 4,
                rank_dropout: 0.1,
                module_dropout: 0.1,
                ..LohaConfig::default()
            }
            .into(),
        ),
        (
            "lokr",
            LokrConfig {
                r: 2,
                decompose_both: true,
                ..LokrConfig::default()
            }
            .into(),
        ),
    ];
    for (name, config) in configs {
        let dir = tempfile::tempdir().unwrap();
        let mut model = base();
        model.add_adapter(config).unwrap();
        let before = values(&model, "default");
        let arguments = TrainingArguments {
            learning_rate: 2e-2,
            max_steps: Some(12),
            ..random_arguments(dir.path())
        };
        let trained = Trainer::new(model, arguments, pairs(), mnrl())
            .train()
            .unwrap();
        assert!(
            values(&trained.model, "default") != before,
            "{name} did not move"
        );
        let losses = trained.history.losses();
        let half = losses.len() / 2;
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(
            mean(&losses[half..]) < mean(&losses[..half]),
            "{name}: {losses:?}"
        );
        // Saved and loaded it is the same adapter.
        let saved = tempfile::tempdir().unwrap();
        trained.model.save(saved.path()).unwrap();
        let again = Model::load(saved.path(), &Default::default()).unwrap();
        let embed = |model: &Model| -> Vec<f32> {
            model
                .encode(&["the quick fox", "a lazy dog"])
                .unwrap()
                .into_data()
                .to_vec()
                .unwrap()
        };
        let difference = distance(&embed(&again), &embed(&trained.model));
        assert!(difference < 1e-6, "{name} differs by {difference}");
    }
}
