use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

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

impl Precision {
    /// The precision's name, as the reference has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }

    /// Whether values become steps in each dimension's range.
    pub(crate) fn has_steps(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }
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

impl QuantizedEmbeddings {
    /// The values as numbers, row-major: bytes and floats as they are, bits as 0 and 1,
    /// eight to a column.
    pub fn values_or_bits(&self, precision: Precision) -> Vec<f32> {
        match (&self.values, precision) {
            (QuantizedValues::I8(values), Precision::Binary) => {
                bits(values.iter().map(|&byte| (byte as u8) ^ 0x80)).collect()
            }
            (QuantizedValues::U8(values), Precision::Ubinary) => {
                bits(values.iter().copied()).collect()
            }
            (QuantizedValues::F32(values), _) => values.clone(),
            (QuantizedValues::I8(values), _) => values.iter().map(|&v| f32::from(v)).collect(),
            (QuantizedValues::U8(values), _) => values.iter().map(|&v| f32::from(v)).collect(),
        }
    }
}

/// The bits of bytes, the highest first.
fn bits(bytes: impl Iterator<Item = u8>) -> impl Iterator<Item = f32> {
    bytes.flat_map(|byte| (0..8).map(move |bit| f32::from(byte >> (7 - bit) & 1)))
}

/// Each dimension's least and greatest value: where the 256 steps of
/// [`Precision::Int8`] and [`Precision::Uint8`] lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizationRanges(Vec<(f32, f32)>);

impl QuantizationRanges {
    /// The ranges that these values span, a pair of least and greatest a dimension.
    pub fn new(ranges: Vec<(f32, f32)>) -> Self {
        Self(ranges)
    }

    /// The ranges of embeddings.
    ///
    /// # Shapes
    /// - embeddings: `[n, dim]`
    ///
    /// # Errors
    /// [`ModelError::InvalidOption`] if there is no embedding.
    pub fn of<B: Backend>(embeddings: Tensor<B, 2>) -> Result<Self> {
        let [rows, dim] = embeddings.dims();
        Self::of_rows(&to_host(embeddings), [rows, dim], 1)
    }

    /// The number of dimensions.
    pub fn dim(&self) -> usize {
        self.0.len()
    }

    /// Each dimension's least and greatest value.
    pub fn as_slice(&self) -> &[(f32, f32)] {
        &self.0
    }

    fn of_rows(values: &[f32], [rows, dim]: [usize; 2], at_least: usize) -> Result<Self> {
        if rows < at_least {
            return Err(ModelError::InvalidOption {
                option: "calibration",
                expected: match at_least {
                    1 => "at least one embedding to find each dimension's range",
                    _ => "another set of embeddings, or ranges: one embedding has no ranges",
                },
                found: format!("{rows} embeddings"),
            }
            .into());
        }
        let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); dim];
        for row in values.chunks(dim.max(1)) {
            for ((least, greatest), &value) in ranges.iter_mut().zip(row) {
                *least = least.min(value);
                *greatest = greatest.max(value);
            }
        }
        Ok(Self(ranges))
    }

    /// Each dimension's least value and the height of a step above it.
    pub(crate) fn steps(&self) -> Vec<(f32, f32)> {
        let step = |&(least, greatest): &(f32, f32)| {
            let height = (greatest - least) / 255.0;
            (least, if height == 0.0 { 1.0 } else { height })
        };
        self.0.iter().map(step).collect()
    }
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
/// [`ModelError::InvalidOption`] where steps are to be found from a single embedding or an
/// empty calibration, [`ModelError::IncompatibleEmbeddings`] where the calibration has
/// another dimension.
pub fn quantize_embeddings<B: Backend>(
    embeddings: Tensor<B, 2>,
    precision: Precision,
    calibration: Option<Tensor<B, 2>>,
) -> Result<QuantizedEmbeddings> {
    let [rows, dim] = embeddings.dims();
    let ranges = match (precision.has_steps() && rows > 0, calibration) {
        (false, _) => None,
        (true, Some(calibration)) => Some(QuantizationRanges::of(calibration)?),
        (true, None) => {
            if rows < 100 {
                log::warn!("ranges of only {rows} embeddings: 100 or more calibrate better");
            }
            let values = to_host(embeddings.clone());
            Some(QuantizationRanges::of_rows(&values, [rows, dim], 2)?)
        }
    };
    let ranges = ranges.unwrap_or_else(|| QuantizationRanges(vec![(0.0, 0.0); dim]));
    quantize_embeddings_with_ranges(embeddings, precision, &ranges)
}

/// As [`quantize_embeddings`], with the steps in ranges that are known: those that other
/// embeddings were quantized with.
///
/// # Shapes
/// - embeddings: `[n, dim]`
/// - output: `[n, dim]`, or `[n, ⌈dim / 8⌉]` of bits
///
/// # Errors
/// [`ModelError::IncompatibleEmbeddings`] where the ranges have another dimension.
pub fn quantize_embeddings_with_ranges<B: Backend>(
    embeddings: Tensor<B, 2>,
    precision: Precision,
    ranges: &QuantizationRanges,
) -> Result<QuantizedEmbeddings> {
    let [rows, dim] = embeddings.dims();
    if precision.has_steps() && ranges.dim() != dim {
        return Err(ModelError::IncompatibleEmbeddings {
            left: [rows, dim],
            right: [2, ranges.dim()],
            how: "to calibrate one by the other",
        }
        .into());
    }
    let embeddings = to_host(embeddings);
    let (columns, values) = match precision {
        Precision::Float32 => (dim, QuantizedValues::F32(embeddings)),
        Precision::Int8 | Precision::Uint8 => {
            let steps = ranges.steps();
            let place = |(value, &(least, height)): (&f32, &(f32, f32))| {
                ((value - least) / height).floor().clamp(0.0, 255.0) as u8
            };
            let bytes = embeddings.iter().zip(steps.iter().cycle()).map(place);
            let signed = precision == Precision::Int8;
            (dim, signed_if(signed, bytes.collect()))
        }
        Precision::Binary | Precision::Ubinary => {
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

fn to_host<B: Backend>(embeddings: Tensor<B, 2>) -> Vec<f32> {
    embeddings.into_data().iter().collect()
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
        let quantized = quantize_embeddings(none.clone(), Precision::Int8, None);
        assert!(quantized.is_ok_and(|q| q.shape == [0, 4]));
        let one = Tensor::<TestBackend, 2>::ones([1, 4], &device());
        let calibrated = |by: &Tensor<TestBackend, 2>| {
            quantize_embeddings(one.clone(), Precision::Uint8, Some(by.clone()))
        };
        assert!(calibrated(&one).is_ok_and(|q| q.values == QuantizedValues::U8(vec![0; 4])));
        assert!(calibrated(&none).is_err());
    }

    #[test]
    fn ranges_of_another_dimension_are_refused() {
        let embeddings = Tensor::<TestBackend, 2>::zeros([2, 4], &device());
        let ranges = QuantizationRanges::new(vec![(0.0, 1.0); 3]);
        let quantize =
            |precision| quantize_embeddings_with_ranges(embeddings.clone(), precision, &ranges);
        assert!(quantize(Precision::Int8).is_err());
        assert!(quantize(Precision::Ubinary).is_ok());
    }
}
