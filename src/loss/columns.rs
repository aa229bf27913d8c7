use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::error::{LossError, Result};

/// The columns that a loss reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// The text columns.
    pub texts: TextColumns,
    /// The label.
    pub label: LabelColumn,
}

/// How many text columns a loss reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextColumns {
    /// This many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
}

/// Whether a loss reads a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelColumn {
    /// No; one that is there is ignored.
    Ignored,
    /// A label of this many numbers, where there is one.
    Optional {
        /// The numbers of one label.
        width: usize,
    },
    /// Yes, of a width that depends on the text columns or the embeddings: see the loss.
    Dependent,
    /// Yes, a label of this many numbers.
    Required {
        /// The numbers of one label.
        width: usize,
    },
}

impl Columns {
    /// Checks that data with `texts` text columns and labels of `label` numbers is what
    /// `loss` reads.
    ///
    /// # Errors
    /// [`LossError::Columns`] or [`LossError::Label`].
    pub fn check(&self, loss: &'static str, texts: usize, label: Option<usize>) -> Result<()> {
        let (enough, expected) = match self.texts {
            TextColumns::Exactly(n) => (texts == n, format!("exactly {n}")),
            TextColumns::AtLeast(n) => (texts >= n, format!("at least {n}")),
        };
        if !enough {
            return Err(LossError::Columns {
                loss,
                expected,
                found: texts,
            }
            .into());
        }
        let (width, wrong) = match self.label {
            LabelColumn::Ignored => return Ok(()),
            LabelColumn::Optional { width } => (width, label.is_some_and(|found| found != width)),
            LabelColumn::Dependent => (1, label.is_none()),
            LabelColumn::Required { width } => (width, label != Some(width)),
        };
        if wrong {
            return Err(LossError::Label {
                loss,
                expected: width,
                found: label,
            }
            .into());
        }
        Ok(())
    }
}

/// The labels of a batch: one row a sample.
///
/// A score, a class or a 0/1 flag is a row of one number; a teacher's scores or
/// embedding is a row of several.
#[derive(Debug, Clone)]
pub struct Labels<B: Backend> {
    rows: Tensor<B, 2>,
}

impl<B: Backend> Labels<B> {
    /// Labels from their rows.
    ///
    /// # Shapes
    /// - rows: `[batch, width]`
    pub fn new(rows: Tensor<B, 2>) -> Self {
        Self { rows }
    }

    /// Labels from rows on the host, all of one length.
    pub fn from_rows<'a>(
        rows: impl ExactSizeIterator<Item = &'a [f32]>,
        device: &B::Device,
    ) -> Self {
        let batch = rows.len();
        let values: Vec<f32> = rows.flatten().copied().collect();
        let width = values.len().checked_div(batch).unwrap_or(0);
        Self::new(Tensor::from_data(
            TensorData::new(values, [batch, width]),
            device,
        ))
    }

    /// The labels as rows, `[batch, width]`.
    pub fn rows(self) -> Tensor<B, 2> {
        self.rows
    }

    /// The first number of each label, `[batch]`.
    pub fn values(self) -> Tensor<B, 1> {
        self.rows.narrow(1, 0, 1).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    #[test]
    fn counts_text_columns() {
        let pairs = Columns {
            texts: TextColumns::Exactly(2),
            label: LabelColumn::Ignored,
        };
        assert!(pairs.check("Some", 2, None).is_ok());
        assert!(pairs.check("Some", 2, Some(1)).is_ok());
        let Err(Error::Loss(LossError::Columns {
            expected, found, ..
        })) = pairs.check("Some", 3, None)
        else {
            panic!("three columns passed for exactly two");
        };
        assert_eq!((expected.as_str(), found), ("exactly 2", 3));
        let more = Columns {
            texts: TextColumns::AtLeast(2),
            ..pairs
        };
        assert!(more.check("Some", 5, None).is_ok());
        assert!(more.check("Some", 1, None).is_err());
    }

    #[test]
    fn asks_for_the_label_it_needs() {
        let scored = Columns {
            texts: TextColumns::Exactly(2),
            label: LabelColumn::Required { width: 1 },
        };
        assert!(scored.check("Some", 2, Some(1)).is_ok());
        for found in [None, Some(3)] {
            assert!(matches!(
                scored.check("Some", 2, found),
                Err(Error::Loss(LossError::Label { expected: 1, .. }))
            ));
        }
        let columns = |label| Columns { label, ..scored };
        let optional = columns(LabelColumn::Optional { width: 1 });
        assert!(optional.check("Some", 2, None).is_ok());
        assert!(optional.check("Some", 2, Some(1)).is_ok());
        assert!(optional.check("Some", 2, Some(2)).is_err());
        let dependent = columns(LabelColumn::Dependent);
        assert!(dependent.check("Some", 2, Some(7)).is_ok());
        assert!(dependent.check("Some", 2, None).is_err());
    }

    #[test]
    fn labels_keep_their_rows() {
        let rows = [[1.0, 2.0], [3.0, 4.0]];
        let labels = Labels::<TestBackend>::from_rows(rows.iter().map(|r| &r[..]), &device());
        let values: Vec<f32> = labels.clone().values().into_data().iter().collect();
        assert_eq!(labels.rows().dims(), [2, 2]);
        assert_eq!(values, [1.0, 3.0]);
    }
}
