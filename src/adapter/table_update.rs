use burn::module::{Initializer, Module, Param};
use burn::tensor::{Int, Tensor, backend::Backend};

use super::low_rank_update::MAGNITUDE;
use super::{LowRank, Matrix};
use crate::error::Result;
use crate::state_dict::ParamVisitor;

/// How an embedding table is updated by LoRA.
#[derive(Debug, Clone, PartialEq)]
pub struct TableUpdateConfig {
    /// The rank.
    pub r: usize,
    /// The scale of the update.
    pub scaling: f64,
    /// Whether the fresh update changes nothing.
    pub is_no_op: bool,
    /// Whether direction and magnitude are apart (DoRA).
    pub use_dora: bool,
}

impl TableUpdateConfig {
    /// A fresh update of a table of that shape, drawn when it is first used.
    pub fn init<B: Backend>(
        &self,
        [entries, hidden]: [usize; 2],
        device: &B::Device,
    ) -> TableUpdate<B> {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        let a = [self.r, entries];
        TableUpdate {
            lora_a: match self.is_no_op {
                true => Initializer::Zeros.init(a, device),
                false => normal.init(a, device),
            },
            lora_b: normal.init([hidden, self.r], device),
            magnitude: self
                .use_dora
                .then(|| Initializer::Ones.init([hidden], device)),
            scaling: self.scaling,
        }
    }
}

/// The low-rank update `s · (B · A)ᵀ` of an embedding table
/// (LoRA, <https://arxiv.org/abs/2106.09685>). Nothing is dropped out, as in PEFT.
#[derive(Module, Debug)]
pub struct TableUpdate<B: Backend> {
    /// `[r, entries]`
    lora_a: Param<Tensor<B, 2>>,
    /// `[hidden, r]`
    lora_b: Param<Tensor<B, 2>>,
    /// `[hidden]`: DoRA's length of each of the table's columns.
    magnitude: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    scaling: f64,
}

impl<B: Backend> TableUpdate<B> {
    /// The rows of these entries, so far, with the update applied; `table` is the layer's.
    ///
    /// # Shapes
    /// - rows: `[tokens, hidden]`
    /// - ids: `[tokens]`
    /// - output: `[tokens, hidden]`
    pub(super) fn apply(
        &self,
        rows: Tensor<B, 2>,
        ids: Tensor<B, 1, Int>,
        table: &Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let thin = self.lora_a.val().select(1, ids).transpose();
        let updated = rows + thin.matmul(self.lora_b.val().transpose()) * self.scaling;
        self.rescaled(updated, table)
    }

    /// The table, so far, with the update folded in; `base` is the layer's own.
    pub(super) fn merge(&self, table: Tensor<B, 2>, base: &Tensor<B, 2>) -> Tensor<B, 2> {
        self.rescaled(table + self.delta(), base)
    }

    /// Sets DoRA's magnitude to that of the table with the update, which changes nothing.
    pub(super) fn init_magnitude(&mut self, table: &Tensor<B, 2>) {
        if self.magnitude.is_some() {
            self.magnitude = Some(Param::from_tensor(self.column_norms(table).detach()));
        }
    }

    /// `s · (B · A)ᵀ`, `[entries, hidden]`
    fn delta(&self) -> Tensor<B, 2> {
        let product = self.lora_b.val().matmul(self.lora_a.val());
        product.transpose() * self.scaling
    }

    /// A and B, and the scale of their product.
    pub fn factors(&self) -> (LowRank, f64) {
        let a = Matrix::from_tensor(self.lora_a.val());
        let b = Matrix::from_tensor(self.lora_b.val());
        (LowRank::from_factors(a, b), self.scaling)
    }

    /// Whether the update is A and B alone.
    pub fn is_plain(&self) -> bool {
        self.magnitude.is_none()
    }

    /// Rows scaled to DoRA's magnitudes, where the update has some.
    fn rescaled(&self, rows: Tensor<B, 2>, table: &Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.magnitude {
            Some(magnitude) => rows * (magnitude.val() / self.column_norms(table)).unsqueeze::<2>(),
            None => rows,
        }
    }

    /// The length of each column of the updated table, `[hidden]`, without gradient.
    fn column_norms(&self, table: &Tensor<B, 2>) -> Tensor<B, 1> {
        let sum = (table.clone() + self.delta()).detach();
        (sum.clone() * sum).sum_dim(0).sqrt().squeeze_dim(0)
    }

    /// Visits the parameters, keyed behind the layer's path as in PEFT's files.
    pub(super) fn visit_params<V: ParamVisitor<B>>(
        &mut self,
        path: &str,
        visitor: &mut V,
    ) -> Result<()> {
        visitor.visit(format!("{path}.lora_embedding_A"), &mut self.lora_a)?;
        visitor.visit(format!("{path}.lora_embedding_B"), &mut self.lora_b)?;
        match &mut self.magnitude {
            Some(magnitude) => visitor.visit(format!("{path}.{MAGNITUDE}"), magnitude),
            None => Ok(()),
        }
    }
}
