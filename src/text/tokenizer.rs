use std::path::Path;
use std::sync::Arc;

use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use crate::error::{Result, TextError};

/// One tokenized text, special tokens included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// The token ids.
    pub ids: Vec<u32>,
    /// The segment of each token: 0, or 1 for the second text of a pair.
    pub type_ids: Vec<u32>,
}

impl Encoding {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the text has no token at all, not even a special one.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A tokenizer as a sentence encoder uses it: special tokens around each text,
/// texts cut at the model's maximum length, nothing padded.
///
/// `tokenizer.json` files carry the padding and truncation of whoever saved them
/// last (all-MiniLM-L6-v2's pads every text to 128 tokens); both are removed, as
/// Sentence Transformers does.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Arc<Tokenizer>,
    max_length: usize,
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`, `json` being its content and `path` its name in errors.
    ///
    /// `max_length` is the number of tokens, special ones included, that a text is cut to.
    ///
    /// # Errors
    /// [`TextError::InvalidTokenizer`] if the file is no tokenizer,
    /// [`TextError::MaxLengthTooSmall`] if the special tokens alone exceed `max_length`.
    pub fn from_json(json: &[u8], path: &Path, max_length: usize) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(json).map_err(|e| TextError::InvalidTokenizer {
            path: path.to_owned(),
            reason: e.to_string(),
        })?;
        Self::new(tokenizer, max_length)
    }

    /// Wraps a tokenizer that is already in memory.
    ///
    /// # Errors
    /// [`TextError::MaxLengthTooSmall`] if the special tokens alone exceed `max_length`.
    pub fn new(mut tokenizer: Tokenizer, max_length: usize) -> Result<Self> {
        let special = tokenizer
            .get_post_processor()
            .map_or(0, |p| tokenizers::PostProcessor::added_tokens(p, false));
        let too_small = || TextError::MaxLengthTooSmall {
            found: max_length,
            special,
        };
        if max_length <= special {
            return Err(too_small().into());
        }
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
                direction: TruncationDirection::Right,
            }))
            .map_err(|_| too_small())?;
        Ok(Self {
            inner: Arc::new(tokenizer),
            max_length,
        })
    }

    /// The number of tokens a text is cut to, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The same tokenizer with another maximum length, at most `most`.
    ///
    /// # Errors
    /// [`TextError::MaxLengthTooSmall`] if the special tokens alone exceed it,
    /// [`TextError::MaxLengthTooLarge`] if it exceeds `most`.
    pub fn with_max_length(&self, max_length: usize, most: usize) -> Result<Self> {
        if max_length > most {
            return Err(TextError::MaxLengthTooLarge {
                found: max_length,
                most,
            }
            .into());
        }
        Self::new((*self.inner).clone(), max_length)
    }

    /// The same tokenizer with texts lowercased before anything else.
    ///
    /// # Errors
    /// [`TextError::Tokenize`] if the tokenizer does not take the step.
    pub fn with_lowercase(&self) -> Result<Self> {
        let mut tokenizer = (*self.inner).clone();
        let mut steps = vec![NormalizerWrapper::Lowercase(Lowercase)];
        steps.extend(tokenizer.get_normalizer().cloned());
        tokenizer
            .with_normalizer(Some(Sequence::new(steps)))
            .map_err(|e| TextError::Tokenize {
                index: 0,
                reason: e.to_string(),
            })?;
        Ok(Self {
            inner: Arc::new(tokenizer),
            max_length: self.max_length,
        })
    }

    /// Tokenizes texts, each with `prompt` in front.
    ///
    /// # Errors
    /// [`TextError::Tokenize`] naming the text that the tokenizer failed on.
    pub fn encode<T: AsRef<str>>(
        &self,
        texts: &[T],
        prompt: Option<&str>,
    ) -> Result<Vec<Encoding>> {
        let prompt = prompt.unwrap_or_default();
        let inputs: Vec<String> = texts
            .iter()
            .map(|text| format!("{prompt}{}", text.as_ref()))
            .collect();
        let encodings = match self.inner.encode_batch_fast(inputs.clone(), true) {
            Ok(encodings) => encodings,
            // The library does not say which text it was: find the first.
            Err(_) => inputs
                .into_iter()
                .enumerate()
                .map(|(index, input)| {
                    self.inner
                        .encode_fast(input, true)
                        .map_err(|e| TextError::Tokenize {
                            index,
                            reason: e.to_string(),
                        })
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(encodings
            .into_iter()
            .map(|encoding| Encoding {
                ids: encoding.get_ids().to_vec(),
                type_ids: encoding.get_type_ids().to_vec(),
            })
            .collect())
    }

    /// The number of leading tokens of each text that come from `prompt`: its own
    /// tokens and the leading special ones, without the trailing special token.
    ///
    /// # Errors
    /// [`TextError::Tokenize`] if the tokenizer fails on the prompt.
    pub fn prompt_tokens(&self, prompt: &str) -> Result<usize> {
        if prompt.is_empty() {
            return Ok(0);
        }
        let encoding = self
            .inner
            .encode_fast(prompt, true)
            .map_err(|e| TextError::Tokenize {
                index: 0,
                reason: e.to_string(),
            })?;
        let ids = encoding.get_ids();
        let special = encoding.get_special_tokens_mask();
        let trailing = usize::from(special.last() == Some(&1));
        Ok(ids.len() - trailing)
    }

    /// The number of entries of the vocabulary, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}
