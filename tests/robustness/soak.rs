//! Hours of use in a loop: memory stays what it was.

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use sentence_burn::LoadAdapterOptions;

use crate::memory::live;
use crate::{alone, base, copy_of, fixture, load, values};

/// How many rounds are run, and for how many seconds more.
const ROUNDS: &str = "SENTENCE_BURN_SOAK_ROUNDS";
const SECONDS: &str = "SENTENCE_BURN_SOAK_SECONDS";

/// Rounds until all tables and pools are as large as they get.
const WARM_UP: usize = 20;

/// What may be in use more at the end, whatever the number of rounds.
const GROWTH: usize = 256 << 10;

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn memory_is_bounded_however_long_a_program_runs() {
    let _alone = alone();
    let rounds = variable(ROUNDS).map_or(200, |rounds| rounds as usize);
    let seconds = Duration::from_secs(variable(SECONDS).unwrap_or(0));
    let saved = tempfile::tempdir().unwrap();
    let broken = copy_of("tiny_bert/v6");
    let weights = broken.path().join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();

    let mut model = base();
    let expected = values(&model, &["the quick brown fox"]);
    let begin = Instant::now();
    let mut warm = 0;
    let mut round = 0;
    while round < WARM_UP + rounds || begin.elapsed() < seconds {
        if round == WARM_UP {
            warm = live();
        }
        // A server that swaps adapters, merges them, saves now and then, and meets what is
        // broken.
        for name in ["bare", "rslora"] {
            let options = LoadAdapterOptions {
                name: name.to_owned(),
                ..LoadAdapterOptions::default()
            };
            let folder = fixture("tiny_lora").join(name);
            model.load_adapter_with(folder, &options).unwrap();
        }
        values(&model, &["the quick brown fox", "", "a lazy dog"]);
        model.set_adapter(&["bare", "rslora"]).unwrap();
        model.merge_adapter().unwrap();
        values(&model, &["the lazy dog"]);
        model.unmerge_adapter().unwrap();
        model.set_adapter(&["bare"]).unwrap();
        if round % 10 == 0 {
            model.save_adapter(saved.path().join("adapter")).unwrap();
            let other = load(&fixture("tiny_bert/dense")).unwrap();
            other.save(saved.path().join("model")).unwrap();
            values(&load(&saved.path().join("model")).unwrap(), &["the dog"]);
        }
        assert!(load(broken.path()).is_err());
        assert!(model.load_adapter(broken.path()).is_err());
        model.delete_adapter(&["bare", "rslora"]).unwrap();
        assert_eq!(values(&model, &["the quick brown fox"]), expected);
        round += 1;
    }
    let end = live();
    println!(
        "{round} rounds in {:?}: {} bytes in use after {WARM_UP}, {} at the end",
        begin.elapsed(),
        warm,
        end
    );
    assert!(
        end < warm + GROWTH,
        "{warm} bytes grew to {end} in {rounds} rounds"
    );
}
