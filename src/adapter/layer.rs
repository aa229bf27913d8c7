use burn::module::Param;
use burn::tensor::{Tensor, backend::Backend};

use super::embedding::{EmbeddingAdapter, MergedEmbedding};
use super::layer_norm::{LayerNormAdapter, MergedLayerNorm};
use super::linear_adapter::LinearAdapter;
use super::merged_linear::MergedLinear;
use super::pass::NamedAdapter;
use super::rms_norm::{MergedRmsNorm, RmsNormAdapter};
use super::{LayerKind, LayerPlan};
use crate::error::Result;
use crate::state_dict::ParamVisitor;

/// A layer that carries any number of named adapters.
pub trait AdaptedLayer<B: Backend> {
    /// What kind of layer it is.
    fn kind(&self) -> LayerKind;

    /// An adapter as planned for this layer. Its weights are drawn when they are first
    /// used; what replaces the layer's own parameters begins as a copy of them. `fresh` says
    /// whether the weights will be used, or loaded over.
    ///
    /// # Errors
    /// [`AdapterError`](crate::error::AdapterError) where the layer's weight does not allow
    /// what is planned.
    fn new_adapter(&self, name: &str, plan: &LayerPlan, fresh: bool) -> Result<LayerAdapter<B>>;

    /// Sets DoRA's magnitudes to those that change nothing, where the adapter has some.
    fn init_magnitude(&self, adapter: &mut LayerAdapter<B>);

    /// Adds an adapter, in place of one of the same name.
    fn add_adapter(&mut self, adapter: LayerAdapter<B>);

    /// Removes the adapter of that name; the layer is then as if it had never had it.
    fn remove_adapter(&mut self, name: &str);

    /// Says which adapters take part in the forward pass, in this order.
    fn activate_adapters(&mut self, active: &[String]);

    /// Sets the dropout of every adapter.
    fn set_adapter_dropout(&mut self, dropout: f64);

    /// The layer's parameters with the active adapters folded in; none where no active
    /// adapter is on the layer.
    fn merge_adapters(&self) -> Option<MergedLayer<B>>;

    /// Uses folded parameters in place of the layer's own and its adapters, until it is
    /// given none.
    fn set_merged(&mut self, merged: Option<MergedLayer<B>>);

    /// Makes folded parameters, if it uses some, the layer's own, and removes all adapters.
    fn unload(&mut self);
}

/// One adapter of one layer, of whatever kind.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "on its way into a layer, one at a time"
)]
pub enum LayerAdapter<B: Backend> {
    /// Of a linear layer.
    Linear(LinearAdapter<B>),
    /// Of an embedding table.
    Embedding(EmbeddingAdapter<B>),
    /// Of a layer norm.
    LayerNorm(LayerNormAdapter<B>),
    /// Of a root-mean-square norm.
    RmsNorm(RmsNormAdapter<B>),
}

impl<B: Backend> LayerAdapter<B> {
    /// Visits the adapter's parameters, keyed behind the layer's path as in PEFT's files.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        match self {
            Self::Linear(adapter) => adapter.visit_params(path, visitor),
            Self::Embedding(adapter) => adapter.visit_params(path, visitor),
            Self::LayerNorm(adapter) => adapter.visit_params(path, visitor),
            Self::RmsNorm(adapter) => adapter.visit_params(path, visitor),
        }
    }
}

/// A layer's parameters with adapters folded in.
#[derive(Debug)]
pub enum MergedLayer<B: Backend> {
    /// Of a linear layer.
    Linear(MergedLinear<B>),
    /// Of an embedding table.
    Embedding(MergedEmbedding<B>),
    /// Of a layer norm.
    LayerNorm(MergedLayerNorm<B>),
    /// Of a root-mean-square norm.
    RmsNorm(MergedRmsNorm<B>),
}

impl<B: Backend> MergedLayer<B> {
    /// Visits the folded parameters, keyed behind the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        match self {
            Self::Linear(merged) => merged.visit_params(path, visitor),
            Self::Embedding(merged) => merged.visit_params(path, visitor),
            Self::LayerNorm(merged) => merged.visit_params(path, visitor),
            Self::RmsNorm(merged) => merged.visit_params(path, visitor),
        }
    }
}

/// A trained parameter that begins as a copy of another.
pub(super) fn copy_of<B: Backend, const D: usize>(
    param: &Param<Tensor<B, D>>,
) -> Param<Tensor<B, D>> {
    Param::from_tensor(param.val().detach())
}

/// A parameter that is never trained.
pub(super) fn frozen<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::from_tensor(tensor.detach()).set_require_grad(false)
}

/// Gives a parameter another value; it is trained or not as before.
pub(super) fn assign<B: Backend, const D: usize>(
    param: &mut Param<Tensor<B, D>>,
    value: Param<Tensor<B, D>>,
) {
    *param = param.clone().map(|old| {
        let trained = old.is_require_grad();
        value.val().set_require_grad(trained)
    });
}

/// Puts an adapter in the place of one of the same name, or behind all others.
pub(super) fn replace_or_push<A: NamedAdapter>(adapters: &mut Vec<A>, mut adapter: A) {
    match adapters.iter_mut().find(|old| old.name() == adapter.name()) {
        Some(old) => {
            adapter.set_place(old.place());
            *old = adapter;
        }
        None => adapters.push(adapter),
    }
}
