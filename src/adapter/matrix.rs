use std::ops::Range;

use burn::tensor::{Tensor, TensorData, backend::Backend};
use faer::{Mat, MatRef};

use crate::error::{AdapterError, Result};

/// A matrix in host memory, row after row: what decompositions read and write.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    shape: [usize; 2],
    values: Vec<f32>,
}

impl Matrix {
    /// A matrix of these values, row after row.
    ///
    /// # Errors
    /// [`AdapterError::ShapeMismatch`] if there are more or fewer than the shape holds.
    pub fn new(shape: [usize; 2], values: Vec<f32>) -> Result<Self> {
        if values.len() != shape[0] * shape[1] {
            return Err(AdapterError::ShapeMismatch {
                what: "a matrix's values".to_owned(),
                expected: format!("those of {shape:?}"),
                found: format!("{} values", values.len()),
            }
            .into());
        }
        Ok(Self { shape, values })
    }

    /// The values of one computation, as many as the shape holds by construction.
    pub(super) fn filled(shape: [usize; 2], values: Vec<f32>) -> Self {
        debug_assert_eq!(values.len(), shape[0] * shape[1]);
        Self { shape, values }
    }

    /// A matrix of zeros.
    pub fn zeros(shape: [usize; 2]) -> Self {
        Self::filled(shape, vec![0.0; shape[0] * shape[1]])
    }

    /// A tensor's values.
    pub fn from_tensor<B: Backend>(tensor: Tensor<B, 2>) -> Self {
        Self {
            shape: tensor.dims(),
            values: tensor.into_data().iter().collect(),
        }
    }

    /// The matrix as a tensor.
    pub fn into_tensor<B: Backend>(self, device: &B::Device) -> Tensor<B, 2> {
        Tensor::from_data(TensorData::new(self.values, self.shape), device)
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The values, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows, first to last.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        // A matrix without columns has no values, whatever the size of a chunk.
        self.values.chunks_exact(self.shape[1].max(1))
    }

    /// The rows of these ranges, one behind the other.
    #[must_use]
    pub fn take_rows(&self, ranges: impl IntoIterator<Item = Range<usize>>) -> Self {
        let columns = self.shape[1];
        let mut values = Vec::new();
        for rows in ranges {
            values.extend_from_slice(&self.values[rows.start * columns..rows.end * columns]);
        }
        let rows = values.len().checked_div(columns).unwrap_or(0);
        Self::filled([rows, columns], values)
    }

    /// The first `columns` columns.
    pub(super) fn first_columns(&self, columns: usize) -> Self {
        let rows = self.rows().flat_map(|row| &row[..columns]);
        Self {
            shape: [self.shape[0], columns],
            values: rows.copied().collect(),
        }
    }

    /// The matrix with zeros behind its last row and column.
    pub(super) fn padded(&self, shape: [usize; 2]) -> Self {
        let mut padded = Self::zeros(shape);
        let targets = padded.values.chunks_exact_mut(shape[1].max(1));
        for (target, row) in targets.zip(self.rows()) {
            target[..row.len()].copy_from_slice(row);
        }
        padded
    }

    /// The values in double precision.
    pub(super) fn to_f64(&self) -> Mat<f64> {
        let columns = self.shape[1];
        Mat::from_fn(self.shape[0], columns, |row, column| {
            f64::from(self.values[row * columns + column])
        })
    }

    /// Double precision rounded.
    pub(super) fn from_f64(matrix: MatRef<'_, f64>) -> Self {
        let shape = [matrix.nrows(), matrix.ncols()];
        let mut values = Vec::with_capacity(shape[0] * shape[1]);
        for row in 0..shape[0] {
            values.extend((0..shape[1]).map(|column| matrix[(row, column)] as f32));
        }
        Self { shape, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    #[test]
    fn values_keep_their_places_on_every_way() {
        let matrix = Matrix::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!(matrix.to_f64()[(1, 0)], 4.0);
        assert_eq!(Matrix::from_f64(matrix.to_f64().as_ref()), matrix);
        let tensor = matrix.clone().into_tensor::<TestBackend>(&device());
        assert_eq!(Matrix::from_tensor(tensor), matrix);
        let first = matrix.first_columns(2);
        assert_eq!(first.values(), [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(
            first.padded([3, 3]).values(),
            [1.0, 2.0, 0.0, 4.0, 5.0, 0.0, 0.0, 0.0, 0.0]
        );
    }

    #[test]
    fn a_wrong_number_of_values_is_named() {
        let error = Matrix::new([2, 3], vec![0.0; 5]).unwrap_err();
        assert!(
            matches!(&error, Error::Adapter(AdapterError::ShapeMismatch { found, .. }) if found == "5 values"),
            "{error}"
        );
    }
}
