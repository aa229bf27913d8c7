#![allow(
    clippy::large_enum_variant,
    reason = "of a layer's updates, most are the largest kind"
)]

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use super::pass::NamedAdapter;
use super::{HadamardUpdate, KroneckerUpdate, LowRankUpdate, Rescale};
use crate::error::Result;
use crate::kernel::PackedWeight;
use crate::state_dict::ParamVisitor;

/// What an adapter adds to a linear layer, or changes about it.
#[derive(Module, Debug)]
pub enum LinearUpdate<B: Backend> {
    /// LoRA and AdaLoRA.
    LowRank(LowRankUpdate<B>),
    /// IA³.
    Rescale(Rescale<B>),
    /// LoHa.
    Hadamard(HadamardUpdate<B>),
    /// LoKr.
    Kronecker(KroneckerUpdate<B>),
}

/// One adapter of one linear layer.
#[derive(Module, Debug)]
pub struct LinearAdapter<B: Backend> {
    #[module(skip)]
    pub(super) name: String,
    #[module(skip)]
    pub(super) place: Option<usize>,
    pub(super) update: Option<LinearUpdate<B>>,
    /// A weight in place of the layer's own.
    pub(super) weight: Option<Param<Tensor<B, 2>>>,
    /// A bias in place of the layer's own.
    pub(super) bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    pub(super) packed: PackedWeight,
}

impl<B: Backend> NamedAdapter for LinearAdapter<B> {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> Option<usize> {
        self.place
    }

    fn set_place(&mut self, place: Option<usize>) {
        self.place = place;
    }
}

impl<B: Backend> LinearAdapter<B> {
    /// Visits the adapter's parameters, keyed behind the layer's path as in PEFT's files.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        match &mut self.update {
            Some(LinearUpdate::LowRank(update)) => update.visit_params(path, visitor)?,
            Some(LinearUpdate::Rescale(update)) => update.visit_params(path, visitor)?,
            Some(LinearUpdate::Hadamard(update)) => update.visit_params(path, visitor)?,
            Some(LinearUpdate::Kronecker(update)) => update.visit_params(path, visitor)?,
            None => {}
        }
        if let Some(weight) = &mut self.weight {
            visitor.visit(format!("{path}.weight"), weight)?;
        }
        if let Some(bias) = &mut self.bias {
            // An updated layer's own parameters lie one deeper in PEFT's wrapper.
            let base = match self.update {
                Some(_) => ".base_layer",
                None => "",
            };
            visitor.visit(format!("{path}{base}.bias"), bias)?;
        }
        Ok(())
    }

    /// The low-rank update, if it is one.
    pub(super) fn low_rank(&self) -> Option<&LowRankUpdate<B>> {
        match &self.update {
            Some(LinearUpdate::LowRank(update)) => Some(update),
            _ => None,
        }
    }

    pub(super) fn set_dropout(&mut self, dropout: f64) {
        match &mut self.update {
            Some(LinearUpdate::LowRank(update)) => update.set_dropout(dropout),
            Some(LinearUpdate::Hadamard(update)) => update.set_dropout(dropout),
            Some(LinearUpdate::Kronecker(update)) => update.set_dropout(dropout),
            Some(LinearUpdate::Rescale(_)) | None => {}
        }
    }

    /// The update, if a kernel can add it to the layer's product row by row.
    pub(super) fn sum(&self) -> Option<&LowRankUpdate<B>> {
        let is_alone = self.weight.is_none() && self.bias.is_none();
        self.low_rank()
            .filter(|update| update.is_sum() && is_alone && update.rest().is_none())
    }
}
