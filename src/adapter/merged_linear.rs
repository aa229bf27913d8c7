use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use super::layer::frozen;
use super::{LinearAdapter, LinearUpdate};
use crate::error::Result;
use crate::kernel::PackedWeight;
use crate::state_dict::ParamVisitor;

/// A linear layer with adapters folded in; the layer's own parameters stay as they are.
#[derive(Module, Debug)]
pub struct MergedLinear<B: Backend> {
    pub(super) weight: Param<Tensor<B, 2>>,
    pub(super) bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    pub(super) packed: PackedWeight,
}

impl<B: Backend> MergedLinear<B> {
    /// A layer's weight and bias with adapters folded in; none where there is no adapter.
    pub(super) fn fold(
        weight: Tensor<B, 2>,
        bias: Option<Tensor<B, 1>>,
        adapters: &[&LinearAdapter<B>],
    ) -> Option<Self> {
        if adapters.is_empty() {
            return None;
        }
        let base = (weight, bias);
        let merged = adapters
            .iter()
            .fold(base.clone(), |(weight, bias), adapter| {
                match &adapter.update {
                    None => (weight, bias),
                    Some(LinearUpdate::Rescale(rescale)) => rescale.merge(weight, bias),
                    Some(LinearUpdate::Hadamard(update)) => (weight + update.delta(), bias),
                    Some(LinearUpdate::Kronecker(update)) => (weight + update.delta(), bias),
                    Some(LinearUpdate::LowRank(update)) => update.merge((weight, bias), &base),
                }
            });
        let (weight, bias) = merged;
        Some(Self {
            weight: frozen(weight),
            bias: bias.map(frozen),
            packed: PackedWeight::default(),
        })
    }

    /// Visits the folded parameters, keyed behind the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)?;
        match &mut self.bias {
            Some(bias) => visitor.visit(format!("{path}.bias"), bias),
            None => Ok(()),
        }
    }
}
