use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::LayerVisitor;
use crate::adapter::{AdaptedEmbedding, AdaptedLayerNorm, Pass, sum_lookups};
use crate::error::Result;
use crate::kernel::dropout;
use crate::text::TokenBatch;

/// The size of the embeddings that an encoder begins with.
#[derive(Debug, Clone, Copy)]
pub struct TokenEmbeddingsConfig {
    /// The number of token ids.
    pub vocab_size: usize,
    /// The number of positions, where there are embeddings of them.
    pub positions: Option<usize>,
    /// The number of segments, where there are embeddings of them.
    pub token_types: Option<usize>,
    /// The size of an embedding.
    pub embedding_size: usize,
    /// The dropout behind the norm.
    pub dropout: f64,
    /// The epsilon of the norm.
    pub layer_norm_eps: f64,
    /// The deviation of fresh weights.
    pub initializer_range: f64,
}

impl TokenEmbeddingsConfig {
    /// Fresh tables.
    pub fn init<B: Backend>(&self, device: &B::Device) -> TokenEmbeddings<B> {
        let table = |entries| {
            AdaptedEmbedding::init(entries, self.embedding_size, self.initializer_range, device)
        };
        TokenEmbeddings {
            words: table(self.vocab_size),
            positions: self.positions.map(table),
            token_types: self.token_types.map(table),
            norm: AdaptedLayerNorm::init(self.embedding_size, self.layer_norm_eps, device),
            dropout: self.dropout,
        }
    }
}

/// The sum of a token's, its segment's and its position's embedding, with a norm behind.
#[derive(Module, Debug)]
pub struct TokenEmbeddings<B: Backend> {
    words: AdaptedEmbedding<B>,
    positions: Option<AdaptedEmbedding<B>>,
    token_types: Option<AdaptedEmbedding<B>>,
    norm: AdaptedLayerNorm<B>,
    #[module(skip)]
    dropout: f64,
}

impl<B: Backend> TokenEmbeddings<B> {
    /// Embeds each token, at the position that is given for it where positions have
    /// embeddings.
    ///
    /// # Shapes
    /// - batch: `[tokens]`
    /// - positions: `[tokens]`
    /// - output: `[tokens, embedding]`
    pub fn forward(
        &self,
        batch: &TokenBatch<B>,
        positions: Option<Tensor<B, 1, Int>>,
        pass: Pass<'_>,
    ) -> Tensor<B, 2> {
        let mut tables = vec![self.words.lookup(batch.ids(), pass)];
        if let Some(table) = &self.token_types {
            tables.push(table.lookup(batch.type_ids(), pass));
        }
        if let (Some(table), Some(positions)) = (&self.positions, positions) {
            tables.push(table.lookup(positions, pass));
        }
        let hidden = self.norm.forward(sum_lookups(tables), pass);
        dropout(hidden, self.dropout, pass.mode)
    }

    /// Sets the dropout behind the norm.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.dropout = dropout;
    }

    /// Walks a visitor over the tables and the norm.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        visitor.embedding("embeddings.word_embeddings", &mut self.words)?;
        if let Some(table) = &mut self.positions {
            visitor.embedding("embeddings.position_embeddings", table)?;
        }
        if let Some(table) = &mut self.token_types {
            visitor.embedding("embeddings.token_type_embeddings", table)?;
        }
        visitor.layer_norm("embeddings.LayerNorm", &mut self.norm)
    }
}

/// Each token's position as RoBERTa and MPNet count them: the first behind `pad_id`, while
/// a padding token, which a text may spell out, stays at `pad_id` itself and is not counted.
///
/// # Shapes
/// - output: `[rows]`
pub(super) fn positions_behind_padding<B: Backend>(
    batch: &TokenBatch<B>,
    pad_id: usize,
) -> Tensor<B, 1, Int> {
    let pad_id = pad_id as i32;
    if !batch.texts().flatten().any(|&id| id == pad_id) {
        return batch.packing().positions() + (pad_id + 1);
    }
    let mut positions = Vec::with_capacity(batch.tokens());
    for text in batch.texts() {
        let mut position = pad_id;
        positions.extend(text.iter().map(|&id| match id == pad_id {
            true => pad_id,
            false => {
                position += 1;
                position
            }
        }));
    }
    let positions = batch.packing().layout().to_rows(positions);
    let rows = positions.len();
    Tensor::from_data(TensorData::new(positions, [rows]), &batch.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::text::Encoding;

    #[test]
    fn a_text_s_positions_begin_behind_the_padding_s_and_leave_it_out() {
        let encodings = [vec![0, 9, 1, 9, 2], vec![0, 2]].map(|ids| Encoding {
            type_ids: vec![0; ids.len()],
            ids,
        });
        let encodings: Vec<&Encoding> = encodings.iter().collect();
        let batch = TokenBatch::<TestBackend>::pack(&encodings, 0, [10, 0], &device()).unwrap();
        let positions = positions_behind_padding(&batch, 1).into_data();
        let positions: Vec<i32> = positions.iter().collect();
        assert_eq!(positions, [2, 3, 1, 4, 5, 2, 3]);
    }
}
