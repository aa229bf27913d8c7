use burn::tensor::{Tensor, backend::Backend};

use crate::error::{ModelError, Result};

/// The precision of stored embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As computed.
    #[default]
    Float32,
    /// One of 256 steps between each dimension's least and greatest value, -128 the least.
    Int8,
    /// The same, 0 the least.
    Uint8,
    /// Each dimension's sign as one bit, eight to a byte, less 128.
    Binary,
    /// The same as it is.
    Ubinary,
}

/// Embeddings in some precision, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum QuantizedValues {
    /// [`Precision::Float32`]
    F32(Vec<f32>),
    /// [`Precision::Int8`] and [`Precision::Binary`]
    I8(Vec<i8>),
    /// [`Precision::Uint8`] and [`Precision::Ubinary`]
    U8(Vec<u8>),
}

/// Embeddings in some precision.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedEmbeddings {
    /// Rows and columns; eight dimensions make one column of bits.
    pub shape: [usize; 2],
    /// The values, row-major.
    pub values: QuantizedValues,
}

/// Stores embeddings in fewer bits, as Sentence Transformers' `quantize_embeddings` does.
///
/// The 256 steps lie between each dimension's least and greatest value in `calibration`,
/// or in the embeddings themselves where that is `None`.
///
/// # Shapes
/// - embeddings: `[n, dim]`
/// - calibration: `[m, dim]`
/// - output: `[n, dim]`, or `[n, ⌈dim / 8⌉]` of bits
///
/// # Errors
/// [`ModelError::InvalidOption`] where steps are to be found from fewer than two
/// embeddings, [`ModelError::IncompatibleEmbeddings`] where the calibration has another
/// dimension.
pub fn quantize_embeddings<B: Backend>(
    embeddings: Tensor<B, 2>,
    precision: Precision,
    calibration: Option<Tensor<B, 2>>,
) -> Result<QuantizedEmbeddings> {
    let [rows, dim] = embeddings.dims();
    let to_host = |tensor: Tensor<B, 2>| -> Vec<f32> { tensor.into_data().iter().collect() };
    let (columns, values) = match precision {
        Precision::Float32 => (dim, QuantizedValues::F32(to_host(embeddings))),
        Precision::Int8 | Precision::Uint8 => {
            if let Some(calibration) = &calibration
                && calibration.dims()[1] != dim
            {
                return Err(ModelError::IncompatibleEmbeddings {
                    left: embeddings.dims(),
                    right: calibration.dims(),
                    how: "to calibrate one by the other",
                }
                .into());
            }
            let calibrating = calibration.as_ref().map_or(rows, |c| c.dims()[0]);
            if rows > 0 && calibrating < 2 {
                return Err(ModelError::InvalidOption {
                    option: "calibration",
                    expected: "at least two embeddings to find each dimension's range",
                    found: calibrating.to_string(),
                }
                .into());
            }
            if calibrating < 100 {
                log::warn!("ranges of only {calibrating} embeddings: 100 or more calibrate better");
            }
            let embeddings = to_host(embeddings);
            let steps = match calibration {
                Some(calibration) => Steps::of(&to_host(calibration), dim),
                None => Steps::of(&embeddings, dim),
            };
            let bytes = embeddings
                .iter()
                .enumerate()
                .map(|(i, v)| steps.place(*v, i % dim));
            (
                dim,
                signed_if(precision == Precision::Int8, bytes.collect()),
            )
        }
        Precision::Binary | Precision::Ubinary => {
            let embeddings = to_host(embeddings);
            // Rows of no dimensions have no bits; `chunks` takes no zero.
            let bytes = embeddings.chunks(dim.max(1)).flat_map(pack_bits).collect();
            let signed = precision == Precision::Binary;
            (dim.div_ceil(8), signed_if(signed, bytes))
        }
    };
    Ok(QuantizedEmbeddings {
        shape: [rows, columns],
        values,
    })
}

/// Each dimension's least value and the height of one of 255 steps.
struct Steps(Vec<(f32, f32)>);

impl Steps {
    fn of(values: &[f32], dim: usize) -> Self {
        let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); dim];
        for row in values.chunks(dim.max(1)) {
            for ((least, greatest), &value) in ranges.iter_mut().zip(row) {
                *least = least.min(value);
                *greatest = greatest.max(value);
            }
        }
        Self(
            ranges
                .into_iter()
                .map(|(least, greatest)| {
                    let height = (greatest - least) / 255.0;
                    (least, if height == 0.0 { 1.0 } else { height })
                })
                .collect(),
        )
    }

    fn place(&self, value: f32, dimension: usize) -> u8 {
        let (least, height) = self.0[dimension];
        ((value - least) / height).floor().clamp(0.0, 255.0) as u8
    }
}

/// One bit a dimension, the first the highest of its byte.
fn pack_bits(row: &[f32]) -> impl Iterator<Item = u8> + '_ {
    row.chunks(8).map(|dimensions| {
        let bits = dimensions.iter().enumerate();
        bits.fold(0, |byte, (i, &value)| {
            byte | (u8::from(value > 0.0) << (7 - i))
        })
    })
}

/// The bytes less 128 where they are to be signed.
fn signed_if(signed: bool, bytes: Vec<u8>) -> QuantizedValues {
    if signed {
        QuantizedValues::I8(bytes.into_iter().map(|byte| (byte ^ 0x80) as i8).collect())
    } else {
        QuantizedValues::U8(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    #[test]
    fn ranges_of_one_embedding_are_refused() {
        let one = Tensor::<TestBackend, 2>::zeros([1, 4], &device());
        assert!(quantize_embeddings(one.clone(), Precision::Int8, None).is_err());
        assert!(quantize_embeddings(one, Precision::Binary, None).is_ok());
        let none = Tensor::<TestBackend, 2>::empty([0, 4], &device());
        assert!(quantize_embeddings(none, Precision::Int8, None).is_ok_and(|q| q.shape == [0, 4]));
    }
}
