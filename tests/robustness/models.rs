//! Model folders, each file of them changed in turn.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use serde_json::json;

use crate::mutation::{self, Mutant};
use crate::trial::Trials;
use crate::{alone, copy, copy_of, fixture, load};

/// What is encoded where a changed folder loads all the same.
const TEXTS: [&str; 4] = [
    "",
    "the quick brown fox jumps over the lazy dog",
    "\u{0}\u{1b}[31m \u{fffd} ä 日本 🦊",
    "[CLS] [SEP] [UNK] [PAD] <s> </s>",
];

/// The files below a folder, relative to it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(folder).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

fn size(folder: &Path) -> usize {
    let files = files(folder).into_iter();
    let sizes = files.map(|file| fs::metadata(folder.join(file)).unwrap().len());
    sizes.sum::<u64>() as usize
}

/// Loads a folder and encodes with what comes of it.
fn use_folder(folder: &Path) -> sentence_burn::Result<()> {
    let model = load(folder)?;
    model.encode(&TEXTS)?;
    model.encode_query(&TEXTS[1..2])?;
    model.encode_document(&TEXTS[1..2])?;
    Ok(())
}

/// Tries a folder with each of these in the place of one of its files.
fn try_each(trials: &mut Trials, folder: &Path, file: &Path, mutants: Vec<Mutant>) {
    let path = folder.join(file);
    let before = fs::read(&path).unwrap();
    for (what, mutant) in mutants {
        fs::write(&path, &mutant).unwrap();
        let what = format!("{} of {}: {what}", file.display(), folder.display());
        trials.run(&what, size(folder), || use_folder(folder));
    }
    fs::write(&path, before).unwrap();
}

/// The changes of a file by its kind, about `most` of each sort.
fn mutants(path: &Path, most: usize, rng: &mut StdRng) -> Vec<Mutant> {
    let bytes = fs::read(path).unwrap();
    let mut mutants = mutation::bytes(&bytes, most / 2, rng);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => {
            mutants.extend(mutation::json(&bytes, most, rng));
            mutants.extend(mutation::broken_json(&bytes));
        }
        Some("safetensors") => mutants.extend(mutation::safetensors(&bytes, most, rng)),
        _ => {}
    }
    mutants
}

/// Tries every file of a folder, changed.
fn try_folder(trials: &mut Trials, folder: &Path, most: usize, rng: &mut StdRng) {
    trials.run(&format!("{} as it is", folder.display()), 0, || {
        use_folder(folder)
    });
    for file in files(folder) {
        let mutants = mutants(&folder.join(&file), most, rng);
        try_each(trials, folder, &file, mutants);
    }
}

#[test]
fn every_file_of_a_bert_changed_is_a_model_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(1));
    for name in ["tiny_bert/v6", "tiny_bert/legacy"] {
        let folder = copy_of(name);
        try_folder(&mut trials, folder.path(), 300, &mut rng);
    }
    trials.finish(500);
}

#[test]
fn every_file_of_other_pipelines_changed_is_a_model_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(2));
    for name in [
        "tiny_bert/dense",
        "modules/pipeline",
        "modules/asym",
        "modules/router",
        "modules/shared",
        "modules/static",
        "modules/model2vec",
        "modules/model2vec_bare",
    ] {
        let folder = copy_of(name);
        try_folder(&mut trials, folder.path(), 60, &mut rng);
    }
    trials.finish(500);
}

#[test]
fn the_configuration_and_weights_of_every_architecture_changed_are_a_model_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(3));
    let folders = fs::read_dir(fixture("architectures")).unwrap();
    let mut architectures = 0;
    for folder in folders.map(|entry| entry.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
        architectures += 1;
        let copied = tempfile::tempdir().unwrap();
        copy(&folder, copied.path());
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let shared = fixture("architectures").join(name);
            if !copied.path().join(name).exists() {
                fs::copy(shared, copied.path().join(name)).unwrap();
            }
        }
        for (file, most) in [("config.json", 400), ("model.safetensors", 60)] {
            let mutants = mutants(&copied.path().join(file), most, &mut rng);
            try_each(&mut trials, copied.path(), Path::new(file), mutants);
        }
    }
    assert!(architectures >= 9, "{architectures}");
    trials.finish(1000);
}

#[test]
fn weights_of_pytorch_changed_are_a_model_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(4));
    let folder = copy_of("tiny_bert/v6");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let file = Path::new("pytorch_model.bin");
    for source in ["bin/encoder.bin", "pytorch/legacy.bin", "pytorch/zip.bin"] {
        fs::copy(fixture("files").join(source), folder.path().join(file)).unwrap();
        let bytes = fs::read(folder.path().join(file)).unwrap();
        let mutants = mutation::bytes(&bytes, 1500, &mut rng);
        try_each(&mut trials, folder.path(), file, mutants);
    }
    trials.finish(1000);
}

/// A pickle of the format before PyTorch 1.6 that goes on with these steps.
fn legacy(steps: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let version = b"\x80\x02M\xe9\x03.";
    let machine = b"\x80\x02}.";
    [&magic[..], version, machine, b"\x80\x02", steps].concat()
}

#[test]
fn pickles_that_nest_hold_themselves_or_swell_are_errors() {
    let _alone = alone();
    let mut trials = Trials::new();
    let folder = copy_of("tiny_bert/v6");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let deep_tuples = [&b")"[..], &b"\x85".repeat(1 << 20)[..], b"."].concat();
    let deep_lists = [&b"]".repeat(1 << 20)[..], &b"a".repeat((1 << 20) - 1), b"."].concat();
    let long = [
        &b"X\x00\x00\x10\x00"[..],
        &b"x".repeat(1 << 20)[..],
        b"q\x00",
    ]
    .concat();
    let many_texts = [&long[..], &b"h\x00".repeat(1 << 20), b"."].concat();
    let mut mutants = vec![
        ("deep tuples".to_owned(), deep_tuples),
        ("deep lists".to_owned(), deep_lists),
        ("a list in itself".to_owned(), b"]q\x00h\x00a.".to_vec()),
        (
            "a dictionary of a list in itself".to_owned(),
            b"}U\x01a]q\x00h\x00as.".to_vec(),
        ),
        (
            "a dictionary in itself".to_owned(),
            b"}q\x00U\x01ah\x00s.".to_vec(),
        ),
        ("the same text often".to_owned(), many_texts),
        ("many marks".to_owned(), b"(".repeat(6 << 20)),
        ("many nothings".to_owned(), b"N".repeat(6 << 20)),
    ];
    for (_, steps) in &mut mutants {
        *steps = legacy(steps);
    }
    let file = folder.path().join("pytorch_model.bin");
    fs::write(&file, b"").unwrap();
    let count = mutants.len();
    try_each(
        &mut trials,
        folder.path(),
        Path::new("pytorch_model.bin"),
        mutants,
    );
    trials.finish(count);
}

#[test]
fn tokenizers_of_several_files_changed_are_a_model_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(5));
    for (tokenizer, model) in [
        ("bert", "tiny_bert/v6"),
        ("mpnet", "architectures/mpnet"),
        ("roberta", "architectures/roberta"),
    ] {
        let folder = copy_of(model);
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let _ = fs::remove_file(folder.path().join(name));
        }
        copy(&fixture("files/tokenizers").join(tokenizer), folder.path());
        for file in files(&fixture("files/tokenizers").join(tokenizer)) {
            let mutants = mutants(&folder.path().join(&file), 80, &mut rng);
            try_each(&mut trials, folder.path(), &file, mutants);
        }
    }
    trials.finish(50);
}

#[test]
fn indices_of_several_weights_files_changed_are_a_model_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(6));
    let folder = copy_of("tiny_bert/v6");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    copy(&fixture("files/shards"), folder.path());
    let file = Path::new("model.safetensors.index.json");
    let mutants = mutants(&folder.path().join(file), 300, &mut rng);
    try_each(&mut trials, folder.path(), file, mutants);
    trials.finish(100);
}

#[test]
fn headers_that_promise_more_than_there_is_cost_nothing() {
    let _alone = alone();
    let mut trials = Trials::new();
    let folder = copy_of("tiny_bert/v6");
    let tensor = |shape: serde_json::Value, end: u64| {
        json!({ "w": { "dtype": "F32", "shape": shape, "data_offsets": [0, end] } }).to_string()
    };
    let many: serde_json::Map<String, serde_json::Value> = (0..200_000)
        .map(|number| {
            let empty = json!({ "dtype": "F32", "shape": [0], "data_offsets": [0, 0] });
            (format!("tensor.{number}"), empty)
        })
        .collect();
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let headers = [
        tensor(json!([1u64 << 40, 1u64 << 40]), 8),
        tensor(json!([u64::MAX]), u64::MAX),
        tensor(json!([1u64 << 62]), 1 << 62),
        tensor(json!([0, u64::MAX, u64::MAX]), 0),
        tensor(json!(vec![1; 100_000]), 4),
        tensor(json!(vec![0; 100_000]), 0),
        serde_json::Value::Object(many).to_string(),
        format!("{{\"__metadata__\": {deep}}}"),
    ];
    let mut mutants: Vec<Mutant> = headers
        .into_iter()
        .map(|header| {
            let length = (header.len() as u64).to_le_bytes();
            let what = header[..header.len().min(80)].to_owned();
            (what, [&length[..], header.as_bytes(), &[0; 8]].concat())
        })
        .collect();
    for length in [u64::MAX, 1 << 62, 1 << 40, 99_999_999, 8] {
        let file = [&length.to_le_bytes()[..], b"{}"].concat();
        mutants.push((format!("a header of {length} bytes"), file));
    }
    let count = mutants.len();
    try_each(
        &mut trials,
        folder.path(),
        Path::new("model.safetensors"),
        mutants,
    );
    trials.finish(count);
}

#[test]
fn sizes_that_no_model_has_are_errors_that_name_the_field() {
    let _alone = alone();
    let folders = fs::read_dir(fixture("architectures")).unwrap();
    let mut refused = 0;
    for folder in folders.map(|entry| entry.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
        let copied = tempfile::tempdir().unwrap();
        copy(&folder, copied.path());
        let file = copied.path().join("config.json");
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for layers in ["num_hidden_layers", "n_layers", "n_layer"] {
            if !fields.contains_key(layers) {
                continue;
            }
            let mut fields = fields.clone();
            fields.insert(layers.to_owned(), json!(1u64 << 50));
            fields.remove("layer_types");
            fs::write(&file, json!(fields).to_string()).unwrap();
            let error = load(copied.path()).unwrap_err().to_string();
            assert!(error.contains("layer") && error.contains("1024"), "{error}");
            refused += 1;
        }
    }
    assert!(refused >= 9, "{refused}");
}

#[cfg(unix)]
#[test]
fn a_folder_downloaded_into_a_cache_loads_and_its_links_go_nowhere_else() {
    use std::os::unix::fs::symlink;
    let _alone = alone();
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--owner--name");
    let (snapshot, blobs) = (repository.join("snapshots/0123"), repository.join("blobs"));
    fs::create_dir_all(&blobs).unwrap();
    let whole = copy_of("tiny_bert/v6");
    fs::remove_file(whole.path().join("model.safetensors")).unwrap();
    copy(&fixture("files/shards"), whole.path());
    for (number, file) in files(whole.path()).into_iter().enumerate() {
        let (blob, link) = (blobs.join(number.to_string()), snapshot.join(&file));
        fs::copy(whole.path().join(&file), blob).unwrap();
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(file.components().count() + 1);
        symlink(format!("{up}blobs/{number}"), link).unwrap();
    }
    use_folder(&snapshot).unwrap();

    let outside = cache.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    let shard = snapshot.join("model-00001-of-00003.safetensors");
    fs::copy(&shard, outside.join("weights")).unwrap();
    fs::remove_file(&shard).unwrap();
    symlink("../../../outside/weights", &shard).unwrap();
    let error = load(&snapshot).unwrap_err().to_string();
    assert!(error.contains("leads out of the model's folder"), "{error}");
}
