use std::sync::Arc;

use burn::tensor::{Int, Tensor, backend::Backend};

use super::Encoding;
use crate::error::{Result, TextError};
use crate::kernel::{Layout, Packing};

/// Texts packed on the device: what an encoder reads.
///
/// Each token has a row, and its packing says where each text's lie; a few rows of a GPU's
/// batches hold no token.
#[derive(Debug, Clone)]
pub struct TokenBatch<B: Backend> {
    ids: Tensor<B, 1, Int>,
    type_ids: Tensor<B, 1, Int>,
    /// The tokens' ids once more, on the host.
    host_ids: Arc<[i32]>,
    packing: Packing<B>,
    prompt_tokens: usize,
    way: usize,
}

impl<B: Backend> TokenBatch<B> {
    /// Packs tokenized texts.
    ///
    /// `prompt_tokens` is the number of leading tokens of each text that come from its
    /// prompt; `tables` are the entries of the encoder's token and segment embeddings, 0
    /// where it has no segments and does not look at them.
    ///
    /// # Errors
    /// [`TextError::TokenOutOfRange`] if a token or a segment has no embedding,
    /// [`TextError::NoTokens`] if a text has no token.
    pub fn pack(
        encodings: &[&Encoding],
        prompt_tokens: usize,
        tables: [usize; 2],
        device: &B::Device,
    ) -> Result<Self> {
        if let Some(index) = encodings.iter().position(|encoding| encoding.is_empty()) {
            return Err(TextError::NoTokens { index }.into());
        }
        Self::pack_bags(encodings, prompt_tokens, tables, device)
    }

    /// The same for an encoder of which a text without tokens is no surprise.
    ///
    /// # Errors
    /// [`TextError::TokenOutOfRange`] if a token or a segment has no embedding.
    pub fn pack_bags(
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
                if entries == 0 {
                    continue;
                }
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
        let pack = |field: fn(&Encoding) -> &[u32]| -> Vec<i32> {
            let ids = encodings.iter().flat_map(|e| field(e));
            ids.map(|&id| id as i32).collect()
        };
        let columns = [pack(|e| &e.ids), pack(|e| &e.type_ids)];
        let host_ids = columns[0].as_slice().into();
        let lengths = encodings.iter().map(|e| e.len()).collect();
        let (packing, [ids, type_ids]) =
            Packing::upload(Layout::new::<B>(lengths), columns, device);
        Ok(Self {
            ids,
            type_ids,
            host_ids,
            packing,
            prompt_tokens,
            way: 0,
        })
    }

    /// The same batch, for another of the model's ways.
    #[must_use]
    pub fn with_way(self, way: usize) -> Self {
        Self { way, ..self }
    }

    /// The number of the model's way that the texts were tokenized for: 0 but where a Router
    /// chooses between several.
    pub fn way(&self) -> usize {
        self.way
    }

    /// Where the texts lie.
    pub fn packing(&self) -> &Packing<B> {
        &self.packing
    }

    /// The token ids, `[rows]`.
    pub fn ids(&self) -> Tensor<B, 1, Int> {
        self.ids.clone()
    }

    /// The token ids of each text, on the host.
    pub fn texts(&self) -> impl Iterator<Item = &[i32]> {
        let mut rest = &*self.host_ids;
        self.packing.lengths().iter().map(move |&length| {
            let (text, behind) = rest.split_at(length);
            rest = behind;
            text
        })
    }

    /// The tokens' segments, `[rows]`.
    pub fn type_ids(&self) -> Tensor<B, 1, Int> {
        self.type_ids.clone()
    }

    /// The number of tokens of each text.
    pub fn lengths(&self) -> &Arc<[usize]> {
        self.packing.layout().lengths()
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.packing.texts()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.packing.texts() == 0
    }

    /// The number of tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.packing.tokens()
    }

    /// The number of leading tokens of each text that come from its prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The device the batch is on.
    pub fn device(&self) -> B::Device {
        self.packing.device().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    fn pack_for(
        tables: [usize; 2],
        ids: &[u32],
        type_ids: &[u32],
    ) -> Result<TokenBatch<TestBackend>> {
        let encoding = Encoding {
            ids: ids.to_vec(),
            type_ids: type_ids.to_vec(),
        };
        TokenBatch::pack(&[&encoding, &encoding], 0, tables, &device())
    }

    fn pack(ids: &[u32], type_ids: &[u32]) -> Result<TokenBatch<TestBackend>> {
        pack_for([5, 1], ids, type_ids)
    }

    #[test]
    fn texts_lie_back_to_back() {
        let batch = pack(&[4, 2, 3], &[0, 0, 0]).unwrap();
        let ids: Vec<i32> = batch.ids().into_data().iter().collect();
        assert_eq!(ids, [4, 2, 3, 4, 2, 3]);
        assert_eq!((&**batch.lengths(), batch.tokens()), (&[3, 3][..], 6));
        assert_eq!(batch.texts().collect::<Vec<_>>(), [&[4, 2, 3], &[4, 2, 3]]);
    }

    #[test]
    fn segments_are_not_looked_at_where_there_are_none() {
        assert!(pack_for([5, 0], &[4], &[1]).is_ok());
        assert!(pack_for([5, 1], &[4], &[1]).is_err());
    }

    #[test]
    fn what_has_no_embedding_or_no_token_is_an_error() {
        for (ids, type_ids, wrong) in [(&[5], &[0], "token id"), (&[0], &[1], "segment id")] {
            let error = pack(ids, type_ids).unwrap_err();
            assert!(
                matches!(&error, Error::Text(TextError::TokenOutOfRange { what, .. }) if *what == wrong)
            );
        }
        let error = pack(&[], &[]).unwrap_err();
        assert!(matches!(
            error,
            Error::Text(TextError::NoTokens { index: 0 })
        ));
        let bags = [&Encoding::default()];
        let batch = TokenBatch::<TestBackend>::pack_bags(&bags, 0, [5, 0], &device()).unwrap();
        assert_eq!((batch.len(), batch.tokens()), (1, 0));
    }
}
