//! The readers, each given any bytes: it must end, with a result or an error.

mod hub;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use burn::backend::NdArray;
use sentence_burn::data::read_rows;
use sentence_burn::text::TextTokenizer;
use sentence_burn::{HubOptions, LoadAdapterOptions, LoadOptions, SentenceTransformer};

pub use self::hub::{card, hub};
pub use self::run::checkpoint;

type Model = SentenceTransformer<NdArray>;

/// What is encoded where a folder loads all the same.
const TEXTS: [&str; 3] = ["the quick brown fox", "", "\u{0} ä 🦊 [MASK]"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::copy(entry.path(), target).map(|_| ()).unwrap(),
        }
    }
}

/// A folder that is kept until the process ends, in memory where there is such a place.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let mut folder = tempfile::Builder::new();
    folder.prefix("sentence-burn-fuzz-");
    let folder = match memory.is_dir() {
        true => folder.tempdir_in(memory),
        false => folder.tempdir(),
    };
    folder.unwrap().keep()
}

/// A copy of fixtures, over each other, without some of their files.
fn model_folder(fixtures: &[&str], without: &[&str]) -> PathBuf {
    let folder = folder();
    for name in fixtures {
        copy(&fixture(name), &folder);
    }
    for name in without {
        fs::remove_file(folder.join(name)).unwrap();
    }
    folder
}

/// Options that never ask a network.
fn offline() -> HubOptions {
    HubOptions {
        local_files_only: true,
        cache_dir: Some("/no/such/cache".into()),
        ..HubOptions::default()
    }
}

fn use_model(folder: &Path) {
    let options = LoadOptions {
        hub: offline(),
        ..LoadOptions::default()
    };
    match Model::load_with(folder, &options, &Default::default()) {
        Ok(model) => drop(model.encode(&TEXTS)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A model folder with these bytes in the place of a file.
fn use_with(folder: &Path, file: &str, data: &[u8]) {
    fs::write(folder.join(file), data).unwrap();
    use_model(folder);
}

/// `config.json`: the first byte says of which architecture.
pub fn config(data: &[u8]) {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let folders = FOLDERS.get_or_init(|| {
        let names = [
            "albert",
            "distilbert",
            "electra",
            "gemma3_text",
            "modernbert",
            "mpnet",
            "nomic_bert",
            "qwen3",
            "roberta",
        ];
        let architectures = names.map(|name| {
            let folder = model_folder(&[&format!("architectures/{name}")], &[]);
            for name in ["tokenizer.json", "tokenizer_config.json"] {
                if !folder.join(name).exists() {
                    fs::copy(fixture("architectures").join(name), folder.join(name)).unwrap();
                }
            }
            folder
        });
        let bert = model_folder(&["tiny_bert/v6"], &[]);
        [bert].into_iter().chain(architectures).collect()
    });
    if let Some((choice, data)) = data.split_first() {
        use_with(
            &folders[usize::from(*choice) % folders.len()],
            "config.json",
            data,
        );
    }
}

/// The other JSON files of a pipeline: the first byte says which.
pub fn modules(data: &[u8]) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| model_folder(&["modules/shared"], &[]));
    const FILES: [&str; 6] = [
        "modules.json",
        "router_config.json",
        "config_sentence_transformers.json",
        "short_1_Pooling/config.json",
        "short_2_Dense/config.json",
        "short_0_Transformer/sentence_bert_config.json",
    ];
    if let Some((choice, data)) = data.split_first() {
        let file = FILES[usize::from(*choice) % FILES.len()];
        let before = fs::read(folder.join(file)).unwrap_or_default();
        use_with(folder, file, data);
        fs::write(folder.join(file), before).unwrap();
    }
}

/// `model.safetensors`.
pub fn safetensors(data: &[u8]) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| model_folder(&["tiny_bert/v6"], &[]));
    use_with(folder, "model.safetensors", data);
}

/// `pytorch_model.bin`.
pub fn pytorch(data: &[u8]) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| model_folder(&["tiny_bert/v6"], &["model.safetensors"]));
    use_with(folder, "pytorch_model.bin", data);
}

/// `tokenizer.json`.
pub fn tokenizer(data: &[u8]) {
    if let Ok(tokenizer) = TextTokenizer::from_json(data, Path::new("tokenizer.json"), 64) {
        drop(tokenizer.encode(&TEXTS, Some("prompt: ")));
        if let Ok(tokenizer) = tokenizer.with_lowercase() {
            drop(tokenizer.encode(&TEXTS, None));
        }
    }
}

/// The files of a tokenizer without a `tokenizer.json`: the first byte says which.
pub fn vocabulary(data: &[u8]) {
    const CASES: [(&str, &[&str], &str); 5] = [
        (
            "bert",
            &["tiny_bert/v6", "files/tokenizers/bert"],
            "vocab.txt",
        ),
        (
            "bert",
            &["tiny_bert/v6", "files/tokenizers/bert_accents"],
            "tokenizer_config.json",
        ),
        (
            "mpnet",
            &["architectures/mpnet", "files/tokenizers/mpnet"],
            "vocab.txt",
        ),
        (
            "roberta",
            &["architectures/roberta", "files/tokenizers/roberta"],
            "vocab.json",
        ),
        (
            "roberta",
            &["architectures/roberta", "files/tokenizers/roberta"],
            "merges.txt",
        ),
    ];
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let folders = FOLDERS.get_or_init(|| {
        let folders = CASES.map(|(_, fixtures, _)| {
            let folder = model_folder(fixtures, &[]);
            drop(fs::remove_file(folder.join("tokenizer.json")));
            folder
        });
        folders.into()
    });
    if let Some((choice, data)) = data.split_first() {
        let choice = usize::from(*choice) % CASES.len();
        use_with(&folders[choice], CASES[choice].2, data);
    }
}

/// `adapter_config.json` and `adapter_model.safetensors`: the first byte says which.
pub fn adapter(data: &[u8]) {
    static BASE: OnceLock<(Model, Vec<PathBuf>)> = OnceLock::new();
    let (model, folders) = BASE.get_or_init(|| {
        let model = Model::load(fixture("tiny_bert/v6"), &Default::default()).unwrap();
        let names = [
            "tiny_lora/bare",
            "tiny_lora/patterns",
            "peft_options/lokr_both",
            "peft_options/dora",
            "peft_options/modules_to_save",
            "peft_options/trainable_tokens",
            "peft_options/pissa",
            "peft_options/adalora",
        ];
        (model, names.map(|name| model_folder(&[name], &[])).into())
    });
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let folder = &folders[usize::from(*choice) % folders.len()];
    let file = match choice & 0x80 {
        0 => "adapter_config.json",
        _ => "adapter_model.safetensors",
    };
    let before = fs::read(folder.join(file)).unwrap();
    fs::write(folder.join(file), data).unwrap();
    let options = LoadAdapterOptions {
        hub: offline(),
        ..LoadAdapterOptions::default()
    };
    let mut model = model.clone();
    match model.load_adapter_with(folder, &options) {
        Ok(_) => drop(model.encode(&TEXTS)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    fs::write(folder.join(file), before).unwrap();
}

/// Text files of rows: the first byte says of which format.
pub fn rows(data: &[u8]) {
    const NAMES: [&str; 5] = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz"];
    if let Some((choice, data)) = data.split_first() {
        read(NAMES[usize::from(*choice) % NAMES.len()], data);
    }
}

/// Parquet.
pub fn parquet(data: &[u8]) {
    // The fuzzer ends the process at any panic; those of the parquet library become errors.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    read("a.parquet", data);
}

fn read(name: &str, data: &[u8]) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(folder).join(name);
    fs::write(&path, data).unwrap();
    match read_rows(&path, None, &[]) {
        Ok(rows) => {
            for row in rows.take(10_000) {
                drop(row);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
