//! WordNet's data files (`man 5 wndb`).

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::Path;

/// A word and what it means.
pub(crate) struct Synset {
    pub(crate) lemma: String,
    pub(crate) gloss: String,
}

/// Reads every synset's first word and definition, each word and each definition once.
pub(crate) fn read(folder: &Path) -> Result<Vec<Synset>, Box<dyn Error>> {
    let (mut lemmas, mut glosses) = (HashSet::new(), HashSet::new());
    let mut synsets = Vec::new();
    for part in ["noun", "verb", "adj", "adv"] {
        let path = folder.join(format!("data.{part}"));
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        // The licence stands in front, indented.
        for line in text.lines().filter(|line| !line.starts_with("  ")) {
            let Some(synset) = parse(line) else { continue };
            if lemmas.insert(synset.lemma.to_lowercase()) && glosses.insert(synset.gloss.clone()) {
                synsets.push(synset);
            }
        }
    }
    Ok(synsets)
}

/// `offset lex_filenum ss_type w_cnt word lex_id … | definition; "example"`
fn parse(line: &str) -> Option<Synset> {
    let (fields, gloss) = line.split_once(" | ")?;
    let word = fields.split(' ').nth(4)?;
    // Adjectives carry their position: `afloat(p)`.
    let word = word.split('(').next()?;
    let definition = gloss.split("; \"").next()?.trim();
    let enough = definition.split(' ').count() >= 4;
    enough.then(|| Synset {
        lemma: word.replace('_', " "),
        gloss: definition.to_owned(),
    })
}
