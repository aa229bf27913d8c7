use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::dataset::Dataset;
use crate::loss::Labels;

/// How the texts of a column are embedded.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ColumnPass {
    /// The adapters, where they are not the active ones.
    pub adapters: Option<Arc<[String]>>,
    /// What is put in front of each text.
    pub prompt: Option<String>,
    /// What they are embedded for, by which a Router chooses a route.
    pub task: Option<String>,
}

/// The texts of one batch, and the seed of its dropout masks.
pub(super) struct TextBatch<'a> {
    pub(super) columns: Vec<Vec<&'a str>>,
    labels: Option<Vec<&'a [f32]>>,
    pub(super) seed: u64,
    /// What is special about each column; nothing if empty.
    passes: &'a [ColumnPass],
}

impl<'a> TextBatch<'a> {
    pub(super) fn read(dataset: &'a Dataset, batch: &[u32], seed: u64) -> Self {
        let column =
            |texts: &'a Vec<String>| batch.iter().map(|&i| texts[i as usize].as_str()).collect();
        let labels = |rows: &'a [Vec<f32>]| batch.iter().map(|&i| &rows[i as usize][..]).collect();
        Self {
            columns: dataset.columns().iter().map(column).collect(),
            labels: dataset.labels().map(labels),
            seed,
            passes: &[],
        }
    }

    /// The same with what is special about its columns.
    pub(super) fn with_columns(self, passes: &'a [ColumnPass]) -> Self {
        Self { passes, ..self }
    }

    /// Whether all columns are embedded in the same way.
    pub(super) fn is_embedded_alike(&self) -> bool {
        self.passes.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// What is special about a column.
    pub(super) fn pass(&self, column: usize) -> Option<&'a ColumnPass> {
        self.passes.get(column)
    }

    pub(super) fn labels<B: Backend>(&self, device: &B::Device) -> Option<Labels<B>> {
        let rows = self.labels.as_ref()?;
        Some(Labels::from_rows(rows.iter().copied(), device))
    }
}
