use std::fmt::Write;

use serde_json::{Map, Value};

/// The fields of a card's front matter as YAML, as Python's dumper lays it out: what it reads
/// is what was written, whatever the strings hold.
pub(super) fn yaml(fields: &Map<String, Value>) -> String {
    let mut text = String::new();
    mapping(&mut text, fields, 0, "");
    text
}

/// Writes `fields`, the first after `lead`, which stands on the line already indented.
fn mapping(text: &mut String, fields: &Map<String, Value>, depth: usize, lead: &str) {
    for (place, (key, value)) in fields.iter().enumerate() {
        match place {
            0 => text.push_str(lead),
            _ => text.push_str(&" ".repeat(depth)),
        }
        if place == 0 && lead.is_empty() {
            text.push_str(&" ".repeat(depth));
        }
        let key = string(key);
        // Writing to a string cannot fail.
        let _ = match value {
            Value::Array(items) if !items.is_empty() => {
                let written = writeln!(text, "{key}:");
                sequence(text, items, depth);
                written
            }
            Value::Object(inner) if !inner.is_empty() => {
                let written = writeln!(text, "{key}:");
                mapping(text, inner, depth + 2, "");
                written
            }
            scalar => writeln!(text, "{key}: {}", plain(scalar)),
        };
    }
}

fn sequence(text: &mut String, items: &[Value], depth: usize) {
    let indent = " ".repeat(depth);
    for item in items {
        match item {
            Value::Object(fields) if !fields.is_empty() => {
                mapping(text, fields, depth + 2, &format!("{indent}- "));
            }
            // Lists in lists have no place in a card; JSON is YAML too.
            scalar => {
                let _ = writeln!(text, "{indent}- {}", plain(scalar));
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Number(number) => {
            let number = number.to_string();
            // Without point and sign it would be read as a string.
            match number.split_once('e') {
                Some((digits, exponent)) => {
                    let point = if digits.contains('.') { "" } else { ".0" };
                    let sign = if exponent.starts_with(['-', '+']) {
                        ""
                    } else {
                        "+"
                    };
                    format!("{digits}{point}e{sign}{exponent}")
                }
                None => number,
            }
        }
        other => other.to_string(),
    }
}

/// A string bare, where nothing else could be read from it; else in quotes, as JSON.
fn string(text: &str) -> String {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let inside = |c: char| c.is_ascii_alphanumeric() || " _-./@:".contains(c);
    let is_word = !["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    let is_split = text.contains(": ") || text.ends_with([':', ' ']);
    if starts_well && is_word && !is_split && text.chars().all(inside) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_laid_out_as_python_does() {
        let fields = json!({
            "language": ["en"],
            "widget": [{ "source_sentence": "is it?", "sentences": ["yes: it is", "plain"] }],
            "model-index": [{
                "name": "A model",
                "results": [{ "task": { "type": "retrieval" }, "metrics": [
                    { "type": "cosine_accuracy@1", "value": 0.5 },
                    { "type": "b", "value": 1e-7 },
                ] }],
            }],
        });
        let expected = r#"language:
- en
widget:
- source_sentence: "is it?"
  sentences:
  - "yes: it is"
  - plain
model-index:
- name: A model
  results:
  - task:
      type: retrieval
    metrics:
    - type: cosine_accuracy@1
      value: 0.5
    - type: b
      value: 1.0e-7
"#;
        assert_eq!(yaml(fields.as_object().unwrap()), expected);
    }

    #[test]
    fn strings_that_could_be_something_else_are_quoted() {
        for text in [
            "no",
            "1",
            "",
            "- a",
            "a: b",
            "#x",
            "a\nb",
            "'",
            "trailing ",
            "a:",
            "ä",
        ] {
            assert!(string(text).starts_with('"'), "{text}");
        }
        for text in [
            "en",
            "apache-2.0",
            "loss:CoSENTLoss",
            "owner/name",
            "two words",
        ] {
            assert_eq!(string(text), text);
        }
    }
}
