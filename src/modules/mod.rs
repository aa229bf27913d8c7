//! From token embeddings to a sentence embedding: the modules that `modules.json`
//! lists behind the transformer.
//!
//! Each is one file: its configuration as the folder holds it, the module, its forward
//! pass and its weights' names.

mod dense;
mod normalize;
mod pooling;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

pub use dense::{Dense, DenseConfig};
pub use normalize::Normalize;
pub use pooling::{Pooling, PoolingConfig, PoolingMode};

use crate::error::{ModuleError, Result};
use crate::kernel::Packing;
use crate::state_dict::ParamVisitor;

/// The module types this crate has, as the last part of their Python path.
pub const MODULE_TYPES: &[&str] = &["Transformer", "Pooling", "Dense", "Normalize"];

/// What flows through the modules.
#[derive(Debug, Clone)]
pub enum Features<B: Backend> {
    /// Before pooling: `[tokens, hidden]`.
    Tokens(TokenFeatures<B>),
    /// From pooling on: `[texts, dim]`.
    Sentences(Tensor<B, 2>),
}

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

/// A module behind the transformer.
#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a handful of modules"
)]
pub enum SentenceModule<B: Backend> {
    /// Token embeddings to one embedding a text.
    Pooling(Pooling),
    /// A linear layer with an activation.
    Dense(Dense<B>),
    /// Unit length.
    Normalize(Normalize),
}

impl<B: Backend> SentenceModule<B> {
    /// The module's type, as the last part of its Python path.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Pooling(_) => "Pooling",
            Self::Dense(_) => "Dense",
            Self::Normalize(_) => "Normalize",
        }
    }

    /// Applies the module.
    ///
    /// Pooling reads token features, the others sentence features; [`check_pipeline`]
    /// has made sure that this is what they get.
    pub fn forward(&self, features: Features<B>) -> Features<B> {
        match (self, features) {
            (Self::Pooling(pooling), Features::Tokens(tokens)) => {
                Features::Sentences(pooling.forward(tokens))
            }
            (Self::Dense(dense), Features::Sentences(sentences)) => {
                Features::Sentences(dense.forward(sentences))
            }
            (Self::Normalize(normalize), Features::Sentences(sentences)) => {
                Features::Sentences(normalize.forward(sentences))
            }
            (_, features) => features,
        }
    }

    /// The size of what comes out, for what goes in.
    ///
    /// # Errors
    /// [`ModuleError::DimensionMismatch`] naming `name` if the module reads another size.
    fn output_dim(&self, name: &str, input: usize) -> Result<usize> {
        let (expected, output) = match self {
            Self::Pooling(pooling) => (pooling.config().embedding_dimension, pooling.output_dim()),
            Self::Dense(dense) => (dense.config().in_features, dense.config().out_features),
            Self::Normalize(_) => (input, input),
        };
        if expected != input {
            return Err(ModuleError::DimensionMismatch {
                module: name.to_owned(),
                expected,
                found: input,
            }
            .into());
        }
        Ok(output)
    }

    /// Visits the parameters, keyed behind `path`.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        match self {
            Self::Dense(dense) => dense.visit_params(path, visitor),
            Self::Pooling(_) | Self::Normalize(_) => Ok(()),
        }
    }
}

/// Checks that the modules make a pipeline from token embeddings of size `hidden` to
/// sentence embeddings, and gives their size.
///
/// # Errors
/// [`ModuleError::InvalidPipeline`] where pooling is missing, doubled or misplaced,
/// [`ModuleError::DimensionMismatch`] where sizes do not meet.
pub fn check_pipeline<B: Backend>(modules: &[SentenceModule<B>], hidden: usize) -> Result<usize> {
    let mut dim = hidden;
    for (index, module) in modules.iter().enumerate() {
        let name = format!("{}_{}", index + 1, module.type_name());
        let is_pooling = matches!(module, SentenceModule::Pooling(_));
        if is_pooling != (index == 0) {
            let reason = "the modules behind the Transformer must be one Pooling first, then \
                          Dense or Normalize";
            return Err(ModuleError::InvalidPipeline {
                reason: reason.to_owned(),
            }
            .into());
        }
        dim = module.output_dim(&name, dim)?;
    }
    if modules.is_empty() {
        let reason = "there is no Pooling module: the model gives token embeddings only";
        return Err(ModuleError::InvalidPipeline {
            reason: reason.to_owned(),
        }
        .into());
    }
    Ok(dim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    fn pooling(dim: usize) -> SentenceModule<TestBackend> {
        SentenceModule::Pooling(PoolingConfig::new(dim, [PoolingMode::Mean]).init())
    }

    fn dense(from: usize, to: usize) -> SentenceModule<TestBackend> {
        SentenceModule::Dense(DenseConfig::new(from, to).init(&device()))
    }

    #[test]
    fn a_pipeline_is_pooling_first_and_sizes_that_meet() {
        assert!(matches!(
            check_pipeline(
                &[
                    pooling(4),
                    dense(4, 2),
                    SentenceModule::Normalize(Normalize)
                ],
                4
            ),
            Ok(2)
        ));
        for modules in [vec![], vec![dense(4, 2)], vec![pooling(4), pooling(4)]] {
            assert!(matches!(
                check_pipeline(&modules, 4),
                Err(Error::Module(ModuleError::InvalidPipeline { .. }))
            ));
        }
        assert!(matches!(
            check_pipeline(&[pooling(4), dense(5, 2)], 4),
            Err(Error::Module(ModuleError::DimensionMismatch {
                expected: 5,
                found: 4,
                ..
            }))
        ));
    }
}
