use serde_json::{Map, Value};

use super::options::DatasetOptions;

/// The names a label goes by, first one first.
pub(super) const LABEL_NAMES: [&str; 4] = ["label", "labels", "score", "scores"];

/// A sample: its texts in the columns' order, and its label where the data has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The texts.
    pub texts: Vec<String>,
    /// The label, a number or several.
    pub label: Option<Vec<f32>>,
}

/// What the first row says about the rows of a data set: which columns are texts, and which
/// one is the label.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Columns {
    /// The text columns' names in the files.
    keys: Vec<String>,
    /// What they are called.
    names: Vec<String>,
    /// The label's name in the files.
    label: Option<String>,
    label_width: Option<usize>,
    /// Whether the rows may have other columns.
    selected: bool,
}

impl Columns {
    /// Reads the first row.
    pub(super) fn of(row: &Map<String, Value>, options: &DatasetOptions) -> Result<Self, String> {
        let selected = !options.columns.is_empty();
        let keys: Vec<&String> = match selected {
            true => options.columns.iter().collect(),
            false => row.keys().collect(),
        };
        let known = |key: &&String| row.contains_key(*key);
        if let Some(key) = keys
            .iter()
            .chain(&options.rename.keys().collect::<Vec<_>>())
            .find(|key| !known(key))
        {
            let columns: Vec<&String> = row.keys().collect();
            return Err(format!("no column `{key}`, the columns are {columns:?}"));
        }
        let name = |key: &String| options.rename.get(key).unwrap_or(key).clone();
        let named: Vec<(String, String)> =
            keys.iter().map(|key| ((*key).clone(), name(key))).collect();
        let label = LABEL_NAMES
            .iter()
            .find_map(|label| named.iter().find(|(_, name)| name == label))
            .map(|(key, _)| key.clone());
        let texts = named
            .into_iter()
            .filter(|(key, _)| Some(key) != label.as_ref());
        let (keys, names): (Vec<String>, Vec<String>) = texts.unzip();
        if keys.is_empty() {
            return Err("no text column".to_owned());
        }
        Ok(Self {
            keys,
            names,
            label,
            label_width: None,
            selected,
        })
    }

    /// The text columns' names, in order.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Reads a row; the first one settles how many numbers a label has.
    pub(super) fn read(&mut self, mut row: Map<String, Value>) -> Result<Sample, String> {
        let mut texts = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            match row.shift_remove(key) {
                Some(Value::String(text)) => texts.push(text),
                Some(other) => {
                    return Err(format!(
                        "`{key}` is {}, expected a text; choose columns to leave it out",
                        shortened(&other)
                    ));
                }
                None => return Err(format!("`{key}` is missing")),
            }
        }
        let label = match &self.label {
            Some(key) => Some(read_label(key, row.shift_remove(key))?),
            None => None,
        };
        if let Some(key) = row.keys().next()
            && !self.selected
        {
            return Err(format!("`{key}` is not a key of the first line"));
        }
        if let Some(label) = &label {
            let width = *self.label_width.get_or_insert(label.len());
            if label.len() != width {
                return Err(format!(
                    "the label has {} numbers, expected {width}",
                    label.len()
                ));
            }
        }
        Ok(Sample { texts, label })
    }
}

/// A value as an error shows it.
fn shortened(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn read_label(name: &str, value: Option<Value>) -> Result<Vec<f32>, String> {
    let Some(value) = value else {
        return Err(format!("`{name}` is missing"));
    };
    let label = match &value {
        Value::Array(values) => values.iter().map(number).collect(),
        // A list of numbers in a csv file.
        Value::String(text) if text.trim_start().starts_with('[') => {
            serde_json::from_str(text).ok()
        }
        value => number(value).map(|number| vec![number]),
    };
    match label {
        Some(label) if !label.is_empty() => Ok(label),
        _ => Err(format!(
            "`{name}` is {}, expected a number or a list of numbers",
            shortened(&value)
        )),
    }
}

/// A number, or one that a csv file has as a text.
fn number(value: &Value) -> Option<f32> {
    match value {
        Value::Bool(flag) => Some(f32::from(u8::from(*flag))),
        Value::String(text) => text
            .trim()
            .parse()
            .ok()
            .filter(|number: &f32| number.is_finite()),
        value => value.as_f64().map(|number| number as f32),
    }
}
