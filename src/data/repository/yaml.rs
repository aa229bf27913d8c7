//! YAML that is nested and grown no further than its text explains.

use std::collections::HashMap;

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::{Yaml, YamlLoader};

/// The most lists and mappings within each other: the library reads them by recursion.
const MOST_DEPTH: usize = 64;

/// How much a text may become beyond its own length where it repeats parts of itself.
const MOST_REPEATED: usize = 1 << 20;

/// Reads a text's documents.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn load(text: &str) -> Result<Vec<Yaml>, String> {
    check(text)?;
    YamlLoader::load_from_str(text).map_err(|error| error.to_string())
}

/// Adds up how large a text becomes, without making it so.
fn check(text: &str) -> Result<(), String> {
    let most = text.len().saturating_add(MOST_REPEATED);
    let mut parser = Parser::new_from_str(text);
    let mut total: usize = 0;
    // What each part that has a name becomes.
    let mut named: HashMap<usize, usize> = HashMap::new();
    // The names of those that are open, and what was before them.
    let mut open: Vec<(usize, usize)> = Vec::new();
    loop {
        let (event, mark) = parser.next_token().map_err(|error| error.to_string())?;
        let line = mark.line();
        match event {
            Event::StreamEnd => return Ok(()),
            Event::SequenceStart(name, _) | Event::MappingStart(name, _) => {
                open.push((name, total));
                total = total.saturating_add(1);
                if open.len() > MOST_DEPTH {
                    return Err(format!(
                        "line {line}: more than {MOST_DEPTH} lists in lists"
                    ));
                }
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((name, before)) = open.pop() {
                    named.insert(name, total - before);
                }
            }
            Event::Scalar(text, _, name, _) => {
                let size = text.len().saturating_add(1);
                total = total.saturating_add(size);
                named.insert(name, size);
            }
            Event::Alias(name) => {
                total = total.saturating_add(named.get(&name).copied().unwrap_or(1));
            }
            _ => {}
        }
        if total > most {
            return Err(format!(
                "line {line}: it repeats itself into {total} values"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_itself_a_little_is_read() {
        let documents = load("a: &a [1, 2]\nb: *a\nc: {d: *a}\n").unwrap();
        assert_eq!(documents[0]["c"]["d"], documents[0]["a"]);
        assert_eq!(documents[0]["a"].as_vec().map(Vec::len), Some(2));
    }

    #[test]
    fn what_swells_or_nests_without_measure_is_refused() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let below = format!("*a{}, ", level - 1).repeat(8);
            laughs += &format!("a{level}: &a{level} [{below}]\n");
        }
        assert!(load(&laughs).unwrap_err().contains("repeats itself"));
        let long = format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(10_000),
            "*a, ".repeat(10_000)
        );
        assert!(load(&long).unwrap_err().contains("repeats itself"));
        for part in ["[", "{a: ", "- "] {
            let error = load(&part.repeat(MOST_DEPTH + 1)).unwrap_err();
            assert!(error.contains("lists in lists"), "{error}");
            // The library itself may see it first.
            load(&part.repeat(100_000)).unwrap_err();
        }
        let deep = "[".repeat(MOST_DEPTH) + &"]".repeat(MOST_DEPTH);
        load(&deep).unwrap();
    }
}
