use burn::module::Module;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{canonical_key, load_layers};
use super::embeddings::positions_behind_padding;
use super::fields::{
    activation, invalid, read_fields, require_epsilon, require_layers, require_multiple,
    require_probabilities, require_sizes,
};
use super::{
    Architecture, FeedForwardNames, LayerVisitor, PostNormLayer, PostNormLayerConfig,
    PostNormLayerNames, SelfAttentionNames, TokenEmbeddings, TokenEmbeddingsConfig,
};
use crate::adapter::{AdaptedEmbedding, AdaptedLinear, AdaptedLinearConfig, AdapterRoute, Pass};
use crate::error::Result;
use crate::kernel::{Activation, Packing};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What the encoder's names begin with in checkpoints of an MPNet with a head.
const HEAD_PREFIXES: &[&str] = &["mpnet."];

/// The padding token that MPNet counts positions from, whatever `pad_token_id` says.
const PAD_ID: usize = 1;

/// The buckets that `transformers` sorts distances into, whatever
/// `relative_attention_num_buckets` says: that is the size of the table alone.
const BUCKETS: usize = 32;

/// The distance from which on all fall into the last bucket.
const MAX_DISTANCE: f64 = 128.0;

/// The fields of an MPNet's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/2004.09297>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct MPNetConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: String,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: usize,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub relative_attention_num_buckets: usize,
}

impl Default for MPNetConfig {
    /// The defaults of `transformers`.
    fn default() -> Self {
        Self {
            vocab_size: 30527,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            relative_attention_num_buckets: BUCKETS,
        }
    }
}

impl MPNetConfig {
    /// Reads and checks the fields of a `config.json`.
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
        require_epsilon("layer_norm_eps", self.layer_norm_eps)?;
        require_layers(&[("num_hidden_layers", self.num_hidden_layers)])?;
        require_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            (
                "relative_attention_num_buckets",
                self.relative_attention_num_buckets,
            ),
        ])?;
        require_multiple("hidden_size", self.hidden_size, self.num_attention_heads)?;
        require_probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ])?;
        for (field, found, least) in [
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                PAD_ID + 2,
            ),
            (
                "relative_attention_num_buckets",
                self.relative_attention_num_buckets,
                BUCKETS,
            ),
        ] {
            if found < least {
                return Err(invalid(field, format!("at least {least}"), found));
            }
        }
        activation("hidden_act", &self.hidden_act).map(|_| ())
    }

    /// An encoder with fresh weights and a pooler.
    pub fn init<B: Backend>(&self, device: &B::Device) -> MPNet<B> {
        let embeddings = TokenEmbeddingsConfig {
            vocab_size: self.vocab_size,
            positions: Some(self.max_position_embeddings),
            token_types: None,
            embedding_size: self.hidden_size,
            dropout: self.hidden_dropout_prob,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let layer = PostNormLayerConfig {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            // `from_json` has checked the name; one set by hand falls back to MPNet's own.
            activation: activation("hidden_act", &self.hidden_act).unwrap_or(Activation::Gelu),
            attention_dropout: self.attention_probs_dropout_prob,
            attention_output_dropout: Some(self.hidden_dropout_prob),
            feed_forward_dropout: Some(self.hidden_dropout_prob),
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let pooler = AdaptedLinearConfig {
            d_input: self.hidden_size,
            d_output: self.hidden_size,
            bias: true,
            initializer_range: self.initializer_range,
        };
        MPNet {
            embeddings: embeddings.init(device),
            layers: (0..self.num_hidden_layers)
                .map(|_| layer.init(device))
                .collect(),
            relative_attention_bias: AdaptedEmbedding::init(
                self.relative_attention_num_buckets,
                self.num_attention_heads,
                self.initializer_range,
                device,
            ),
            pooler: Some(pooler.init(device)),
            heads: self.num_attention_heads,
        }
    }

    /// An encoder with the weights of a state dict; what it does not use stays there.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(
        &self,
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<MPNet<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut mpnet = self.init(device);
        if !tensors.contains(&format!("{POOLER}.weight")) {
            mpnet.pooler = None;
        }
        load_layers(tensors, device, |visitor| mpnet.visit_layers(visitor))?;
        Ok(mpnet)
    }
}

impl Architecture for MPNetConfig {
    fn shares_a_table(&self) -> bool {
        true
    }

    fn model_type(&self) -> &str {
        "mpnet"
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// The positions up to the padding token's are nobody's.
    fn max_tokens(&self) -> usize {
        self.max_position_embeddings.saturating_sub(PAD_ID + 1)
    }

    fn default_lora_targets(&self) -> &'static [&'static str] {
        &["q", "v"]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        HEAD_PREFIXES
    }
}

const LAYER: PostNormLayerNames = PostNormLayerNames {
    attention: SelfAttentionNames {
        query: "attention.attn.q",
        key: "attention.attn.k",
        value: "attention.attn.v",
        output: "attention.attn.o",
        norm: "attention.LayerNorm",
    },
    feed_forward: FeedForwardNames {
        intermediate: "intermediate.dense",
        output: "output.dense",
        norm: "output.LayerNorm",
    },
};

const POOLER: &str = "pooler.dense";

/// MPNet's encoder: RoBERTa's without segments, with a bias on the attention scores by how
/// far tokens lie apart, which all layers share.
#[derive(Module, Debug)]
pub struct MPNet<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    layers: Vec<PostNormLayer<B>>,
    /// `[buckets, heads]`
    relative_attention_bias: AdaptedEmbedding<B>,
    /// Takes no part in token embeddings, as BERT's.
    pooler: Option<AdaptedLinear<B>>,
    #[module(skip)]
    heads: usize,
}

impl<B: Backend> MPNet<B> {
    /// Turns token ids into token embeddings.
    ///
    /// # Shapes
    /// - batch: `[tokens]`
    /// - output: `[tokens, hidden]`
    pub(super) fn fold_layers(
        &self,
        batch: &TokenBatch<B>,
        packing: &Packing<B>,
        pass: Pass<'_>,
        see: &mut dyn FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2> {
        let positions = positions_behind_padding(batch, PAD_ID);
        let hidden = self.embeddings.forward(batch, Some(positions), pass);
        let bias = self.position_bias(packing, pass);
        see(&hidden);
        self.layers.iter().fold(hidden, |hidden, layer| {
            let hidden = layer.forward(hidden, Some(bias.clone()), packing, pass);
            see(&hidden);
            hidden
        })
    }

    /// What each query adds to its score of each key: for all texts the same, through the
    /// first one's adapters.
    ///
    /// # Shapes
    /// - output: `[heads, width, width]`
    fn position_bias(&self, packing: &Packing<B>, pass: Pass<'_>) -> Tensor<B, 3> {
        let width = packing.width();
        let buckets: Vec<i32> = (0..width)
            .flat_map(|query| (0..width).map(move |key| bucket(query, key) as i32))
            .collect();
        let buckets = TensorData::new(buckets, [width * width]);
        let first = pass.routes.and_then(|routes| routes.first());
        let route = first.map(|route| AdapterRoute {
            tokens: 0..width * width,
            adapters: route.adapters.clone(),
        });
        let pass = Pass {
            routes: route.as_ref().map(std::slice::from_ref),
            ..pass
        };
        self.relative_attention_bias
            .forward(Tensor::from_data(buckets, packing.device()), pass)
            .reshape([width, width, self.heads])
            .permute([2, 0, 1])
    }

    /// Sets the dropout of every layer but the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.embeddings.set_dropout(dropout);
        for layer in &mut self.layers {
            layer.set_dropout(dropout);
        }
    }

    /// Walks a visitor over the layers under their Hugging Face paths.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        self.embeddings.visit_layers(visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_layers(&format!("encoder.layer.{index}"), &LAYER, visitor)?;
        }
        visitor.embedding(
            "encoder.relative_attention_bias",
            &mut self.relative_attention_bias,
        )?;
        match &mut self.pooler {
            Some(pooler) => visitor.linear(POOLER, pooler),
            None => Ok(()),
        }
    }
}

/// The bucket of a key at its distance from a query: one for each small distance, ever
/// wider ones for greater, the keys behind the query in the second half
/// (`relative_position_bucket` of `transformers`, in its single precision).
fn bucket(query: usize, key: usize) -> usize {
    let (each_side, exact) = (BUCKETS / 2, BUCKETS / 4);
    let distance = query.abs_diff(key);
    let within = if distance < exact {
        distance
    } else {
        let range = (MAX_DISTANCE / exact as f64).ln() as f32;
        let log = (distance as f32 / exact as f32).ln() / range;
        let wide = (log * (each_side - exact) as f32) as usize;
        (exact + wide).min(each_side - 1)
    };
    if key > query {
        each_side + within
    } else {
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_where_the_reference_s_do() {
        // The first distance of each bucket; the generator of the fixture checks the same.
        let firsts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for distance in 0..600 {
            let within = firsts.partition_point(|&first| first <= distance) - 1;
            assert_eq!(bucket(distance, 0), within, "{distance}");
            let behind = if distance == 0 { within } else { 16 + within };
            assert_eq!(bucket(7, 7 + distance), behind, "{distance}");
        }
    }
}
