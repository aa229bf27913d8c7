//! Whether tensors hold numbers alone.

use burn::tensor::{DType, TensorData};
use rayon::prelude::*;

/// The bytes that a thread looks through at once; a multiple of every element's size.
const PART: usize = 1 << 18;

/// The first of a tensor's values that is NaN or infinite: its place, row-major, and the value.
///
/// A value is neither number nor finite if all bits of its exponent are set. Adding one to the
/// exponent then carries into the sign's bit, so that a part is looked through without a branch.
pub(super) fn first_not_finite(data: &TensorData) -> Option<(usize, f64)> {
    let bytes = data.as_bytes();
    let has_one = |part: &[u8]| match data.dtype {
        DType::F64 => has_f64(part),
        DType::F32 | DType::Flex32 => has_f32(part),
        DType::F16 => has_16_bits(part, 0x0400),
        DType::BF16 => has_16_bits(part, 0x0080),
        _ => false,
    };
    let found = match bytes.len() > PART {
        true => bytes.par_chunks(PART).any(has_one),
        false => has_one(bytes),
    };
    if !found {
        return None;
    }
    let mut values = data.iter::<f64>().enumerate();
    values.find(|(_, value)| !value.is_finite())
}

fn has_f64(bytes: &[u8]) -> bool {
    let (values, _) = bytes.as_chunks();
    let carried = values.iter().fold(0, |carried, &value| {
        let without_sign = u64::from_ne_bytes(value) & (u64::MAX >> 1);
        carried | without_sign.wrapping_add(1 << 52)
    });
    carried >> 63 != 0
}

fn has_f32(bytes: &[u8]) -> bool {
    let (values, _) = bytes.as_chunks();
    let carried = values.iter().fold(0, |carried, &value| {
        let without_sign = u32::from_ne_bytes(value) & (u32::MAX >> 1);
        carried | without_sign.wrapping_add(1 << 23)
    });
    carried >> 31 != 0
}

/// The same for both types of 16 bits, of which `one` is 1 in the exponent.
fn has_16_bits(bytes: &[u8], one: u16) -> bool {
    let (values, _) = bytes.as_chunks();
    let carried = values.iter().fold(0, |carried, &value| {
        let without_sign = u16::from_ne_bytes(value) & (u16::MAX >> 1);
        carried | without_sign.wrapping_add(one)
    });
    carried >> 15 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers at the edges of what is finite.
    const FINITE: [f32; 7] = [0.0, -0.0, 1.0, -65504.0, 6e-8, 60000.0, -1e-3];

    fn found(values: &[f32], dtype: DType) -> Option<(usize, f64)> {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        first_not_finite(&data.convert_dtype(dtype))
    }

    #[test]
    fn what_is_no_number_is_found_in_every_type_and_place() {
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            assert_eq!(found(&FINITE, dtype), None, "{dtype:?}");
            for place in 0..FINITE.len() {
                for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = FINITE;
                    values[place] = wrong;
                    let (at, value) = found(&values, dtype).unwrap();
                    assert_eq!(at, place, "{dtype:?} {wrong}");
                    assert!(value == f64::from(wrong) || value.is_nan() && wrong.is_nan());
                }
            }
        }
        assert_eq!(
            found(&[f32::MAX, f32::MIN, f32::MIN_POSITIVE], DType::F32),
            None
        );
        let whole = TensorData::new(vec![-1i32, i32::MAX, i32::MIN, 0x7f80_0000], [4]);
        assert_eq!(first_not_finite(&whole), None);
    }

    #[test]
    fn it_is_found_in_the_last_part_of_a_large_tensor() {
        let mut values = vec![0.5f32; 3 * PART / 4 + 5];
        assert_eq!(found(&values, DType::F32), None);
        let last = values.len() - 1;
        values[last] = f32::NAN;
        assert_eq!(found(&values, DType::F32).unwrap().0, last);
    }
}
