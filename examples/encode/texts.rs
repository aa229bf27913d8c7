//! Files of texts.

use std::error::Error;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// A text, and the adapter it is to go through, if it names one.
#[derive(Deserialize)]
pub(crate) struct Line {
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) adapter: Option<String>,
}

/// Reads `.txt` with a text a line, or `.jsonl` with `{"text": …}` or
/// `{"text": …, "adapter": …}` a line.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, Box<dyn Error>> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = fs::read(path).map_err(|e| named(&e))?;
    let content = std::str::from_utf8(&bytes)
        .map_err(|e| named(&format!("not UTF-8 at byte {}", e.valid_up_to())))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("txt") => {
            let line = |text: &str| Line {
                text: text.to_owned(),
                adapter: None,
            };
            Ok(content.lines().map(line).collect())
        }
        Some("jsonl") => {
            let lines = content.lines().enumerate();
            let lines = lines.filter(|(_, line)| !line.trim().is_empty());
            lines
                .map(|(index, line)| {
                    serde_json::from_str(line)
                        .map_err(|e| format!("{}:{}: {e}", path.display(), index + 1).into())
                })
                .collect()
        }
        _ => Err(named(&"expected .txt or .jsonl").into()),
    }
}
