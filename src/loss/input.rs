use burn::tensor::{Tensor, backend::Backend};

use super::Labels;

/// What a loss sees of one batch.
#[derive(Debug, Clone)]
pub struct LossInput<B: Backend> {
    /// The embeddings, `[batch, dim]` for each text column, in column order.
    pub embeddings: Vec<Tensor<B, 2>>,
    /// The labels, where the data has any.
    pub labels: Option<Labels<B>>,
    /// The same texts as the guide model embeds them, `[batch, guide_dim]` a column and
    /// without gradients, for a loss that [asks for them](super::Loss::needs_guide).
    pub guide: Vec<Tensor<B, 2>>,
    /// The embeddings that each layer before the last would give, the encoder's input
    /// first: by layer, then by column, for a loss that
    /// [asks for them](super::Loss::needs_layers).
    pub layers: Vec<Vec<Tensor<B, 2>>>,
    /// What the loss draws at random follows from this.
    pub seed: u64,
}

impl<B: Backend> LossInput<B> {
    /// Embeddings and nothing else.
    ///
    /// # Shapes
    /// - embeddings: `[batch, dim]` for each text column
    pub fn new(embeddings: Vec<Tensor<B, 2>>) -> Self {
        Self {
            embeddings,
            labels: None,
            guide: Vec::new(),
            layers: Vec::new(),
            seed: 0,
        }
    }

    /// The same with labels, or without.
    #[must_use]
    pub fn with_labels(mut self, labels: Option<Labels<B>>) -> Self {
        self.labels = labels;
        self
    }

    /// The same with the embeddings of the guide model.
    #[must_use]
    pub fn with_guide(mut self, guide: Vec<Tensor<B, 2>>) -> Self {
        self.guide = guide;
        self
    }

    /// The same with the embeddings of the layers before the last.
    #[must_use]
    pub fn with_layers(mut self, layers: Vec<Vec<Tensor<B, 2>>>) -> Self {
        self.layers = layers;
        self
    }

    /// The same with another seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The embeddings of so many columns.
    pub(super) fn columns<const N: usize>(self, loss: &str) -> [Tensor<B, 2>; N] {
        let found = self.embeddings.len();
        match self.embeddings.try_into() {
            Ok(columns) => columns,
            Err(_) => panic!("{loss} reads {N} text columns, not {found}"),
        }
    }

    /// The labels of a loss that reads some.
    pub(super) fn take_labels(&mut self, loss: &str) -> Labels<B> {
        match self.labels.take() {
            Some(labels) => labels,
            None => panic!("{loss} reads labels"),
        }
    }
}
