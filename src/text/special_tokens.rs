use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The fields that name a token of a part of its own, in the order in which Python adds those
/// that the vocabulary lacks.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// A token that is found in a text before anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AddedToken {
    #[serde(default)]
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl AddedToken {
    fn special(content: &str, lstrip: bool) -> Self {
        Self {
            id: 0,
            content: content.to_owned(),
            single_word: false,
            lstrip,
            rstrip: false,
            normalized: Some(false),
            special: true,
        }
    }

    /// A special token as a configuration names it: by its text, or with all its fields.
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(content) => Some(Self::special(content, false)),
            value => {
                let mut token: Self = serde_json::from_value(value.clone()).ok()?;
                token.special = true;
                token.normalized = Some(token.normalized.unwrap_or(false));
                Some(token)
            }
        }
    }
}

/// The special and added tokens of a tokenizer that is not one file.
#[derive(Debug, Clone)]
pub(super) struct SpecialTokens {
    named: Vec<(&'static str, AddedToken)>,
    added: Vec<AddedToken>,
}

impl SpecialTokens {
    /// The tokens that `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json` name, of these fields; `defaults` stand for what none names.
    pub(super) fn read(
        config: &Map<String, Value>,
        special: &Map<String, Value>,
        added: &Map<String, Value>,
        defaults: &[(&'static str, &str)],
        mask_takes_the_space_before: bool,
    ) -> Self {
        let decoder = config
            .get("added_tokens_decoder")
            .and_then(Value::as_object);
        // Today's configuration has all tokens, and the files of old are not looked at.
        let empty = Map::new();
        let special = if decoder.is_some() { &empty } else { special };
        let field = |name: &str| special.get(name).or_else(|| config.get(name));
        let mut named = Vec::new();
        for name in NAMES {
            let default = defaults.iter().find(|(known, _)| *known == name);
            let lstrip = mask_takes_the_space_before && name == "mask_token";
            let token = match field(name) {
                Some(Value::String(content)) => Some(AddedToken::special(content, lstrip)),
                Some(Value::Null) => None,
                Some(value) => AddedToken::from_json(value),
                None => default.map(|(_, content)| AddedToken::special(content, lstrip)),
            };
            named.extend(token.map(|token| (name, token)));
        }
        let mut tokens: Vec<AddedToken> = Vec::new();
        let mut by_id: Vec<(u64, AddedToken)> = Vec::new();
        match decoder {
            Some(decoder) => {
                for (id, value) in decoder {
                    let token = serde_json::from_value::<AddedToken>(value.clone());
                    if let (Ok(id), Ok(mut token)) = (id.parse(), token) {
                        token.normalized = Some(token.normalized.unwrap_or(!token.special));
                        by_id.push((id, token));
                    }
                }
            }
            None => {
                for (content, id) in added {
                    let is_special = named.iter().any(|(_, token)| token.content == *content);
                    let mut token = AddedToken::special(content, false);
                    token.special = is_special;
                    token.normalized = Some(!is_special);
                    by_id.push((id.as_u64().unwrap_or(u64::MAX), token));
                }
            }
        }
        by_id.sort_by_key(|(id, _)| *id);
        tokens.extend(by_id.into_iter().map(|(_, token)| token));
        tokens.extend(named.iter().map(|(_, token)| token.clone()));
        for name in ["extra_special_tokens", "additional_special_tokens"] {
            let more = field(name).and_then(Value::as_array);
            tokens.extend(more.into_iter().flatten().filter_map(AddedToken::from_json));
        }
        let mut seen: Vec<String> = Vec::new();
        tokens.retain(|token| {
            let is_new = !token.content.is_empty() && !seen.contains(&token.content);
            seen.push(token.content.clone());
            is_new
        });
        Self {
            named,
            added: tokens,
        }
    }

    /// The text of the token of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let token = self.named.iter().find(|(known, _)| *known == name);
        token.map(|(_, token)| token.content.as_str())
    }

    /// All tokens with their ids: the vocabulary's, or the next ones behind it.
    pub(super) fn with_ids(
        &self,
        vocab_size: usize,
        id_of: impl Fn(&str) -> Option<u32>,
    ) -> Vec<AddedToken> {
        let mut next = vocab_size as u32;
        let with_id = |token: &AddedToken| {
            let mut token = token.clone();
            token.id = id_of(&token.content).unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            token
        };
        self.added.iter().map(with_id).collect()
    }
}
