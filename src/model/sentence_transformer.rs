use std::sync::Arc;

use burn::module::{Module, ParamId};
use burn::tensor::{Tensor, backend::Backend};

use super::{
    Mode, ModelCardData, ModelConfig, ModelParts, Rows, SimilarityFunction, WeightsReport,
};
use crate::adapter::{AdapterRegistry, Pass};
use crate::encoder::{AdapterParams, Encoder, Params};
use crate::error::Result;
use crate::kernel::Packing;
use crate::modules::{Features, SentenceModule, TokenFeatures, check_pipeline};
use crate::state_dict::{ParamVisitor, TrainableNames};
use crate::text::{Encoding, Prompts, TextTokenizer, TokenBatch};

/// A sentence-embedding model: text in, vectors out.
///
/// Generic over a Burn backend: on `NdArray` it encodes on the CPU, on `Wgpu` or `Cuda`
/// on a GPU, and on `Autodiff<…>` of any of them it trains. It is a Burn
/// [`Module`], so `valid()`, `to_device()` and the like work as on any other.
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
    pub(super) encoder: Encoder<B>,
    pub(super) modules: Vec<SentenceModule<B>>,
    #[module(skip)]
    pub(super) tokenizer: TextTokenizer,
    #[module(skip)]
    pub(super) config: Arc<ModelConfig>,
    #[module(skip)]
    pub(super) adapters: AdapterRegistry,
    /// The size of an embedding before `truncate_dim`.
    #[module(skip)]
    pub(super) output_dim: usize,
}

impl<B: Backend> SentenceTransformer<B> {
    /// Puts a model together.
    ///
    /// # Errors
    /// [`ModuleError`](crate::error::ModuleError) where the parts do not fit each other.
    pub fn from_parts(parts: ModelParts<B>) -> Result<Self> {
        let hidden = parts.config.encoder.hidden_size();
        Ok(Self {
            output_dim: check_pipeline(&parts.modules, hidden)?,
            encoder: parts.encoder,
            modules: parts.modules,
            tokenizer: parts.tokenizer,
            config: Arc::new(parts.config),
            adapters: AdapterRegistry::default(),
        })
    }

    /// The same model with other modules behind the encoder.
    ///
    /// # Errors
    /// [`ModuleError`](crate::error::ModuleError) where they do not fit the encoder or each
    /// other.
    pub fn with_modules(self, modules: Vec<SentenceModule<B>>) -> Result<Self> {
        Ok(Self {
            output_dim: check_pipeline(&modules, self.config.encoder.hidden_size())?,
            modules,
            ..self
        })
    }

    /// Turns a batch into sentence embeddings, before any `truncate_dim`; differentiable.
    ///
    /// # Shapes
    /// - batch: `[tokens]`, at least one text
    /// - output: `[texts, dim]`
    pub fn forward(&self, batch: &TokenBatch<B>, mode: Mode) -> Tensor<B, 2> {
        self.forward_pass(batch, Pass::new(mode))
    }

    /// Turns a batch into sentence embeddings, through the adapters that `pass` says.
    ///
    /// # Shapes
    /// - batch: `[tokens]`, at least one text
    /// - output: `[texts, dim]`
    pub fn forward_pass(&self, batch: &TokenBatch<B>, pass: Pass<'_>) -> Tensor<B, 2> {
        self.embed_tokens(self.forward_tokens(batch, pass))
    }

    /// Turns a batch into the sentence embeddings that each of the encoder's layers would
    /// give, were it the last: first those of the encoder's input, last those of
    /// [`forward_pass`](Self::forward_pass).
    ///
    /// # Shapes
    /// - batch: `[tokens]`, at least one text
    /// - output: `[texts, dim]` each
    pub fn forward_layers(&self, batch: &TokenBatch<B>, pass: Pass<'_>) -> Vec<Tensor<B, 2>> {
        let packing = Packing::new(batch.lengths().clone(), &batch.device());
        let layers = self.encoder.forward_layers(batch, &packing, pass);
        let embed = |embeddings| {
            self.embed_tokens(TokenFeatures {
                embeddings,
                prompt_tokens: batch.prompt_tokens(),
                packing: packing.clone(),
            })
        };
        layers.into_iter().map(embed).collect()
    }

    /// Applies the modules behind the encoder.
    fn embed_tokens(&self, tokens: TokenFeatures<B>) -> Tensor<B, 2> {
        let features = self
            .modules
            .iter()
            .fold(Features::Tokens(tokens), |features, module| {
                module.forward(features)
            });
        match features {
            Features::Sentences(sentences) => sentences,
            // `check_pipeline` has seen to it that pooling comes first.
            Features::Tokens(tokens) => tokens.embeddings,
        }
    }

    /// Turns a batch into token embeddings.
    pub(super) fn forward_tokens(&self, batch: &TokenBatch<B>, pass: Pass<'_>) -> TokenFeatures<B> {
        let packing = Packing::new(batch.lengths().clone(), &batch.device());
        TokenFeatures {
            embeddings: self.encoder.forward(batch, &packing, pass),
            prompt_tokens: batch.prompt_tokens(),
            packing,
        }
    }

    /// Tokenizes texts into one batch for [`forward`](Self::forward), each with `prompt`
    /// in front: special tokens around them, cut at
    /// [`max_seq_length`](Self::max_seq_length).
    ///
    /// # Errors
    /// [`TextError`](crate::error::TextError) if the tokenizer fails on a text, or knows a
    /// token that the encoder does not.
    pub fn tokenize<T: AsRef<str>>(
        &self,
        texts: &[T],
        prompt: Option<&str>,
        device: &B::Device,
    ) -> Result<TokenBatch<B>> {
        let encodings = self.tokenizer.encode(texts, prompt)?;
        let prompt_tokens = self.tokenizer.prompt_tokens(prompt.unwrap_or_default())?;
        self.pack(&encodings.iter().collect::<Vec<_>>(), prompt_tokens, device)
    }

    pub(super) fn pack(
        &self,
        encodings: &[&Encoding],
        prompt_tokens: usize,
        device: &B::Device,
    ) -> Result<TokenBatch<B>> {
        let encoder = &self.config.encoder;
        let tables = [encoder.vocab_size(), encoder.type_vocab_size()];
        TokenBatch::pack(encodings, prompt_tokens, tables, device)
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
        let truncate_dim = self.config.truncate_dim.unwrap_or(self.output_dim);
        truncate_dim.min(self.output_dim)
    }

    /// The size of an embedding before any `truncate_dim`: what
    /// [`forward`](Self::forward) gives.
    pub fn output_dim(&self) -> usize {
        self.output_dim
    }

    /// The number of tokens a text is cut to, special tokens included.
    pub fn max_seq_length(&self) -> usize {
        self.tokenizer.max_length()
    }

    /// Sets the number of tokens a text is cut to, special tokens included.
    ///
    /// # Errors
    /// [`TextError::MaxLengthTooSmall`](crate::error::TextError) or
    /// [`TextError::MaxLengthTooLarge`](crate::error::TextError) where the special tokens
    /// or the encoder's positions leave no room.
    pub fn set_max_seq_length(&mut self, max_length: usize) -> Result<()> {
        let most = self.config.encoder.token_limit();
        self.tokenizer = self.tokenizer.clone().with_max_length(max_length, most)?;
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

    /// The encoder.
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

    /// Sets every dropout, the encoder's and the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.encoder.set_dropout(dropout);
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

    /// Visits every parameter: the encoder's, the adapters' behind `adapter/`, the modules'
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
        for (index, module) in self.modules.iter_mut().enumerate() {
            let path = format!("{}_{}.", index + 1, module.type_name());
            module.visit_params(&path, visitor)?;
        }
        Ok(())
    }
}
