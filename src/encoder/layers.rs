use burn::tensor::backend::Backend;

use crate::adapter::{
    AdaptedEmbedding, AdaptedLayer, AdaptedLayerNorm, AdaptedLinear, AdaptedRmsNorm,
};
use crate::error::Result;
use crate::state_dict::ParamVisitor;

/// Something that is done to an encoder's layers under their Hugging Face paths.
///
/// Each architecture walks a visitor over its layers once, in one place; loading,
/// saving, freezing and adapting all go that way.
pub trait LayerVisitor<B: Backend> {
    /// Visits a linear layer.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn linear(&mut self, path: &str, layer: &mut AdaptedLinear<B>) -> Result<()>;

    /// Visits an embedding table.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn embedding(&mut self, path: &str, layer: &mut AdaptedEmbedding<B>) -> Result<()>;

    /// Visits a layer norm.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn layer_norm(&mut self, path: &str, layer: &mut AdaptedLayerNorm<B>) -> Result<()>;

    /// Visits a root-mean-square norm.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn rms_norm(&mut self, path: &str, layer: &mut AdaptedRmsNorm<B>) -> Result<()>;
}

/// Does something to every parameter of the base model, adapters left out.
#[derive(Debug)]
pub struct Params<V>(pub V);

impl<B: Backend, V: ParamVisitor<B>> LayerVisitor<B> for Params<V> {
    fn linear(&mut self, path: &str, layer: &mut AdaptedLinear<B>) -> Result<()> {
        layer.visit_params(path, &mut self.0)
    }

    fn embedding(&mut self, path: &str, layer: &mut AdaptedEmbedding<B>) -> Result<()> {
        layer.visit_params(path, &mut self.0)
    }

    fn layer_norm(&mut self, path: &str, layer: &mut AdaptedLayerNorm<B>) -> Result<()> {
        layer.visit_params(path, &mut self.0)
    }

    fn rms_norm(&mut self, path: &str, layer: &mut AdaptedRmsNorm<B>) -> Result<()> {
        layer.visit_params(path, &mut self.0)
    }
}

/// Does something to every parameter of one adapter.
#[derive(Debug)]
pub struct AdapterParams<'a, V> {
    /// The adapter's name.
    pub name: &'a str,
    /// What stands in front of the layers' paths.
    pub prefix: &'a str,
    /// What is done.
    pub visitor: V,
}

impl<V> AdapterParams<'_, V> {
    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl<B: Backend, V: ParamVisitor<B>> LayerVisitor<B> for AdapterParams<'_, V> {
    fn linear(&mut self, path: &str, layer: &mut AdaptedLinear<B>) -> Result<()> {
        layer.visit_adapter(self.name, &self.key(path), &mut self.visitor)
    }

    fn embedding(&mut self, path: &str, layer: &mut AdaptedEmbedding<B>) -> Result<()> {
        layer.visit_adapter(self.name, &self.key(path), &mut self.visitor)
    }

    fn layer_norm(&mut self, path: &str, layer: &mut AdaptedLayerNorm<B>) -> Result<()> {
        layer.visit_adapter(self.name, &self.key(path), &mut self.visitor)
    }

    fn rms_norm(&mut self, path: &str, layer: &mut AdaptedRmsNorm<B>) -> Result<()> {
        layer.visit_adapter(self.name, &self.key(path), &mut self.visitor)
    }
}

/// Does something to every layer, whatever its kind.
#[derive(Debug)]
pub struct Layers<F>(pub F);

impl<B: Backend, F> LayerVisitor<B> for Layers<F>
where
    F: FnMut(&str, &mut dyn AdaptedLayer<B>) -> Result<()>,
{
    fn linear(&mut self, path: &str, layer: &mut AdaptedLinear<B>) -> Result<()> {
        (self.0)(path, layer)
    }

    fn embedding(&mut self, path: &str, layer: &mut AdaptedEmbedding<B>) -> Result<()> {
        (self.0)(path, layer)
    }

    fn layer_norm(&mut self, path: &str, layer: &mut AdaptedLayerNorm<B>) -> Result<()> {
        (self.0)(path, layer)
    }

    fn rms_norm(&mut self, path: &str, layer: &mut AdaptedRmsNorm<B>) -> Result<()> {
        (self.0)(path, layer)
    }
}

/// Does something to every linear layer.
#[derive(Debug)]
pub struct Linears<F>(pub F);

impl<B: Backend, F> LayerVisitor<B> for Linears<F>
where
    F: FnMut(&str, &mut AdaptedLinear<B>) -> Result<()>,
{
    fn linear(&mut self, path: &str, layer: &mut AdaptedLinear<B>) -> Result<()> {
        (self.0)(path, layer)
    }

    fn embedding(&mut self, _: &str, _: &mut AdaptedEmbedding<B>) -> Result<()> {
        Ok(())
    }

    fn layer_norm(&mut self, _: &str, _: &mut AdaptedLayerNorm<B>) -> Result<()> {
        Ok(())
    }

    fn rms_norm(&mut self, _: &str, _: &mut AdaptedRmsNorm<B>) -> Result<()> {
        Ok(())
    }
}
