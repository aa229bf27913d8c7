use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::load_layers;
use super::fields::{read_fields, require_sizes};
use super::{Architecture, LayerVisitor};
use crate::adapter::{AdaptedEmbedding, Pass};
use crate::error::Result;
use crate::kernel::Packing;
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What model2vec calls its table, which Sentence Transformers calls [`TABLE`].
const MODEL2VEC_TABLE: &str = "embeddings";

/// The key of the table.
const TABLE: &str = "embedding.weight";

/// The size of a StaticEmbedding's table; no file says it but the weights themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticEmbeddingConfig {
    /// The number of token ids.
    pub vocab_size: usize,
    /// The size of an embedding.
    pub hidden_size: usize,
}

impl StaticEmbeddingConfig {
    /// Reads and checks the two sizes.
    ///
    /// # Errors
    /// [`EncoderError::Malformed`](crate::error::EncoderError) or
    /// [`EncoderError::InvalidField`](crate::error::EncoderError).
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config: Self = read_fields(fields)?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        require_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
        ])
    }

    /// Reads the sizes off the weights. What model2vec wrote, a table with perhaps a row for
    /// several tokens and a weight for each token, becomes a table with a row for each
    /// (`StaticEmbedding._fold_model2vec_weights` of Sentence Transformers).
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of another
    /// shape, [`EncoderError::InvalidField`](crate::error::EncoderError) where a token has no
    /// row.
    pub fn from_weights(tensors: &mut StateDict) -> Result<Self> {
        if !tensors.contains(TABLE) && tensors.contains(MODEL2VEC_TABLE) {
            let indices = tensors.contains("mapping").then_some("mapping");
            let weights = tensors.contains("weights").then_some("weights");
            tensors.fold_rows(MODEL2VEC_TABLE, indices, weights, TABLE)?;
        }
        let [vocab_size, hidden_size] = tensors.matrix_shape(TABLE)?;
        let config = Self {
            vocab_size,
            hidden_size,
        };
        config.validate()?;
        Ok(config)
    }

    /// A table with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> StaticEmbedding<B> {
        StaticEmbedding {
            // As `torch.nn.EmbeddingBag` draws them.
            table: AdaptedEmbedding::init(self.vocab_size, self.hidden_size, 1.0, device),
        }
    }

    /// A table with the weights of a state dict; what it does not use stays there.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(
        &self,
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<StaticEmbedding<B>> {
        let mut embedding = self.init(device);
        load_layers(tensors, device, |visitor| embedding.visit_layers(visitor))?;
        Ok(embedding)
    }
}

impl Architecture for StaticEmbeddingConfig {
    fn model_type(&self) -> &str {
        "static_embedding"
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn max_tokens(&self) -> usize {
        usize::MAX
    }

    fn embeds_positions(&self) -> bool {
        false
    }

    fn default_lora_targets(&self) -> &'static [&'static str] {
        &[]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        &[]
    }
}

/// A table of embeddings and nothing behind it: a text's embedding is the mean of its
/// tokens', wherever they stand.
#[derive(Module, Debug)]
pub struct StaticEmbedding<B: Backend> {
    table: AdaptedEmbedding<B>,
}

impl<B: Backend> StaticEmbedding<B> {
    /// Turns token ids into token embeddings.
    ///
    /// # Shapes
    /// - batch: `[tokens]`
    /// - output: `[tokens, hidden]`
    pub(super) fn fold_layers(
        &self,
        batch: &TokenBatch<B>,
        _: &Packing<B>,
        pass: Pass<'_>,
        see: &mut dyn FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2> {
        let embeddings = self.table.forward(batch.ids(), pass);
        see(&embeddings);
        embeddings
    }

    /// Does nothing: there is no dropout.
    pub fn set_dropout(&mut self, _: f64) {}

    /// Walks a visitor over the table.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        visitor.embedding("embedding", &mut self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::{Error, StateDictError};
    use burn::tensor::TensorData;

    fn table(tensors: &mut StateDict) -> Vec<f32> {
        let config = StaticEmbeddingConfig::from_weights(tensors).unwrap();
        let shape = [config.vocab_size, config.hidden_size];
        let table = tensors.take::<TestBackend, 2>(TABLE, shape, &device());
        table.unwrap().into_data().iter().collect()
    }

    #[test]
    fn model2vec_s_rows_are_folded_to_one_for_each_token() {
        let with = |more: &[(&str, TensorData)]| {
            let mut tensors = StateDict::new("test");
            let rows = TensorData::new(vec![1.0f32, 2.0, 3.0, 4.0], [2, 2]);
            tensors.insert("embeddings", rows);
            for (key, data) in more {
                tensors.insert(*key, data.clone());
            }
            tensors
        };
        let mapping = || ("mapping", TensorData::new(vec![1i64, 0, 1], [3]));
        let weights = || ("weights", TensorData::new(vec![1.0f64, 0.5, 2.0], [3]));
        assert_eq!(table(&mut with(&[])), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(
            table(&mut with(&[mapping()])),
            [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]
        );
        assert_eq!(
            table(&mut with(&[mapping(), weights()])),
            [3.0, 4.0, 0.5, 1.0, 6.0, 8.0]
        );
        // A weight too many, and a row that is not there.
        let error = StaticEmbeddingConfig::from_weights(&mut with(&[weights()])).unwrap_err();
        assert!(
            matches!(&error, Error::StateDict(StateDictError::ShapeMismatch { key, .. }) if key == "weights"),
            "{error}"
        );
        for index in [2, -1] {
            let beyond = ("mapping", TensorData::new(vec![index as i64], [1]));
            let error = StaticEmbeddingConfig::from_weights(&mut with(&[beyond])).unwrap_err();
            assert!(
                matches!(&error, Error::StateDict(StateDictError::NoSuchRow { row, rows: 2, .. }) if *row == index),
                "{error}"
            );
        }
        let error = StaticEmbeddingConfig::from_weights(&mut StateDict::new("test")).unwrap_err();
        assert!(matches!(
            error,
            Error::StateDict(StateDictError::Missing { .. })
        ));
    }
}
