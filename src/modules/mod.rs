//! From token embeddings to a sentence embedding: the modules that `modules.json`
//! lists behind the transformer, and the routes that a Router makes of them.
//!
//! Each is one file: its configuration as the folder holds it, the module, its forward
//! pass and its weights' names.

mod activation;
mod dense;
mod dropout;
mod features;
mod layer_norm;
mod normalize;
mod pooling;
mod route_mapping;
mod router;
mod weighted_layer_pooling;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

pub use activation::DenseActivation;
pub use dense::{Dense, DenseConfig};
pub use dropout::{Dropout, DropoutConfig};
pub use features::{FeatureShapes, Features, RowsOf, SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS};
pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use normalize::{Normalize, NormalizeConfig};
pub use pooling::{Pooling, PoolingConfig, PoolingMode};
pub use route_mapping::{Modality, RouteMapping};
pub use router::{Route, Router, Step, Way};
pub use weighted_layer_pooling::{WeightedLayerPooling, WeightedLayerPoolingConfig};

use crate::error::{ModuleError, Result};
use crate::kernel::{Mode, Packing};
use crate::state_dict::ParamVisitor;

/// The module types this crate has, as the last part of their Python path.
pub const MODULE_TYPES: &[&str] = &[
    "Transformer",
    "StaticEmbedding",
    "Router",
    "Asym",
    "Pooling",
    "WeightedLayerPooling",
    "Dense",
    "LayerNorm",
    "Dropout",
    "Normalize",
];

/// The token embeddings of a batch.
#[derive(Debug, Clone)]
pub struct TokenFeatures<B: Backend> {
    /// `[tokens, hidden]`
    pub embeddings: Tensor<B, 2>,
    /// Where each text lies in them.
    pub packing: Packing<B>,
    /// The number of leading tokens of each text that come from its prompt.
    pub prompt_tokens: usize,
}

/// A module behind the one that reads texts.
#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a handful of modules"
)]
pub enum SentenceModule<B: Backend> {
    /// Token embeddings to one embedding a text.
    Pooling(Pooling),
    /// The encoder's outputs to token embeddings.
    WeightedLayerPooling(WeightedLayerPooling<B>),
    /// A linear layer with an activation.
    Dense(Dense<B>),
    /// Layer normalisation.
    LayerNorm(LayerNorm<B>),
    /// Dropout.
    Dropout(Dropout),
    /// Unit length.
    Normalize(Normalize),
}

impl<B: Backend> SentenceModule<B> {
    /// The module's type, as the last part of its Python path.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Pooling(_) => "Pooling",
            Self::WeightedLayerPooling(_) => "WeightedLayerPooling",
            Self::Dense(_) => "Dense",
            Self::LayerNorm(_) => "LayerNorm",
            Self::Dropout(_) => "Dropout",
            Self::Normalize(_) => "Normalize",
        }
    }

    /// The features that the module reads and writes, by name.
    fn names(&self) -> (&str, &str) {
        match self {
            Self::Pooling(_) => (TOKEN_EMBEDDINGS, SENTENCE_EMBEDDING),
            Self::WeightedLayerPooling(_) => (TOKEN_EMBEDDINGS, TOKEN_EMBEDDINGS),
            Self::Dense(dense) => {
                let config = dense.config();
                (&config.module_input_name, config.output_name())
            }
            Self::Normalize(normalize) => {
                let config = normalize.config();
                (&config.module_input_name, config.output_name())
            }
            Self::LayerNorm(_) | Self::Dropout(_) => (SENTENCE_EMBEDDING, SENTENCE_EMBEDDING),
        }
    }

    /// Whether the module writes token embeddings.
    pub fn writes_tokens(&self) -> bool {
        self.names().1 == TOKEN_EMBEDDINGS
    }

    /// Applies the module: reads a feature and writes one.
    ///
    /// [`FeatureShapes`] have shown that it finds what it reads; what finds nothing changes
    /// nothing.
    pub fn forward(&self, mut features: Features<B>, mode: Mode) -> Features<B> {
        let (input_name, output_name) = self.names();
        let input = match self {
            Self::Pooling(pooling) => {
                if let Some(tokens) = features.tokens() {
                    features.insert(output_name, pooling.forward(tokens));
                }
                return features;
            }
            Self::WeightedLayerPooling(pooling) => {
                if let Some(tokens) = pooling.forward(features.layers()) {
                    features.insert(output_name, tokens);
                }
                return features;
            }
            _ if input_name == output_name => features.take(input_name),
            _ => features.get(input_name).cloned(),
        };
        let Some(input) = input else {
            return features;
        };
        let output = match self {
            Self::Dense(dense) => dense.forward(input, mode),
            Self::LayerNorm(norm) => norm.forward(input),
            Self::Dropout(dropout) => dropout.forward(input, mode),
            Self::Normalize(normalize) => normalize.forward(input),
            Self::Pooling(_) | Self::WeightedLayerPooling(_) => input,
        };
        features.insert(output_name, output);
        features
    }

    /// Follows the features through the module, which is called `name` in errors.
    ///
    /// # Errors
    /// [`ModuleError::InvalidPipeline`] where the module reads what none before it gives,
    /// [`ModuleError::DimensionMismatch`] where it reads another size, and
    /// [`ModuleError::UnsupportedField`] for what Python would compute over a batch.
    pub fn shape(&self, name: &str, features: &mut FeatureShapes) -> Result<()> {
        let (input, output) = self.names();
        match self {
            Self::Pooling(pooling) => {
                let expected = pooling.config().embedding_dimension;
                features.require_dim(name, input, expected)?;
                features.insert(output, RowsOf::Texts, pooling.output_dim());
            }
            Self::WeightedLayerPooling(pooling) => {
                let config = pooling.config();
                // Python leaves the token embeddings alone where a model gives no layers.
                let Some((found, dim)) = features.layers() else {
                    log::warn!(
                        "{name}: does nothing, as the encoder's config.json does not set \
                         `output_hidden_states`"
                    );
                    return Ok(());
                };
                let expected = config.num_hidden_layers + 1;
                if found != expected {
                    return Err(ModuleError::InvalidPipeline {
                        reason: format!(
                            "module `{name}` weighs the {expected} outputs of {} layers, the \
                             encoder gives {found}",
                            config.num_hidden_layers
                        ),
                    }
                    .into());
                }
                features.insert(output, RowsOf::Tokens, dim);
            }
            Self::Dense(dense) => {
                let config = dense.config();
                let rows = features.require_dim(name, input, config.in_features)?;
                if rows == RowsOf::Tokens && config.activation()?.is_over_an_embedding() {
                    return Err(ModuleError::UnsupportedField {
                        module: "Dense",
                        field: "activation_function",
                        found: format!("{} of token embeddings", config.activation_function),
                    }
                    .into());
                }
                features.insert(output, rows, config.output_dim());
            }
            Self::LayerNorm(norm) => {
                features.require_dim(name, input, norm.config().dimension)?;
            }
            Self::Dropout(_) => {
                features.require(name, input)?;
            }
            Self::Normalize(_) => {
                // As in Python, what is not there is not normalised.
                if let Some((rows, dim)) = features.get(input) {
                    features.insert(output, rows, dim);
                }
            }
        }
        Ok(())
    }

    /// Sets the dropout, if the module has one.
    pub fn set_dropout(&mut self, probability: f64) {
        if let Self::Dropout(dropout) = self {
            dropout.set_dropout(probability);
        }
    }

    /// Visits the parameters, keyed behind `path`.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        match self {
            Self::Dense(dense) => dense.visit_params(path, visitor),
            Self::LayerNorm(norm) => norm.visit_params(path, visitor),
            Self::WeightedLayerPooling(pooling) => pooling.visit_params(path, visitor),
            Self::Pooling(_) | Self::Dropout(_) | Self::Normalize(_) => Ok(()),
        }
    }
}

/// Follows the features through modules, each with its name, and gives the size of the
/// sentence embedding.
///
/// # Errors
/// As [`SentenceModule::shape`], and [`ModuleError::InvalidPipeline`] where no module gives a
/// sentence embedding.
pub fn check_pipeline<'a, B: Backend>(
    modules: impl IntoIterator<Item = (&'a str, &'a SentenceModule<B>)>,
    mut features: FeatureShapes,
) -> Result<usize> {
    for (name, module) in modules {
        module.shape(name, &mut features)?;
    }
    match features.get(SENTENCE_EMBEDDING) {
        Some((RowsOf::Texts, dim)) => Ok(dim),
        _ => Err(ModuleError::InvalidPipeline {
            reason: "no module gives a sentence embedding: there is no Pooling, the model gives \
                     token embeddings only"
                .to_owned(),
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    type TestModule = SentenceModule<TestBackend>;

    fn pooling(dim: usize) -> TestModule {
        SentenceModule::Pooling(PoolingConfig::new(dim, [PoolingMode::Mean]).init())
    }

    fn dense(from: usize, to: usize) -> TestModule {
        SentenceModule::Dense(DenseConfig::new(from, to).init(&device()))
    }

    fn named_dense(from: usize, to: usize, input: &str, output: Option<&str>) -> TestModule {
        let config = DenseConfig {
            module_input_name: input.to_owned(),
            module_output_name: output.map(str::to_owned),
            ..DenseConfig::new(from, to)
        };
        SentenceModule::Dense(config.init(&device()))
    }

    fn norm(dim: usize) -> TestModule {
        SentenceModule::LayerNorm(LayerNormConfig::new(dim).init(&device()))
    }

    fn check(modules: &[TestModule], features: FeatureShapes) -> Result<usize> {
        check_pipeline(modules.iter().map(|module| ("m", module)), features)
    }

    fn of_tokens() -> FeatureShapes {
        FeatureShapes::of_tokens(4, None)
    }

    #[test]
    fn modules_go_together_where_each_finds_what_it_reads() {
        let normalize = || SentenceModule::Normalize(Normalize::default());
        for (modules, dim) in [
            (vec![pooling(4), dense(4, 2), normalize()], 2),
            (vec![normalize(), pooling(4), norm(4)], 4),
            (
                vec![named_dense(4, 3, TOKEN_EMBEDDINGS, None), pooling(3)],
                3,
            ),
            (
                vec![pooling(4), named_dense(4, 3, SENTENCE_EMBEDDING, Some("x"))],
                4,
            ),
            (
                vec![
                    pooling(4),
                    named_dense(4, 3, SENTENCE_EMBEDDING, Some("x")),
                    named_dense(3, 5, "x", Some(SENTENCE_EMBEDDING)),
                ],
                5,
            ),
            (vec![pooling(4), pooling(4)], 4),
        ] {
            assert_eq!(check(&modules, of_tokens()).unwrap(), dim);
        }
        assert_eq!(
            check(&[dense(4, 2)], FeatureShapes::of_sentences(4)).unwrap(),
            2
        );
    }

    #[test]
    fn what_finds_nothing_or_another_size_is_named() {
        for modules in [
            vec![],
            vec![dense(4, 2)],
            vec![norm(4), pooling(4)],
            vec![SentenceModule::Dropout(DropoutConfig::default().init())],
            vec![pooling(4), named_dense(4, 3, "x", None)],
        ] {
            assert!(matches!(
                check(&modules, of_tokens()),
                Err(Error::Module(ModuleError::InvalidPipeline { .. }))
            ));
        }
        assert!(matches!(
            check(&[pooling(4)], FeatureShapes::of_sentences(4)),
            Err(Error::Module(ModuleError::InvalidPipeline { .. }))
        ));
        for modules in [[pooling(4), dense(5, 2)], [pooling(4), norm(5)]] {
            assert!(matches!(
                check(&modules, of_tokens()),
                Err(Error::Module(ModuleError::DimensionMismatch {
                    expected: 5,
                    found: 4,
                    ..
                }))
            ));
        }
    }

    #[test]
    fn layers_are_weighed_where_the_encoder_gives_them_and_as_many_as_there_are() {
        let weighted = |layers, start| -> TestModule {
            let config = WeightedLayerPoolingConfig::new(4, layers, start);
            SentenceModule::WeightedLayerPooling(config.init(&device()))
        };
        let with_layers = || FeatureShapes::of_tokens(4, Some(3));
        assert!(check(&[weighted(2, 1), pooling(4)], with_layers()).is_ok());
        assert!(check(&[weighted(12, 4), pooling(4)], of_tokens()).is_ok());
        assert!(matches!(
            check(&[weighted(12, 4), pooling(4)], with_layers()),
            Err(Error::Module(ModuleError::InvalidPipeline { .. }))
        ));
    }
}
