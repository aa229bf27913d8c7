use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::Encoding;
use crate::error::{Result, TextError};

/// Texts packed back to back on the device: what an encoder reads.
///
/// No token is padding: the texts' lengths say where each begins.
#[derive(Debug, Clone)]
pub struct TokenBatch<B: Backend> {
    ids: Tensor<B, 1, Int>,
    type_ids: Tensor<B, 1, Int>,
    lengths: Arc<[usize]>,
    prompt_tokens: usize,
}

impl<B: Backend> TokenBatch<B> {
    /// Packs tokenized texts, none of them empty.
    ///
    /// `prompt_tokens` is the number of leading tokens of each text that come from its
    /// prompt; `tables` are the entries of the encoder's token and segment embeddings.
    ///
    /// # Errors
    /// [`TextError::TokenOutOfRange`] if a token or a segment has no embedding.
    pub fn pack(
        encodings: &[&Encoding],
        prompt_tokens: usize,
        tables: [usize; 2],
        device: &B::Device,
    ) -> Result<Self> {
        let [vocab_size, type_vocab_size] = tables;
        for (index, encoding) in encodings.iter().enumerate() {
            for (what, ids, entries) in [
                ("token id", &encoding.ids, vocab_size),
                ("segment id", &encoding.type_ids, type_vocab_size),
            ] {
                if let Some(&id) = ids.iter().find(|&&id| id as usize >= entries) {
                    return Err(TextError::TokenOutOfRange {
                        what,
                        id,
                        index,
                        entries,
                    }
                    .into());
                }
            }
        }
        let pack = |field: fn(&Encoding) -> &[u32]| -> Tensor<B, 1, Int> {
            let packed: Vec<i32> = encodings
                .iter()
                .flat_map(|e| field(e).iter().map(|&id| id as i32))
                .collect();
            let tokens = packed.len();
            Tensor::from_data(TensorData::new(packed, [tokens]), device)
        };
        Ok(Self {
            ids: pack(|e| &e.ids),
            type_ids: pack(|e| &e.type_ids),
            lengths: encodings.iter().map(|e| e.len()).collect(),
            prompt_tokens,
        })
    }

    /// The token ids, `[tokens]`.
    pub fn ids(&self) -> Tensor<B, 1, Int> {
        self.ids.clone()
    }

    /// The tokens' segments, `[tokens]`.
    pub fn type_ids(&self) -> Tensor<B, 1, Int> {
        self.type_ids.clone()
    }

    /// The number of tokens of each text.
    pub fn lengths(&self) -> &Arc<[usize]> {
        &self.lengths
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The number of tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The number of leading tokens of each text that come from its prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The device the batch is on.
    pub fn device(&self) -> B::Device {
        self.ids.device()
    }
}
