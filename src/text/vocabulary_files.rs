use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::special_tokens::{AddedToken, SpecialTokens};

/// A vocabulary that lies in files of its own, as folders without a `tokenizer.json` have it.
#[derive(Debug, Clone, Copy)]
pub enum Vocabulary<'a> {
    /// `vocab.txt`: a piece of a word a line.
    WordPiece {
        /// The file's text.
        vocab: &'a str,
        /// Whether the special tokens are MPNet's, `<s>` and `</s>`, instead of BERT's.
        is_mpnet: bool,
    },
    /// `vocab.json` and `merges.txt`: pairs of byte sequences, as RoBERTa has them.
    ByteLevel {
        /// The ids by their byte sequences.
        vocab: &'a Map<String, Value>,
        /// The pairs, one a line.
        merges: &'a str,
    },
}

/// The other files of a tokenizer, as fields; empty where there is no such file.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFields {
    /// `tokenizer_config.json`.
    pub config: Map<String, Value>,
    /// `special_tokens_map.json`.
    pub special_tokens: Map<String, Value>,
    /// `added_tokens.json`.
    pub added_tokens: Map<String, Value>,
}

const BERT_TOKENS: &[(&str, &str)] = &[
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

const MPNET_TOKENS: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "[UNK]"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];

const ROBERTA_TOKENS: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];

/// The `tokenizer.json` that says the same as a tokenizer's several files, as
/// `BertTokenizer`, `MPNetTokenizer` and `RobertaTokenizer` of `transformers` put them
/// together; else what is wrong with them.
///
/// # Errors
/// A vocabulary that lacks a token that stands around each text, or has no ids.
pub fn tokenizer_json(
    vocabulary: Vocabulary<'_>,
    fields: &TokenizerFields,
) -> Result<String, String> {
    let defaults = match vocabulary {
        Vocabulary::WordPiece {
            is_mpnet: false, ..
        } => BERT_TOKENS,
        Vocabulary::WordPiece { is_mpnet: true, .. } => MPNET_TOKENS,
        Vocabulary::ByteLevel { .. } => ROBERTA_TOKENS,
    };
    let is_mpnet = matches!(vocabulary, Vocabulary::WordPiece { is_mpnet: true, .. });
    let tokens = SpecialTokens::read(
        &fields.config,
        &fields.special_tokens,
        &fields.added_tokens,
        defaults,
        is_mpnet,
    );
    let ids = match vocabulary {
        Vocabulary::WordPiece { vocab, .. } => word_pieces(vocab),
        Vocabulary::ByteLevel { vocab, .. } => byte_sequences(vocab)?,
    };
    let added = tokens.with_ids(ids.len(), |token| ids.get(token).copied());
    let around = |name: &str| -> Result<(String, u32), String> {
        let token = tokens
            .get(name)
            .ok_or_else(|| format!("there is no {name}"))?;
        let found = added.iter().find(|added| added.content == token);
        let id = found.map(|added| added.id);
        Ok((
            token.to_owned(),
            id.ok_or_else(|| format!("{name} `{token}` has no id"))?,
        ))
    };
    let (cls, sep) = (around("cls_token")?, around("sep_token")?);
    let flag = |name: &str, default| {
        fields
            .config
            .get(name)
            .and_then(Value::as_bool)
            .unwrap_or(default)
    };
    let json = match vocabulary {
        Vocabulary::WordPiece { .. } => json!({
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": flag("tokenize_chinese_chars", true),
                "strip_accents": fields.config.get("strip_accents").and_then(Value::as_bool),
                "lowercase": flag("do_lower_case", true),
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": match is_mpnet {
                true => roberta_processing(&cls, &sep, true, false),
                false => bert_processing(&cls, &sep),
            },
            "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
            "model": {
                "type": "WordPiece",
                "unk_token": tokens.get("unk_token").unwrap_or("[UNK]"),
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": ids,
            },
        }),
        Vocabulary::ByteLevel { merges, .. } => {
            let (space, trim) = (flag("add_prefix_space", false), flag("trim_offsets", true));
            let byte_level = |space: bool, trim: bool| {
                json!({
                    "type": "ByteLevel", "add_prefix_space": space, "trim_offsets": trim,
                    "use_regex": true,
                })
            };
            json!({
                "normalizer": null,
                "pre_tokenizer": byte_level(space, true),
                "post_processor": roberta_processing(&cls, &sep, trim, space),
                "decoder": byte_level(true, true),
                "model": {
                    "type": "BPE",
                    "dropout": null,
                    "unk_token": null,
                    "continuing_subword_prefix": "",
                    "end_of_word_suffix": "",
                    "fuse_unk": false,
                    "vocab": ids,
                    "merges": pairs(merges)?,
                },
            })
        }
    };
    Ok(with_tokens(json, &added).to_string())
}

fn with_tokens(mut json: Value, added: &[AddedToken]) -> Value {
    json["version"] = json!("1.0");
    json["added_tokens"] = json!(added);
    json
}

/// The pieces of a `vocab.txt` by their lines' numbers; of one that is there twice, the last
/// counts.
fn word_pieces(vocab: &str) -> HashMap<String, u32> {
    let lines = vocab.lines().zip(0..);
    lines
        .map(|(line, id)| (line.trim_end().to_owned(), id))
        .collect()
}

fn byte_sequences(vocab: &Map<String, Value>) -> Result<HashMap<String, u32>, String> {
    let entries = vocab.iter().map(|(text, id)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| format!("vocab.json: `{text}` has no id"))?;
        Ok((text.clone(), id))
    });
    entries.collect()
}

/// The pairs of a `merges.txt`, whose first line may say its version.
fn pairs(merges: &str) -> Result<Vec<[&str; 2]>, String> {
    let lines = merges
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.starts_with("#version"));
    let pairs = lines.map(
        |(line, number)| match line.split(' ').collect::<Vec<_>>()[..] {
            [first, second] => Ok([first, second]),
            _ => Err(format!("merges.txt:{number}: no pair: `{line}`")),
        },
    );
    pairs.collect()
}

fn bert_processing(cls: &(String, u32), sep: &(String, u32)) -> Value {
    let special = |(token, _): &(String, u32), type_id: u32| json!({ "SpecialToken": { "id": token, "type_id": type_id } });
    let sequence = |id: &str, type_id: u32| json!({ "Sequence": { "id": id, "type_id": type_id } });
    let entry =
        |(token, id): &(String, u32)| json!({ "id": token, "ids": [id], "tokens": [token] });
    let mut special_tokens = Map::new();
    for token in [cls, sep] {
        special_tokens.insert(token.0.clone(), entry(token));
    }
    json!({
        "type": "TemplateProcessing",
        "single": [special(cls, 0), sequence("A", 0), special(sep, 0)],
        "pair": [
            special(cls, 0), sequence("A", 0), special(sep, 0), sequence("B", 1), special(sep, 1),
        ],
        "special_tokens": special_tokens,
    })
}

fn roberta_processing(
    cls: &(String, u32),
    sep: &(String, u32),
    trim_offsets: bool,
    add_prefix_space: bool,
) -> Value {
    json!({
        "type": "RobertaProcessing",
        "sep": sep,
        "cls": cls,
        "trim_offsets": trim_offsets,
        "add_prefix_space": add_prefix_space,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TextTokenizer;
    use std::path::Path;

    fn ids(json: &str, text: &str) -> Vec<u32> {
        let path = Path::new("tokenizer.json");
        let tokenizer = TextTokenizer::from_json(json.as_bytes(), path, 64).unwrap();
        tokenizer.encode(&[text], None).unwrap()[0].ids.clone()
    }

    #[test]
    fn a_token_that_the_vocabulary_lacks_comes_behind_it() {
        let vocab = "[UNK]\nfox\n[CLS]\n";
        let vocabulary = Vocabulary::WordPiece {
            vocab,
            is_mpnet: false,
        };
        let json = tokenizer_json(vocabulary, &TokenizerFields::default()).unwrap();
        assert_eq!(ids(&json, "Fox [MASK] dog"), [2, 1, 5, 0, 3]);
    }

    #[test]
    fn what_makes_no_tokenizer_says_why() {
        let vocab = |id: Value| json!({ "<s>": 0, "</s>": id });
        for (vocab, merges, wrong) in [
            (vocab(json!("x")), "", "`</s>` has no id"),
            (vocab(json!(1)), "#version: 0.2\na b c", "merges.txt:2"),
        ] {
            let vocabulary = Vocabulary::ByteLevel {
                vocab: vocab.as_object().unwrap(),
                merges,
            };
            let error = tokenizer_json(vocabulary, &TokenizerFields::default()).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
        let none = TokenizerFields {
            special_tokens: Map::from_iter([("cls_token".to_owned(), Value::Null)]),
            ..TokenizerFields::default()
        };
        let vocabulary = Vocabulary::WordPiece {
            vocab: "[UNK]",
            is_mpnet: false,
        };
        assert!(
            tokenizer_json(vocabulary, &none)
                .unwrap_err()
                .contains("cls_token")
        );
    }
}
