use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::TokenFeatures;
use crate::error::{ModuleError, Result};
use crate::kernel::{max_pool, mean_pool, weighted_sum_pool};

/// How token embeddings become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingMode {
    /// The first token.
    Cls,
    /// The largest value of each dimension.
    Max,
    /// The mean.
    Mean,
    /// The sum divided by the root of the number of tokens.
    MeanSqrtLenTokens,
    /// The mean with weights 1, 2, 3… by position.
    WeightedMean,
    /// The last token.
    LastToken,
}

/// Every mode with its name and its switch in folders of the legacy generation, in the
/// order in which those concatenate.
const MODES: [(PoolingMode, &str, &str); 6] = [
    (PoolingMode::Cls, "cls", "pooling_mode_cls_token"),
    (PoolingMode::Max, "max", "pooling_mode_max_tokens"),
    (PoolingMode::Mean, "mean", "pooling_mode_mean_tokens"),
    (
        PoolingMode::MeanSqrtLenTokens,
        "mean_sqrt_len_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
    ),
    (
        PoolingMode::WeightedMean,
        "weightedmean",
        "pooling_mode_weightedmean_tokens",
    ),
    (
        PoolingMode::LastToken,
        "lasttoken",
        "pooling_mode_lasttoken",
    ),
];

const MODE_NAMES: &[&str] = &[
    "cls",
    "max",
    "mean",
    "mean_sqrt_len_tokens",
    "weightedmean",
    "lasttoken",
];

impl PoolingMode {
    /// The mode of that name.
    ///
    /// # Errors
    /// [`ModuleError::UnknownPoolingMode`].
    pub fn from_name(name: &str) -> Result<Self> {
        let found = MODES.iter().find(|(_, known, _)| *known == name);
        Ok(found
            .map(|&(mode, _, _)| mode)
            .ok_or_else(|| ModuleError::UnknownPoolingMode {
                found: name.to_owned(),
                known: MODE_NAMES,
            })?)
    }

    /// The mode's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLenTokens => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }
}

/// `1_Pooling/config.json`, of either generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolingConfig {
    /// The size of a token embedding.
    pub embedding_dimension: usize,
    /// The modes; several are concatenated in this order.
    pub modes: Vec<PoolingMode>,
    /// Whether the prompt's tokens count.
    pub include_prompt: bool,
}

/// The fields that both generations have, and those of 6.x.
#[derive(Deserialize)]
struct Fields {
    #[serde(alias = "word_embedding_dimension")]
    embedding_dimension: usize,
    pooling_mode: Option<OneOrMany>,
    #[serde(default = "yes")]
    include_prompt: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn yes() -> bool {
    true
}

impl PoolingConfig {
    /// Pooling of token embeddings of this size by these modes, prompt included.
    pub fn new(embedding_dimension: usize, modes: impl Into<Vec<PoolingMode>>) -> Self {
        Self {
            embedding_dimension,
            modes: modes.into(),
            include_prompt: true,
        }
    }

    /// Reads a `config.json` of either generation.
    ///
    /// # Errors
    /// [`ModuleError::Malformed`] or [`ModuleError::UnknownPoolingMode`].
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let parsed: Fields =
            serde_json::from_value(Value::Object(fields.clone())).map_err(|source| {
                ModuleError::Malformed {
                    module: "Pooling",
                    source,
                }
            })?;
        let names = match parsed.pooling_mode {
            Some(OneOrMany::One(name)) => vec![name],
            Some(OneOrMany::Many(names)) => names,
            None => Vec::new(),
        };
        let mut modes = names
            .iter()
            .map(|name| PoolingMode::from_name(name))
            .collect::<Result<Vec<_>>>()?;
        if modes.is_empty() {
            let is_on = |switch: &str| fields.get(switch) == Some(&Value::Bool(true));
            let on = MODES.iter().filter(|(_, _, switch)| is_on(switch));
            modes = on.map(|&(mode, _, _)| mode).collect();
        }
        if modes.is_empty() {
            modes.push(PoolingMode::Mean);
        }
        Ok(Self {
            embedding_dimension: parsed.embedding_dimension,
            modes,
            include_prompt: parsed.include_prompt,
        })
    }

    /// The content of `config.json`: with the switches of the legacy generation, which
    /// every reader knows, wherever they can say it.
    pub fn to_json(&self) -> Value {
        let in_legacy_order = self
            .modes
            .is_sorted_by_key(|mode| MODES.iter().position(|(known, _, _)| known == mode));
        if !in_legacy_order {
            let names: Vec<&str> = self.modes.iter().map(|mode| mode.name()).collect();
            return json!({
                "embedding_dimension": self.embedding_dimension,
                "pooling_mode": names,
                "include_prompt": self.include_prompt,
            });
        }
        let mut fields = Map::new();
        fields.insert(
            "word_embedding_dimension".to_owned(),
            self.embedding_dimension.into(),
        );
        for (mode, _, switch) in MODES {
            fields.insert(switch.to_owned(), self.modes.contains(&mode).into());
        }
        fields.insert("include_prompt".to_owned(), self.include_prompt.into());
        Value::Object(fields)
    }

    /// The module.
    pub fn init(&self) -> Pooling {
        Pooling {
            config: self.clone(),
        }
    }
}

/// Turns the token embeddings of each text into one embedding.
#[derive(Module, Clone, Debug)]
pub struct Pooling {
    #[module(skip)]
    config: PoolingConfig,
}

impl Pooling {
    /// The configuration.
    pub fn config(&self) -> &PoolingConfig {
        &self.config
    }

    /// The size of a sentence embedding: the token embeddings' for each mode.
    pub fn output_dim(&self) -> usize {
        self.config.embedding_dimension * self.config.modes.len()
    }

    /// Pools the tokens of each text.
    ///
    /// # Shapes
    /// - tokens: `[tokens, hidden]`
    /// - output: `[texts, hidden * modes]`
    pub fn forward<B: Backend>(&self, tokens: TokenFeatures<B>) -> Tensor<B, 2> {
        let first = if self.config.include_prompt {
            0
        } else {
            tokens.prompt_tokens
        };
        let lengths = tokens.packing.lengths();
        let pooled = self.config.modes.iter().map(|&mode| {
            let embeddings = tokens.embeddings.clone();
            if mode == PoolingMode::Max {
                return max_pool(embeddings, first, &tokens.packing);
            }
            if mode == PoolingMode::Mean && first == 0 {
                return mean_pool(embeddings, &tokens.packing);
            }
            let weights = lengths
                .iter()
                .flat_map(|&length| token_weights(mode, length, first));
            weighted_sum_pool(embeddings, weights.collect(), &tokens.packing)
        });
        let pooled: Vec<_> = pooled.collect();
        Tensor::cat(pooled, 1)
    }
}

/// The weight of each token of a text of this length, of which only those from `first`
/// on count (`Pooling._forward_padded` of Sentence Transformers).
fn token_weights(mode: PoolingMode, length: usize, first: usize) -> Vec<f32> {
    let counted = length.saturating_sub(first) as f32;
    let one_at = |place: usize| {
        let mut weights = vec![0.0; length];
        weights[place] = 1.0;
        weights
    };
    let from_first = |weight: &dyn Fn(usize) -> f32| {
        (0..length)
            .map(|place| if place < first { 0.0 } else { weight(place) })
            .collect()
    };
    match mode {
        // Where no token counts, the reference's argmax of an all-zero mask is 0.
        PoolingMode::Cls => one_at(if first < length { first } else { 0 }),
        PoolingMode::LastToken if first < length => one_at(length - 1),
        PoolingMode::LastToken => vec![0.0; length],
        PoolingMode::Mean | PoolingMode::Max => from_first(&|_| 1.0 / counted),
        PoolingMode::MeanSqrtLenTokens => from_first(&|_| 1.0 / counted.sqrt()),
        PoolingMode::WeightedMean => {
            let sum: f64 = (first..length).map(|place| place as f64 + 1.0).sum();
            from_first(&|place| ((place as f64 + 1.0) / sum) as f32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn parse(json: Value) -> Result<PoolingConfig> {
        match json {
            Value::Object(fields) => PoolingConfig::from_json(&fields),
            _ => unreachable!(),
        }
    }

    #[test]
    fn both_generations_are_read() {
        let legacy = json!({
            "word_embedding_dimension": 8,
            "pooling_mode_mean_tokens": true,
            "pooling_mode_cls_token": true,
            "pooling_mode_max_tokens": false,
        });
        let expected = PoolingConfig::new(8, [PoolingMode::Cls, PoolingMode::Mean]);
        assert_eq!(parse(legacy).unwrap(), expected);
        let v6 = json!({ "embedding_dimension": 8, "pooling_mode": ["mean", "cls"], "include_prompt": false });
        let expected = PoolingConfig {
            include_prompt: false,
            ..PoolingConfig::new(8, [PoolingMode::Mean, PoolingMode::Cls])
        };
        assert_eq!(parse(v6).unwrap(), expected);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for modes in [
            vec![PoolingMode::Mean],
            vec![PoolingMode::Cls, PoolingMode::LastToken],
            vec![PoolingMode::LastToken, PoolingMode::Cls],
        ] {
            let config = PoolingConfig::new(8, modes);
            assert_eq!(parse(config.to_json()).unwrap(), config);
        }
    }

    #[test]
    fn an_unknown_mode_and_a_missing_dimension_are_named() {
        let error =
            parse(json!({ "embedding_dimension": 8, "pooling_mode": "median" })).unwrap_err();
        assert!(
            matches!(&error, Error::Module(ModuleError::UnknownPoolingMode { found, .. })
            if found == "median")
        );
        let error = parse(json!({ "pooling_mode": "mean" })).unwrap_err();
        assert!(error.to_string().contains("embedding_dimension"), "{error}");
    }

    #[test]
    fn weights_follow_the_formulas() {
        use PoolingMode::*;
        assert_eq!(token_weights(Mean, 4, 0), [0.25; 4]);
        assert_eq!(token_weights(Mean, 4, 2), [0.0, 0.0, 0.5, 0.5]);
        assert_eq!(token_weights(MeanSqrtLenTokens, 4, 0), [0.5; 4]);
        // Positions are those of the whole text, prompt included.
        assert_eq!(token_weights(WeightedMean, 3, 1), [0.0, 0.4, 0.6]);
        assert_eq!(token_weights(Cls, 3, 1), [0.0, 1.0, 0.0]);
        assert_eq!(token_weights(LastToken, 3, 1), [0.0, 0.0, 1.0]);
        // A text that is all prompt: no division by zero.
        assert_eq!(token_weights(Mean, 2, 5), [0.0, 0.0]);
        assert_eq!(token_weights(Cls, 2, 5), [1.0, 0.0]);
        assert_eq!(token_weights(LastToken, 2, 5), [0.0, 0.0]);
    }
}
