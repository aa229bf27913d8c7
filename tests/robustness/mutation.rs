//! Files as an attacker, a broken disk or a careless program leaves them.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// A changed file, and what was changed.
pub(crate) type Mutant = (String, Vec<u8>);

pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// What stands in for a value while the rest is written.
const MARK: &str = "\"@mark@\"";

/// What a JSON value is replaced by.
fn replacements() -> Vec<String> {
    let mut all: Vec<String> = [
        "null",
        "true",
        "false",
        "-1",
        "0",
        "1",
        "3",
        "1000003",
        "16777216",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "18446744073709551615",
        "0.5",
        "-0.0",
        "1e-320",
        "1e300",
        "-1e300",
        "1e999",
        "\"\"",
        "\"x\"",
        "\"../../../etc\"",
        "\"/etc\"",
        "\"a\\u0000b\"",
        "\"\\ud800\"",
        "\"(((\"",
        "\"(a*)*$\"",
        "[]",
        "{}",
        "[null]",
        "[1, \"x\", {}]",
        "{\"type\": \"x\"}",
    ]
    .map(str::to_owned)
    .into();
    all.push(format!("{}1{}", "[".repeat(100), "]".repeat(100)));
    all.push(format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100)));
    all.push(format!("\"{}\"", "a".repeat(100_000)));
    all.push(format!("[{}0]", "0,".repeat(10_000)));
    all
}

/// The places of all values, outer ones first.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn remove(value: &mut Value, place: &str) -> bool {
    let Some((parent, last)) = place.rsplit_once('/') else {
        return false;
    };
    match value.pointer_mut(parent) {
        Some(Value::Object(fields)) => {
            let key = last.replace("~1", "/").replace("~0", "~");
            fields.shift_remove(&key).is_some()
        }
        Some(Value::Array(items)) => {
            items.remove(last.parse().unwrap());
            true
        }
        _ => false,
    }
}

/// Changes of a JSON file's values, of which `most` are drawn if there are more.
pub(crate) fn json(bytes: &[u8], most: usize, rng: &mut StdRng) -> Vec<Mutant> {
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let mut all = Vec::new();
    places(&value, "", &mut all);
    let replacements = replacements();
    let mut changes: Vec<(&str, usize)> = all
        .iter()
        .flat_map(|place| (0..replacements.len() + 2).map(move |change| (place.as_str(), change)))
        .collect();
    changes.shuffle(rng);
    changes.truncate(most);
    let mut mutants = Vec::new();
    for (place, change) in changes {
        let mut changed = value.clone();
        let (what, text) = match replacements.get(change) {
            Some(replacement) => {
                *changed.pointer_mut(place).unwrap() = Value::String("@mark@".to_owned());
                let end = replacement.len().min(40);
                let what = format!("{place} = {}", &replacement[..end]);
                (what, changed.to_string().replacen(MARK, replacement, 1))
            }
            None if change == replacements.len() => match remove(&mut changed, place) {
                true => (format!("{place} removed"), changed.to_string()),
                false => continue,
            },
            None => {
                let other = all.choose(rng).unwrap();
                let copied = value.pointer(other).unwrap().clone();
                *changed.pointer_mut(place).unwrap() = copied;
                (format!("{place} = {other}"), changed.to_string())
            }
        };
        mutants.push((what, text.into_bytes()));
    }
    mutants
}

/// Files that are no JSON, or just so.
pub(crate) fn broken_json(bytes: &[u8]) -> Vec<Mutant> {
    let deep = |open: &str, count: usize| open.repeat(count).into_bytes();
    let mut mutants = vec![
        ("empty".to_owned(), Vec::new()),
        ("deep arrays".to_owned(), deep("[", 200_000)),
        ("deep objects".to_owned(), deep("{\"a\":", 200_000)),
        ("nulls".to_owned(), vec![0; 1000]),
        ("no UTF-8".to_owned(), b"{\"a\": \"\xff\xfe\"}".to_vec()),
        (
            "a mark in front".to_owned(),
            [&b"\xef\xbb\xbf"[..], bytes].concat(),
        ),
        ("twice".to_owned(), [bytes, bytes].concat()),
        ("NaN".to_owned(), b"{\"a\": NaN}".to_vec()),
    ];
    let utf16: Vec<u8> = String::from_utf8_lossy(bytes)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    mutants.push(("UTF-16".to_owned(), utf16));
    for part in 1..8 {
        let end = bytes.len() * part / 8;
        mutants.push((format!("cut at {end}"), bytes[..end].to_vec()));
    }
    mutants
}

/// What numbers of eight bytes are overwritten with.
const NUMBERS: [u64; 8] = [
    0,
    1,
    0xff,
    0xffff_ffff,
    1 << 31,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// Changes of a file's bytes: of single ones, of numbers, of parts; most near its ends, where
/// formats keep what they are about.
pub(crate) fn bytes(bytes: &[u8], count: usize, rng: &mut StdRng) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for _ in 0..count {
        if bytes.is_empty() {
            break;
        }
        let reach = bytes.len().min(1024);
        let place = match rng.random_range(0..3) {
            0 => rng.random_range(0..reach),
            1 => bytes.len() - 1 - rng.random_range(0..reach),
            _ => rng.random_range(0..bytes.len()),
        };
        let mut changed = bytes.to_vec();
        let what = match rng.random_range(0..7) {
            0 => {
                changed[place] ^= 1 << rng.random_range(0..8);
                "bit"
            }
            1 => {
                changed[place] = rng.random();
                "byte"
            }
            2 => {
                changed.truncate(place);
                "cut"
            }
            3 => {
                let number = NUMBERS.choose(rng).unwrap().to_le_bytes();
                let size = *[1, 2, 4, 8].choose(rng).unwrap();
                let end = bytes.len().min(place + size);
                changed[place..end].copy_from_slice(&number[..end - place]);
                "number"
            }
            4 => {
                let end = bytes.len().min(place + rng.random_range(1..64));
                changed.drain(place..end);
                "hole"
            }
            5 => {
                let end = bytes.len().min(place + rng.random_range(1..64));
                changed.splice(place..place, bytes[place..end].to_vec());
                "twice"
            }
            _ => {
                for _ in 0..rng.random_range(2..32) {
                    let place = rng.random_range(0..changed.len());
                    changed[place] = rng.random();
                }
                "many bytes"
            }
        };
        mutants.push((format!("{what} at {place}"), changed));
    }
    mutants
}

/// Changes of what a safetensors file says about its tensors, behind the right length.
pub(crate) fn safetensors(bytes: &[u8], most: usize, rng: &mut StdRng) -> Vec<Mutant> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(length);
    let mutants = json(header, most, rng).into_iter();
    let with_length = mutants.map(|(what, header)| {
        let length = (header.len() as u64).to_le_bytes();
        (what, [&length[..], &header, data].concat())
    });
    with_length.collect()
}
