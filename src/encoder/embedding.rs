use burn::module::{Initializer, Module, Param};
use burn::tensor::{Int, Tensor, backend::Backend};

use crate::error::Result;
use crate::kernel::embed;
use crate::state_dict::ParamVisitor;

/// A table of embeddings.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// `[entries, hidden]`
    weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> Embedding<B> {
    /// A fresh table, drawn when it is first used.
    pub fn init(entries: usize, hidden: usize, initializer_range: f64, device: &B::Device) -> Self {
        let weight = Initializer::Normal {
            mean: 0.0,
            std: initializer_range,
        };
        Self {
            weight: weight.init([entries, hidden], device),
        }
    }

    /// Looks up embeddings.
    ///
    /// # Shapes
    /// - ids: `[tokens]`, each below the number of entries
    /// - output: `[tokens, hidden]`
    pub fn forward(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        embed(vec![self.lookup(ids)])
    }

    /// The table with what to look up in it, for a sum of several
    /// ([`embed`](crate::kernel::embed)).
    pub fn lookup(&self, ids: Tensor<B, 1, Int>) -> (Tensor<B, 2>, Tensor<B, 1, Int>) {
        (self.weight.val(), ids)
    }

    /// Visits the parameters under the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)
    }
}
