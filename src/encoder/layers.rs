use burn::tensor::backend::Backend;

use super::{Embedding, LayerNorm, RmsNorm};
use crate::adapter::LoraLinear;
use crate::error::Result;
use crate::state_dict::ParamVisitor;

/// Something that is done to an encoder's layers under their Hugging Face paths.
///
/// Each architecture walks a visitor over its layers once, in one place; loading,
/// saving, freezing and adapting all go that way.
pub trait LayerVisitor<B: Backend> {
    /// Visits a linear layer: the places that adapters go.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn linear(&mut self, path: &str, layer: &mut LoraLinear<B>) -> Result<()>;

    /// Visits an embedding table.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn embedding(&mut self, path: &str, layer: &mut Embedding<B>) -> Result<()>;

    /// Visits a layer norm.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn layer_norm(&mut self, path: &str, layer: &mut LayerNorm<B>) -> Result<()>;

    /// Visits a root-mean-square norm.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn rms_norm(&mut self, path: &str, layer: &mut RmsNorm<B>) -> Result<()>;
}

/// Does something to every parameter of the base model, adapters left out.
#[derive(Debug)]
pub struct Params<V>(pub V);

impl<B: Backend, V: ParamVisitor<B>> LayerVisitor<B> for Params<V> {
    fn linear(&mut self, path: &str, layer: &mut LoraLinear<B>) -> Result<()> {
        layer.visit_params(path, &mut self.0)
    }

    fn embedding(&mut self, path: &str, layer: &mut Embedding<B>) -> Result<()> {
        layer.visit_params(path, &mut self.0)
    }

    fn layer_norm(&mut self, path: &str, layer: &mut LayerNorm<B>) -> Result<()> {
        layer.visit_params(path, &mut self.0)
    }

    fn rms_norm(&mut self, path: &str, layer: &mut RmsNorm<B>) -> Result<()> {
        layer.visit_params(path, &mut self.0)
    }
}

/// Does something to every linear layer.
#[derive(Debug)]
pub struct Linears<F>(pub F);

impl<B: Backend, F> LayerVisitor<B> for Linears<F>
where
    F: FnMut(&str, &mut LoraLinear<B>) -> Result<()>,
{
    fn linear(&mut self, path: &str, layer: &mut LoraLinear<B>) -> Result<()> {
        (self.0)(path, layer)
    }

    fn embedding(&mut self, _: &str, _: &mut Embedding<B>) -> Result<()> {
        Ok(())
    }

    fn layer_norm(&mut self, _: &str, _: &mut LayerNorm<B>) -> Result<()> {
        Ok(())
    }

    fn rms_norm(&mut self, _: &str, _: &mut RmsNorm<B>) -> Result<()> {
        Ok(())
    }
}
