//! From text to a trained adapter, in two minutes on two cores, without a network.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! A small encoder of WordNet's glosses ships in this folder. The example scores it at
//! finding a word's gloss, trains a LoRA adapter on other words, scores it again, saves
//! the adapter and loads it back both ways.

use std::error::Error;
use std::path::Path;

use burn::backend::{Autodiff, NdArray};
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use sentence_burn::evaluation::InformationRetrievalEvaluator;
use sentence_burn::loss::MultipleNegativesRankingLossConfig;
use sentence_burn::training::{
    BatchSampler, Dataset, SaveStrategy, Trainer, TrainingArguments, TrainingEvent,
};
use sentence_burn::{LoadOptions, LoraConfig, ModelCardData, SentenceTransformer, TaskType};

type Cpu = NdArray;
type Training = Autodiff<Cpu>;

const SENTENCES: [&str; 3] = [
    "is toprol xl the same as metoprolol?",
    "Metoprolol succinate is also known by the brand name Toprol XL. It is the extended-release \
     form of metoprolol. Metoprolol succinate is approved to treat high blood pressure, chronic \
     chest pain, and congestive heart failure.",
    "Metoprolol starts to work after about 2 hours, but it can take up to 1 week to fully take \
     effect. You may not feel any different when you take metoprolol, but this doesn't mean it's \
     not working. It's important to keep taking your medicine",
];

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
    let (encoder, output) = (here.join("encoder"), Path::new("runs/quickstart"));
    let device = Default::default();

    // A model to fine-tune, with what its model card shall say.
    let options = LoadOptions {
        model_card_data: ModelCardData {
            language: Some("en".into()),
            license: Some("apache-2.0".into()),
            model_name: Some(
                "A WordNet encoder with an adapter for words and their glosses".into(),
            ),
            ..ModelCardData::default()
        },
        ..LoadOptions::default()
    };
    Training::seed(&device, 42);
    let mut model = SentenceTransformer::<Training>::load_with(&encoder, &options, &device)?;
    model.add_adapter(LoraConfig {
        task_type: Some(TaskType::FeatureExtraction),
        r: 64,
        lora_alpha: 128.0,
        lora_dropout: 0.1,
        ..LoraConfig::default()
    })?;
    // The adapter alone: a trained Dense module would not come along into the base below.
    model.set_modules_trainable(false);
    let counts = model.trainable_parameters();
    println!(
        "training {} of {} weights: {:.2} %",
        counts.trainable,
        counts.all,
        100.0 * counts.trainable as f64 / counts.all as f64
    );

    // Train it on words and their glosses, and score it on others before and after.
    let arguments = TrainingArguments {
        output_dir: output.into(),
        num_train_epochs: 2.0,
        per_device_train_batch_size: 64,
        learning_rate: 1e-3,
        warmup_ratio: 0.1,
        batch_sampler: BatchSampler::NoDuplicates,
        save_strategy: SaveStrategy::No,
        ..TrainingArguments::default()
    };
    let pairs = Dataset::from_jsonl(here.join("train.jsonl"))?;
    let loss = MultipleNegativesRankingLossConfig::default().init()?;
    let mut trainer = Trainer::new(model, arguments, pairs, loss).with_evaluator(
        InformationRetrievalEvaluator::from_folder(here.join("retrieval"))?,
    );
    if !trainer.has_dashboard() {
        trainer = trainer.with_listener(print_line);
    }
    let trained = trainer.train()?;
    if let [before, .., after] = trained.evaluations.as_slice() {
        for ((name, before), (_, after)) in before.metrics.iter().zip(after.metrics.iter()) {
            if name.ends_with("@10") && !name.contains("precision") {
                println!("{name}: {before:.4} before, {after:.4} after");
            }
        }
    }

    // Save the adapter, and load it back both ways.
    let adapter = output.join("adapter");
    trained.model.save(&adapter)?;
    println!("saved {}", adapter.display());
    let direct = SentenceTransformer::<Cpu>::load(&adapter, &device)?;
    let mut base = SentenceTransformer::<Cpu>::load(&encoder, &device)?;
    base.load_adapter(&adapter)?;
    let embeddings = direct.encode(&SENTENCES)?;
    for (how, other) in [
        (
            "the base with the adapter loaded into it",
            base.encode(&SENTENCES)?,
        ),
        (
            "the model that was trained",
            trained.model.valid().encode(&SENTENCES)?,
        ),
    ] {
        let difference: f32 = (embeddings.clone() - other).abs().max().into_scalar();
        println!("the adapter's folder and {how} differ by {difference:e}");
    }

    // The seed document's similarities.
    let [_, dim] = embeddings.dims();
    println!("embeddings: {:?}", embeddings.dims());
    let query = embeddings.clone().slice([0..1, 0..dim]);
    let similarities = base.similarity(query, embeddings.slice([1..3, 0..dim]))?;
    println!("similarities: {}", similarities.into_data());
    Ok(())
}

/// What the dashboard shows, for where stdout is no terminal.
fn print_line(event: TrainingEvent<'_>) {
    if let TrainingEvent::Step {
        record,
        total_steps,
    } = event
        && (record.step == 1 || record.step % 10 == 0)
    {
        println!(
            "step {}/{total_steps}  loss {:.4}  {:.0} pairs/s",
            record.step, record.loss, record.pairs_per_second
        );
    }
}
