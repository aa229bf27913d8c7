use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use super::tokenizer_file::read_tokenizer;
use crate::error::{Result, TextError};

/// Below this many bytes, texts are tokenized before other threads have woken up.
const PARALLEL_BYTES: usize = 1 << 12;

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
    /// Whether special tokens stand around each text.
    special_tokens: bool,
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
        let tokenizer = read_tokenizer(json).map_err(|e| TextError::InvalidTokenizer {
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
        tokenizer.with_padding(None);
        let tokenizer = Self {
            inner: Arc::new(tokenizer),
            max_length,
            special_tokens: true,
        };
        tokenizer.cut_to(max_length)
    }

    /// Reads a `tokenizer.json` as a StaticEmbedding does: no special tokens, and texts cut
    /// where the file itself says so.
    ///
    /// # Errors
    /// [`TextError::InvalidTokenizer`] if the file is no tokenizer.
    pub fn of_bags(json: &[u8], path: &Path) -> Result<Self> {
        let mut tokenizer = read_tokenizer(json).map_err(|e| TextError::InvalidTokenizer {
            path: path.to_owned(),
            reason: e.to_string(),
        })?;
        tokenizer.with_padding(None);
        let truncation = tokenizer.get_truncation();
        Ok(Self {
            max_length: truncation.map_or(usize::MAX, |truncation| truncation.max_length),
            inner: Arc::new(tokenizer),
            special_tokens: false,
        })
    }

    fn cut_to(mut self, max_length: usize) -> Result<Self> {
        let processor = self.inner.get_post_processor();
        let special = match self.special_tokens {
            true => processor.map_or(0, |p| tokenizers::PostProcessor::added_tokens(p, false)),
            false => 0,
        };
        let too_small = || TextError::MaxLengthTooSmall {
            found: max_length,
            special,
        };
        if max_length <= special {
            return Err(too_small().into());
        }
        Arc::make_mut(&mut self.inner)
            .with_truncation(Some(TruncationParams {
                max_length,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
                direction: TruncationDirection::Right,
            }))
            .map_err(|_| too_small())?;
        Ok(Self { max_length, ..self })
    }

    /// The number of tokens a text is cut to, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The same tokenizer with another maximum length, at most `most`. Its tables are copied
    /// only where another one shares them.
    ///
    /// # Errors
    /// [`TextError::MaxLengthTooSmall`] if the special tokens alone exceed it,
    /// [`TextError::MaxLengthTooLarge`] if it exceeds `most`.
    pub fn with_max_length(self, max_length: usize, most: usize) -> Result<Self> {
        if max_length > most {
            return Err(TextError::MaxLengthTooLarge {
                found: max_length,
                most,
            }
            .into());
        }
        self.cut_to(max_length)
    }

    /// The same tokenizer with texts lowercased before anything else.
    ///
    /// # Errors
    /// [`TextError::Tokenize`] if the tokenizer does not take the step.
    pub fn with_lowercase(mut self) -> Result<Self> {
        let tokenizer = Arc::make_mut(&mut self.inner);
        let mut steps = vec![NormalizerWrapper::Lowercase(Lowercase)];
        steps.extend(tokenizer.get_normalizer().cloned());
        tokenizer
            .with_normalizer(Some(Sequence::new(steps)))
            .map_err(|e| TextError::Tokenize {
                index: 0,
                reason: e.to_string(),
            })?;
        Ok(self)
    }

    /// Tokenizes texts, each with `prompt` in front; many at once on several threads.
    ///
    /// # Errors
    /// [`TextError::Tokenize`] naming the first text that the tokenizer failed on.
    pub fn encode<T: AsRef<str>>(
        &self,
        texts: &[T],
        prompt: Option<&str>,
    ) -> Result<Vec<Encoding>> {
        let prompt = prompt.unwrap_or_default();
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let bytes: usize = texts.iter().map(|text| prompt.len() + text.len()).sum();
        let encode = |(index, text): (usize, &&str)| self.encode_text(index, prompt, text);
        if bytes < PARALLEL_BYTES {
            return texts.iter().enumerate().map(encode).collect();
        }
        // Not `encode_batch`, which asks the environment whether it may use threads and keeps
        // far more of each text than its ids until all are done.
        let encodings: Vec<Result<Encoding>> = texts.par_iter().enumerate().map(encode).collect();
        encodings.into_iter().collect()
    }

    fn encode_text(&self, index: usize, prompt: &str, text: &str) -> Result<Encoding> {
        let text = match prompt {
            "" => Cow::Borrowed(text),
            _ => Cow::Owned(format!("{prompt}{text}")),
        };
        let encoding = self
            .inner
            .encode_fast(text, self.special_tokens)
            .map_err(|e| TextError::Tokenize {
                index,
                reason: e.to_string(),
            })?;
        Ok(Encoding {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
        })
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
            .encode_fast(prompt, self.special_tokens)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use serde_json::json;

    /// A tokenizer of words of `a` and `b` that fails on any other.
    fn tokenizer() -> TextTokenizer {
        let file = json!({
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": { "type": "Whitespace" },
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "",
                "max_input_chars_per_word": 100, "vocab": { "a": 0, "b": 1 },
            },
        });
        let json = file.to_string();
        TextTokenizer::from_json(json.as_bytes(), Path::new("tokenizer.json"), 12).unwrap()
    }

    #[test]
    fn many_texts_are_tokenized_as_they_are_one_by_one() {
        let tokenizer = tokenizer();
        let texts: Vec<String> = (0..PARALLEL_BYTES)
            .map(|i| format!("{i:b}").replace('0', "a").replace('1', " b"))
            .collect();
        for prompt in [None, Some("ab ")] {
            let together = tokenizer.encode(&texts, prompt).unwrap();
            let apart = texts.iter().flat_map(|text| {
                let text = format!("{}{text}", prompt.unwrap_or_default());
                tokenizer.encode(&[text], None).unwrap()
            });
            assert_eq!(together, apart.collect::<Vec<_>>());
            assert_eq!(together[5].ids.len(), 3 + prompt.map_or(0, |_| 2));
        }
    }

    #[test]
    fn the_first_text_that_fails_is_named() {
        let tokenizer = tokenizer();
        for count in [40, PARALLEL_BYTES] {
            let mut texts = vec!["a"; count];
            for index in [37, 31, count - 1] {
                texts[index] = "c";
            }
            let error = tokenizer.encode(&texts, None).unwrap_err();
            assert!(
                matches!(&error, Error::Text(TextError::Tokenize { index: 31, .. })),
                "{error}"
            );
        }
    }

    #[test]
    fn a_changed_tokenizer_leaves_the_one_it_was_made_from() {
        let tokenizer = tokenizer();
        let text = ["A a a a"];
        let changed = tokenizer.clone().with_max_length(2, 512).unwrap();
        let changed = changed.with_lowercase().unwrap();
        assert_eq!(changed.encode(&text, None).unwrap()[0].ids, [0, 0]);
        assert_eq!(changed.max_length(), 2);
        assert!(tokenizer.encode(&text, None).is_err());
        assert_eq!(tokenizer.encode(&["a a a"], None).unwrap()[0].len(), 3);
        for (length, most) in [(0, 512), (513, 512)] {
            assert!(tokenizer.clone().with_max_length(length, most).is_err());
        }
    }
}
