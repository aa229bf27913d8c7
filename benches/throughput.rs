//! How fast whole jobs are: encoding, one text, and training an adapter.
//!
//! Prints a line of JSON for each figure, the best of several runs after a warm-up.
//! `benches/compare.py` runs this beside what one would use instead.
//!
//! ```text
//! cargo bench --bench throughput -- encode --model MODEL texts-short.txt texts-long.txt
//! cargo bench --bench throughput -- latency --model MODEL
//! cargo bench --bench throughput -- train --model MODEL pairs.jsonl
//! cargo bench --bench throughput -- load --model MODEL
//! cargo bench --bench throughput -- adapters --model MODEL texts-mixed.txt
//! cargo bench --bench throughput -- product
//! ```

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::backend::{Autodiff, NdArray};
use burn::tensor::{Distribution, Tensor};
use clap::Parser;
use sentence_burn::adapter::InitLoraWeights;
use sentence_burn::kernel::{Activation, LinearParams, Mode, PackedWeight, linear};
use sentence_burn::loss::{CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig};
use sentence_burn::training::{BatchSampler, Dataset, TrainableLoss, Trainer, TrainingArguments};
use sentence_burn::{AdapterChoice, EncodeOptions, LoraConfig, SentenceTransformer};
use serde_json::{Value, json};

/// Times whole jobs.
#[derive(Parser)]
struct Args {
    /// What to time: encode, latency, train, load, adapters or product.
    what: String,
    /// A model folder.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The times to run each.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Texts, one a line, or pairs for training.
    files: Vec<PathBuf>,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args = Args::parse();
    match args.what.as_str() {
        "encode" => encode(&args),
        "latency" => latency(&args),
        "train" => train(&args),
        "load" => load(&args),
        "adapters" => adapters(&args),
        "product" => product(&args),
        other => Err(format!("no such bench: {other}").into()),
    }
}

impl Args {
    fn model(&self) -> Result<&Path> {
        Ok(self.model.as_deref().ok_or("--model is missing")?)
    }
}

/// The least of several times, after a warm-up.
fn best(runs: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let started = Instant::now();
        run()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn report(figures: Value) {
    println!("{figures}");
}

fn encode(args: &Args) -> Result<()> {
    let model = SentenceTransformer::<NdArray>::load(args.model()?, &Default::default())?;
    for file in &args.files {
        let content = fs::read_to_string(file)?;
        let texts: Vec<&str> = content.lines().collect();
        let tokens = Arc::new(Mutex::new(0));
        let counted = tokens.clone();
        let options = EncodeOptions {
            progress: Some(Arc::new(move |progress| {
                if let Ok(mut tokens) = counted.lock() {
                    *tokens = progress.total_tokens;
                }
            })),
            ..EncodeOptions::default()
        };
        let seconds = best(args.runs, || {
            model.encode_with(&texts, &options)?.into_data();
            Ok(())
        })?;
        let tokens = tokens.lock().map_or(0, |tokens| *tokens);
        report(json!({
            "engine": "sentence-burn",
            "mix": file.file_stem().and_then(|s| s.to_str()).map(|s| s.trim_start_matches("texts-")),
            "texts_per_s": round(texts.len() as f64 / seconds, 1),
            "tokens_per_s": round(tokens as f64 / seconds, 0),
        }));
    }
    Ok(())
}

fn latency(args: &Args) -> Result<()> {
    let model = SentenceTransformer::<NdArray>::load(args.model()?, &Default::default())?;
    let seconds = best(50, || {
        model
            .encode_one("what is the capital of france and germany?")?
            .into_data();
        Ok(())
    })?;
    report(json!({ "engine": "sentence-burn", "one_text_ms": round(seconds * 1e3, 2) }));
    Ok(())
}

fn load(args: &Args) -> Result<()> {
    let seconds = best(args.runs, || {
        SentenceTransformer::<NdArray>::load(args.model()?, &Default::default())?;
        Ok(())
    })?;
    report(json!({ "engine": "sentence-burn", "load_s": round(seconds, 3) }));
    Ok(())
}

/// 256 texts, each through one of eight adapters in one call, beside the same through one
/// adapter and through none.
fn adapters(args: &Args) -> Result<()> {
    const ADAPTERS: usize = 8;
    let mut model = SentenceTransformer::<NdArray>::load(args.model()?, &Default::default())?;
    let name = |place: usize| format!("adapter-{}", place % ADAPTERS);
    for place in 0..ADAPTERS {
        let config = LoraConfig {
            r: 16,
            lora_alpha: 32.0,
            init_lora_weights: InitLoraWeights::Flag(false),
            ..LoraConfig::default()
        };
        model.add_named_adapter(&name(place), config)?;
    }
    let file = args.files.first().ok_or("the texts are missing")?;
    let content = fs::read_to_string(file)?;
    let texts: Vec<&str> = content.lines().cycle().take(256).collect();
    let choices = [
        AdapterChoice::all::<String>([]),
        AdapterChoice::all([name(0)]),
        AdapterChoice::by_text((0..texts.len()).map(name)),
    ];
    let options = choices.map(|choice| EncodeOptions {
        adapters: Some(choice),
        ..EncodeOptions::default()
    });
    let mut seconds = [f64::INFINITY; 3];
    // Taking turns, so that all three see the same machine.
    for _ in 0..args.runs {
        for (seconds, options) in seconds.iter_mut().zip(&options) {
            let run = || {
                model.encode_with(&texts, options)?.into_data();
                Ok(())
            };
            *seconds = seconds.min(best(1, run)?);
        }
    }
    let [none, one, eight] = seconds;
    report(json!({
        "engine": "sentence-burn",
        "texts": texts.len(),
        "no_adapter_s": round(none, 3),
        "one_adapter_s": round(one, 3),
        "eight_adapters_s": round(eight, 3),
        "eight_to_one": round(eight / one, 3),
    }));
    Ok(())
}

fn train(args: &Args) -> Result<()> {
    let loss = MultipleNegativesRankingLossConfig::default().init()?;
    train_with(args, "mnrl", 32, loss.clone())?;
    let cached = CachedMultipleNegativesRankingLoss::<Autodiff<NdArray>>::new(loss, 32)?;
    train_with(args, "cached-mnrl", 128, cached)
}

fn train_with<L>(args: &Args, name: &str, batch_size: usize, loss: L) -> Result<()>
where
    L: TrainableLoss<Autodiff<NdArray>> + Clone,
{
    let file = args.files.first().ok_or("the pairs are missing")?;
    let dataset = Dataset::from_jsonl(file)?;
    let mut fastest = 0f64;
    for run in 0..=args.runs.saturating_sub(2).max(1) {
        let mut model =
            SentenceTransformer::<Autodiff<NdArray>>::load(args.model()?, &Default::default())?;
        model.add_adapter(LoraConfig {
            r: 64,
            lora_alpha: 128.0,
            lora_dropout: 0.1,
            ..LoraConfig::default()
        })?;
        let output = std::env::temp_dir().join(format!("throughput-{}", std::process::id()));
        let arguments = TrainingArguments {
            output_dir: output.clone(),
            per_device_train_batch_size: batch_size,
            num_train_epochs: 1.0,
            batch_sampler: BatchSampler::Sequential,
            ..TrainingArguments::default()
        };
        let trained = Trainer::new(model, arguments, dataset.clone(), loss.clone())
            .with_dashboard(false)
            .train()?;
        fs::remove_dir_all(output)?;
        // The first is the warm-up.
        if run > 0 {
            fastest = fastest.max(trained.samples as f64 / trained.duration.as_secs_f64());
        }
    }
    report(json!({
        "engine": "sentence-burn",
        "loss": name,
        "batch": batch_size,
        "pairs_per_s": round(fastest, 2),
        "peak_rss_mb": peak_memory(),
    }));
    Ok(())
}

/// The machine's own peak: the largest rate of a plain matrix product, from Burn's NdArray
/// and from ours, over shapes of a small and a base-sized encoder.
fn product(args: &Args) -> Result<()> {
    let shapes: [(usize, usize, usize); 5] = [
        (2048, 384, 384),
        (2048, 384, 1536),
        (2048, 1536, 384),
        (2048, 768, 3072),
        (2048, 2048, 2048),
    ];
    for (rows, d_input, d_output) in shapes {
        let device = Default::default();
        let random = |shape| Tensor::<NdArray, 2>::random(shape, Distribution::Default, &device);
        let (input, weight) = (random([rows, d_input]), random([d_output, d_input]));
        let packed = PackedWeight::default();
        let work = 2.0 * (rows * d_input * d_output) as f64;
        let ours = best(args.runs * 5, || {
            let params = LinearParams {
                weight: weight.clone(),
                bias: None,
                packed: &packed,
            };
            linear(
                input.clone(),
                params,
                Vec::new(),
                Activation::Identity,
                Mode::Inference,
            );
            Ok(())
        })?;
        let burn = best(args.runs, || {
            input.clone().matmul(weight.clone().transpose());
            Ok(())
        })?;
        report(json!({
            "shape": [rows, d_input, d_output],
            "gflop_per_s": round(work / ours / 1e9, 1),
            "burn_gflop_per_s": round(work / burn / 1e9, 1),
        }));
    }
    Ok(())
}

/// The most memory that this process has had, in MB, where the system says so.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024)
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
