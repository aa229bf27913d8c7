use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::error::Result;
use crate::state_dict::ParamVisitor;

/// Rows of an embedding table that are trained by themselves, in place of the table's own
/// (`trainable_token_indices`).
#[derive(Module, Debug)]
pub struct TrainedTokens<B: Backend> {
    /// `[trained, hidden]`; a delta by PEFT's name alone.
    rows: Param<Tensor<B, 2>>,
    /// `[entries]`: one more than the place of each entry's row; 0 where it has none.
    places: Tensor<B, 1, Int>,
}

impl<B: Backend> TrainedTokens<B> {
    /// The rows of these entries, as the table has them.
    pub(super) fn new(ids: &[usize], table: &Tensor<B, 2>) -> Self {
        let device = table.device();
        let int = |values: Vec<i32>| {
            let count = values.len();
            Tensor::<B, 1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let mut places = vec![0; table.dims()[0]];
        for (place, &id) in ids.iter().enumerate() {
            places[id] = place as i32 + 1;
        }
        let ids = int(ids.iter().map(|&id| id as i32).collect());
        let rows = table.clone().select(0, ids).detach();
        Self {
            rows: Param::from_tensor(rows),
            places: int(places),
        }
    }

    /// The embeddings of these entries with the trained rows in place of the table's.
    ///
    /// # Shapes
    /// - embeddings: `[tokens, hidden]`
    /// - ids: `[tokens]`
    /// - output: `[tokens, hidden]`
    pub(super) fn apply(&self, embeddings: Tensor<B, 2>, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        let rows = self.rows.val();
        let [_, hidden] = rows.dims();
        // A row of zeros in front, for the entries that have none.
        let none = Tensor::zeros([1, hidden], &rows.device());
        let places = self.places.clone().select(0, ids);
        let trained = Tensor::cat(vec![none, rows], 0).select(0, places.clone());
        let is_untrained = places.equal_elem(0).float().unsqueeze_dim::<2>(1);
        embeddings * is_untrained + trained
    }

    /// The table with the trained rows in place.
    pub(super) fn merge(&self, table: Tensor<B, 2>) -> Tensor<B, 2> {
        let [entries, _] = table.dims();
        let all = Tensor::<B, 1, Int>::arange(0..entries as i64, &table.device());
        self.apply(table, all)
    }

    /// Visits the rows, keyed behind the layer's path as in PEFT's files.
    pub(super) fn visit_params<V: ParamVisitor<B>>(
        &mut self,
        path: &str,
        visitor: &mut V,
    ) -> Result<()> {
        visitor.visit(
            format!("{path}.token_adapter.trainable_tokens_delta"),
            &mut self.rows,
        )
    }
}
