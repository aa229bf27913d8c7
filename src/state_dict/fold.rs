use burn::tensor::{Bytes, TensorData};

use super::StateDict;
use crate::error::{Result, StateDictError};

impl StateDict {
    /// The shape of the matrix of that key.
    ///
    /// # Errors
    /// [`StateDictError::Missing`], or [`StateDictError::ShapeMismatch`] where it is no matrix.
    pub fn matrix_shape(&self, key: &str) -> Result<[usize; 2]> {
        let data = self.get(key).ok_or_else(|| self.missing(key))?;
        match data.shape[..] {
            [rows, columns] => Ok([rows, columns]),
            _ => {
                self.expect_shape(key, &[0, 0])?;
                Ok([0, 0])
            }
        }
    }

    /// Replaces the matrix `key` by one under `name` of the rows that the tensor `indices`
    /// numbers, each times its own of the tensor `weights`; without one of them, of all rows,
    /// or as they are.
    ///
    /// # Errors
    /// [`StateDictError::Missing`], [`StateDictError::ShapeMismatch`] or
    /// [`StateDictError::NoSuchRow`]; the state dict is then as it was.
    pub fn fold_rows(
        &mut self,
        key: &str,
        indices: Option<&str>,
        weights: Option<&str>,
        name: &str,
    ) -> Result<()> {
        let [rows, columns] = self.matrix_shape(key)?;
        let chosen = match indices {
            Some(indices) => Some(self.row_numbers(indices, rows)?),
            None => None,
        };
        let count = chosen.as_ref().map_or(rows, Vec::len);
        if let Some(weights) = weights {
            self.expect_shape(weights, &[count])?;
        }
        let (Some(table), weights) = (self.remove(key), weights.and_then(|w| self.remove(w)))
        else {
            return Err(self.missing(key).into());
        };
        if let Some(indices) = indices {
            self.remove(indices);
        }
        let table = match chosen {
            Some(chosen) => pick_rows(&table, &chosen, columns),
            None => table,
        };
        let table = match weights {
            Some(weights) => scale_rows(table, &weights, columns),
            None => table,
        };
        self.insert(name, table);
        Ok(())
    }

    /// The numbers in a tensor, each that of one of `rows` rows.
    fn row_numbers(&self, key: &str, rows: usize) -> Result<Vec<usize>> {
        let data = self.get(key).ok_or_else(|| self.missing(key))?;
        self.expect_shape(key, &[data.num_elements()])?;
        let number = |row: i64| {
            let found = usize::try_from(row).ok().filter(|&row| row < rows);
            found.ok_or_else(|| StateDictError::NoSuchRow {
                owner: self.owner.clone(),
                key: key.to_owned(),
                row,
                rows,
            })
        };
        Ok(data.iter::<i64>().map(number).collect::<Result<_, _>>()?)
    }
}

fn pick_rows(table: &TensorData, rows: &[usize], columns: usize) -> TensorData {
    let size = columns * table.dtype.size();
    let bytes = rows
        .iter()
        .flat_map(|&row| &table.as_bytes()[row * size..(row + 1) * size]);
    let bytes = Bytes::from_bytes_vec(bytes.copied().collect());
    TensorData::from_bytes(bytes, [rows.len(), columns], table.dtype)
}

/// In f64, whose product of two f32 is exact, so that it is rounded once.
fn scale_rows(table: TensorData, weights: &TensorData, columns: usize) -> TensorData {
    let shape = table.shape.clone();
    let weights: Vec<f64> = weights.iter().collect();
    let values = table.iter::<f64>().enumerate();
    let scaled = values.map(|(place, value)| (value * weights[place / columns.max(1)]) as f32);
    TensorData::new(scaled.collect::<Vec<f32>>(), shape)
}
