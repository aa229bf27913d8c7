//! Adapter folders, their two files changed in turn.

use std::fs;
use std::path::Path;

use sentence_burn::LoadAdapterOptions;

use crate::mutation::{self, Mutant};
use crate::trial::Trials;
use crate::{Model, alone, base, copy_of, fixture, offline_hub};

fn options(strict: bool) -> LoadAdapterOptions {
    LoadAdapterOptions {
        strict,
        hub: offline_hub(),
        ..LoadAdapterOptions::default()
    }
}

fn use_adapter(model: &Model, folder: &Path) -> sentence_burn::Result<()> {
    let mut model = model.clone();
    model.load_adapter_with(folder, &options(true))?;
    model.encode(&["the quick brown fox", ""])?;
    model.merge_adapter()?;
    model.encode(&["the quick brown fox"])?;
    Ok(())
}

fn try_each(trials: &mut Trials, model: &Model, folder: &Path, file: &str, mutants: Vec<Mutant>) {
    let path = folder.join(file);
    let before = fs::read(&path).unwrap();
    for (what, mutant) in mutants {
        fs::write(&path, &mutant).unwrap();
        let what = format!("{file} of {}: {what}", folder.display());
        trials.run(&what, mutant.len() + 100_000, || use_adapter(model, folder));
    }
    fs::write(&path, before).unwrap();
}

#[test]
fn adapters_of_every_type_changed_are_an_adapter_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(11));
    let model = base();
    let mut folders: Vec<_> = fs::read_dir(fixture("peft_options"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| fixture("peft_options").join(name).is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() > 40);
    for name in folders {
        let folder = copy_of(&format!("peft_options/{name}"));
        let read = |file: &str| fs::read(folder.path().join(file)).unwrap();
        let config = read("adapter_config.json");
        let mut configs = mutation::json(&config, 60, &mut rng);
        configs.extend(mutation::bytes(&config, 20, &mut rng));
        try_each(
            &mut trials,
            &model,
            folder.path(),
            "adapter_config.json",
            configs,
        );
        let weights = read("adapter_model.safetensors");
        let mut changed = mutation::safetensors(&weights, 20, &mut rng);
        changed.extend(mutation::bytes(&weights, 15, &mut rng));
        let file = "adapter_model.safetensors";
        try_each(&mut trials, &model, folder.path(), file, changed);
    }
    trials.finish(2000);
}

#[test]
fn every_field_of_a_lora_configuration_changed_is_an_adapter_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(12));
    let model = base();
    let folder = copy_of("tiny_lora/patterns");
    let config = fs::read(folder.path().join("adapter_config.json")).unwrap();
    let mut configs = mutation::json(&config, usize::MAX, &mut rng);
    configs.extend(mutation::broken_json(&config));
    try_each(
        &mut trials,
        &model,
        folder.path(),
        "adapter_config.json",
        configs,
    );
    trials.finish(500);
}

#[test]
fn a_pickled_adapter_changed_is_an_adapter_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(13));
    let model = base();
    let folder = copy_of("tiny_lora/bare");
    fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
    let bytes = fs::read(fixture("files/bin/adapter.bin")).unwrap();
    fs::write(folder.path().join("adapter_model.bin"), &bytes).unwrap();
    let mutants = mutation::bytes(&bytes, 500, &mut rng);
    try_each(
        &mut trials,
        &model,
        folder.path(),
        "adapter_model.bin",
        mutants,
    );
    trials.finish(100);
}

#[test]
fn an_adapter_that_is_refused_leaves_the_model_as_it_was() {
    let _alone = alone();
    let mut model = base();
    model.load_adapter(fixture("tiny_lora/bare")).unwrap();
    let before = crate::values(&model, &["the quick brown fox"]);
    let mut rng = mutation::rng(14);
    let folder = copy_of("tiny_lora/default");
    let path = folder.path().join("adapter_config.json");
    let config = fs::read(&path).unwrap();
    let mut refused = 0;
    for (what, mutant) in mutation::json(&config, 200, &mut rng) {
        fs::write(&path, mutant).unwrap();
        let named = LoadAdapterOptions {
            name: "other".to_owned(),
            ..options(true)
        };
        if model.load_adapter_with(folder.path(), &named).is_err() {
            refused += 1;
            assert_eq!(model.adapters().names(), ["default"], "{what}");
            assert_eq!(
                crate::values(&model, &["the quick brown fox"]),
                before,
                "{what}"
            );
        } else {
            model.delete_adapter(&["other"]).unwrap();
            model.set_adapter(&["default"]).unwrap();
        }
    }
    assert!(refused > 50, "{refused}");
}
