use std::sync::Arc;

use burn::module::{Module, ParamId};
use burn::tensor::{StreamId, Tensor, backend::Backend};

use super::routing::{ModelWay, model_ways, plain_steps};
use super::{
    ModelCardData, ModelConfig, ModelParts, RouteInput, Routing, Rows, SimilarityFunction,
    WeightsReport,
};
use crate::adapter::AdapterRegistry;
use crate::encoder::{AdapterParams, Encoder, Params};
use crate::error::{ModelError, Result};
use crate::modules::{SentenceModule, Step};
use crate::state_dict::{ParamVisitor, TrainableNames, WithPrefix};
use crate::text::{Prompts, TextTokenizer};

/// A sentence-embedding model: text in, vectors out.
///
/// Generic over a Burn backend: on `NdArray` it encodes on the CPU, on `Wgpu` or `Cuda`
/// on a GPU, and on `Autodiff<…>` of any of them it trains. It is a Burn
/// [`Module`], so `valid()`, `to_device()` and the like work as on any other.
///
/// Threads may share a model, on a GPU too. There, what it gives to one thread is better read
/// from the device (`into_data`) before it goes to another: Burn's fusion (0.21) may lose a
/// tensor that a thread takes over from one that is at work.
///
/// ```no_run
/// use burn::backend::NdArray;
/// use sentence_burn::SentenceTransformer;
///
/// let model = SentenceTransformer::<NdArray>::load("all-MiniLM-L6-v2", &Default::default())?;
/// let embeddings = model.encode(&["This is an example sentence", "Each sentence is converted"])?;
/// assert_eq!(embeddings.dims(), [2, 384]);
/// # Ok::<(), sentence_burn::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct SentenceTransformer<B: Backend> {
    /// The first Transformer, which adapters go on; where there is none, the table.
    pub(super) encoder: Encoder<B>,
    pub(super) modules: Vec<SentenceModule<B>>,
    /// What reads the texts of a Router's other routes.
    pub(super) others: Vec<RouteInput<B>>,
    #[module(skip)]
    pub(super) tokenizer: TextTokenizer,
    #[module(skip)]
    pub(super) config: Arc<ModelConfig>,
    #[module(skip)]
    pub(super) adapters: AdapterRegistry,
    #[module(skip)]
    pub(super) steps: Arc<[Step]>,
    /// The ways through the steps, at least one: first that of texts that are for no task.
    #[module(skip)]
    pub(super) ways: Arc<[ModelWay]>,
    /// Where its weights are made and changed, whatever thread does it: in the stream of the
    /// thread that put it together. To read them from others is safe; one that takes a tensor
    /// over from another stream may, with Burn's fusion (0.21), find something else in its place.
    #[module(skip)]
    pub(crate) home: StreamId,
}

impl<B: Backend> SentenceTransformer<B> {
    /// Puts a model together.
    ///
    /// # Errors
    /// [`ModuleError`](crate::error::ModuleError) where the parts do not fit each other.
    pub fn from_parts(parts: ModelParts<B>) -> Result<Self> {
        let steps = plain_steps(parts.modules.len());
        let inputs = Vec::new();
        Self::from_routed_parts(parts, Routing { inputs, steps })
    }

    /// Puts a model together in which a Router chooses between routes.
    ///
    /// # Errors
    /// [`ModuleError`](crate::error::ModuleError) where the parts do not fit each other.
    pub fn from_routed_parts(parts: ModelParts<B>, routing: Routing<B>) -> Result<Self> {
        let Routing { inputs, steps } = routing;
        let ways = model_ways(&steps, &parts.config, &inputs, &parts.modules)?;
        Ok(Self {
            encoder: parts.encoder,
            modules: parts.modules,
            others: inputs,
            tokenizer: parts.tokenizer,
            config: Arc::new(parts.config),
            adapters: AdapterRegistry::default(),
            steps: steps.into(),
            ways: ways.into(),
            home: StreamId::current(),
        })
    }

    /// The same model with other modules behind the encoder, in their order; a Router is gone.
    ///
    /// # Errors
    /// [`ModuleError`](crate::error::ModuleError) where they do not fit the encoder or each
    /// other.
    pub fn with_modules(self, modules: Vec<SentenceModule<B>>) -> Result<Self> {
        let steps = plain_steps(modules.len());
        let ways = model_ways::<B>(&steps, &self.config, &[], &modules)?;
        Ok(Self {
            modules,
            others: Vec::new(),
            steps: steps.into(),
            ways: ways.into(),
            ..self
        })
    }

    /// Compares embeddings by the model's similarity function; either side may be one
    /// vector.
    ///
    /// # Shapes
    /// - a: `[n, dim]` or `[dim]`
    /// - b: `[m, dim]` or `[dim]`
    /// - output: `[n, m]`
    ///
    /// # Errors
    /// [`ModelError::IncompatibleEmbeddings`](crate::error::ModelError) where the
    /// dimensions differ.
    pub fn similarity(&self, a: impl Rows<B>, b: impl Rows<B>) -> Result<Tensor<B, 2>> {
        self.similarity_fn().similarity(a, b)
    }

    /// Compares embeddings row by row by the model's similarity function.
    ///
    /// # Shapes
    /// - a, b: `[n, dim]` or `[dim]`
    /// - output: `[n]`
    ///
    /// # Errors
    /// [`ModelError::IncompatibleEmbeddings`](crate::error::ModelError) where the shapes
    /// differ.
    pub fn similarity_pairwise(&self, a: impl Rows<B>, b: impl Rows<B>) -> Result<Tensor<B, 1>> {
        self.similarity_fn().pairwise(a, b)
    }

    /// How this model's embeddings are compared.
    pub fn similarity_fn(&self) -> SimilarityFunction {
        self.config.similarity_fn
    }

    /// Sets how this model's embeddings are compared.
    pub fn set_similarity_fn(&mut self, similarity_fn: SimilarityFunction) {
        self.config_mut().similarity_fn = similarity_fn;
    }

    /// The size of an embedding.
    pub fn embedding_dim(&self) -> usize {
        let most = self.output_dim();
        self.config.truncate_dim.unwrap_or(most).min(most)
    }

    /// The size of an embedding before any `truncate_dim`: what
    /// [`forward`](Self::forward) gives of texts that are for no task.
    pub fn output_dim(&self) -> usize {
        self.ways[0].output_dim
    }

    /// The number of tokens a text is cut to, special tokens included; of a StaticEmbedding
    /// alone, which has no such number, the largest there is.
    pub fn max_seq_length(&self) -> usize {
        self.tokenizer.max_length()
    }

    /// Sets the number of tokens a text is cut to, special tokens included, by every
    /// Transformer.
    ///
    /// # Errors
    /// [`TextError::MaxLengthTooSmall`](crate::error::TextError) or
    /// [`TextError::MaxLengthTooLarge`](crate::error::TextError) where the special tokens
    /// or the encoder's positions leave no room, [`ModelError::InvalidOption`] where there is
    /// no Transformer; nothing is changed.
    pub fn set_max_seq_length(&mut self, max_length: usize) -> Result<()> {
        if self.config.encoder.is_static() {
            return Err(ModelError::InvalidOption {
                option: "max_seq_length",
                expected: "none: a StaticEmbedding reads texts of any length",
                found: max_length.to_string(),
            }
            .into());
        }
        let cut = |tokenizer: &TextTokenizer, most: usize| {
            tokenizer.clone().with_max_length(max_length, most)
        };
        let own = cut(&self.tokenizer, self.config.encoder.token_limit())?;
        let others = self.others.iter().map(|other| {
            let encoder = &other.config.encoder;
            match encoder.is_static() {
                true => Ok(other.tokenizer.clone()),
                false => cut(&other.tokenizer, encoder.token_limit()),
            }
        });
        let others: Vec<TextTokenizer> = others.collect::<Result<_>>()?;
        self.tokenizer = own;
        for (other, tokenizer) in self.others.iter_mut().zip(others) {
            other.tokenizer = tokenizer;
        }
        Ok(())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The model's named prompts.
    pub fn prompts(&self) -> &Prompts {
        &self.config.prompts
    }

    /// Replaces the model's named prompts.
    pub fn set_prompts(&mut self, prompts: Prompts) {
        self.config_mut().prompts = prompts;
    }

    /// The modules behind the encoder.
    pub fn modules(&self) -> &[SentenceModule<B>] {
        &self.modules
    }

    /// The encoder: the first Transformer, where a Router has several.
    pub fn encoder(&self) -> &Encoder<B> {
        &self.encoder
    }

    /// What the model is beside its weights.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What became of the tensors of the encoder's weights file.
    pub fn weights_report(&self) -> &WeightsReport {
        &self.config.weights
    }

    /// Sets what the model card says beside what the model itself knows.
    pub fn set_model_card_data(&mut self, card: ModelCardData) {
        self.config_mut().card = card;
    }

    /// What the model card says beside what the model itself knows, to be changed.
    pub fn model_card_data_mut(&mut self) -> &mut ModelCardData {
        &mut self.config_mut().card
    }

    pub(super) fn config_mut(&mut self) -> &mut ModelConfig {
        Arc::make_mut(&mut self.config)
    }

    /// Sets every dropout, the encoders', the modules' and the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.encoder.set_dropout(dropout);
        for other in &mut self.others {
            other.encoder.set_dropout(dropout);
        }
        for module in &mut self.modules {
            module.set_dropout(dropout);
        }
        self.for_each_layer(|_, layer| layer.set_adapter_dropout(dropout));
    }

    /// The trained parameters by name, and how many values they hold.
    ///
    /// Nothing is trained on a backend without gradients.
    pub fn trainable_parameters(&self) -> TrainableNames {
        let mut names = TrainableNames::default();
        let mut model = self.clone();
        // Counting cannot fail.
        let _ = model.visit_params(&mut names);
        names
    }

    /// The trained parameters' names and ids.
    pub fn named_trainable(&self) -> Vec<(String, ParamId)> {
        self.trainable_parameters().names
    }

    /// Visits every parameter: the encoder's, the adapters' behind `adapter/`, those of a
    /// Router's other encoders behind `query_0_StaticEmbedding.` and the like, the modules'
    /// behind `2_Dense.` and the like.
    pub(crate) fn visit_params<V: ParamVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        self.encoder.visit_layers(&mut Params(&mut *visitor))?;
        for name in self.adapters.names() {
            self.encoder.visit_layers(&mut AdapterParams {
                name: &name,
                prefix: &format!("{name}/"),
                visitor: &mut *visitor,
            })?;
        }
        let layout = self.layout();
        for (other, path) in self.others.iter_mut().zip(&layout.inputs[1..]) {
            let prefix = &format!("{path}.");
            let visitor = &mut *visitor;
            let mut visitor = Params(WithPrefix { prefix, visitor });
            other.encoder.visit_layers(&mut visitor)?;
        }
        for (module, path) in self.modules.iter_mut().zip(&layout.modules) {
            module.visit_params(&format!("{path}."), visitor)?;
        }
        Ok(())
    }
}
