use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::{Packing, embed};

/// The angles by which rotary embedding turns each token's pairs of dimensions.
///
/// Built once a batch, shared by its layers.
#[derive(Debug, Clone)]
pub struct RotaryAngles<B: Backend> {
    /// `[tokens, head_dim / 2]`
    pub(super) cos: Tensor<B, 2>,
    /// `[tokens, head_dim / 2]`
    pub(super) sin: Tensor<B, 2>,
}

impl<B: Backend> RotaryAngles<B> {
    /// The angles of each token: its place in its text times each of `frequencies`, of
    /// which a head has one for every two of its dimensions.
    pub fn new(frequencies: &[f32], packing: &Packing<B>) -> Self {
        let device = packing.device();
        let shape = [packing.width(), frequencies.len()];
        // The product in single precision, as the reference has it: of a place in the
        // thousands, a rounder frequency would be another angle.
        let mut angles = Vec::with_capacity(shape[0] * shape[1]);
        for place in 0..packing.width() {
            angles.extend(frequencies.iter().map(|f| place as f32 * f));
        }
        let places = packing.positions();
        let each = |function: fn(f64) -> f64| {
            let values = angles.iter().map(|&angle| function(angle.into()) as f32);
            let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
            let table = Tensor::from_data(data.convert::<B::FloatElem>(), device);
            embed(vec![(table, places.clone())])
        };
        Self {
            cos: each(f64::cos),
            sin: each(f64::sin),
        }
    }
}

/// Rotary position embedding: turns dimension `i` of each head and dimension
/// `i + head_dim / 2` of it by the token's angle `i` (<https://arxiv.org/abs/2104.09864>,
/// in the order of GPT-NeoX).
///
/// # Shapes
/// - input: `[tokens, heads * head_dim]`
/// - output: `[tokens, heads * head_dim]`
pub fn rotary<B: Backend>(input: Tensor<B, 2>, angles: &RotaryAngles<B>) -> Tensor<B, 2> {
    #[cfg(feature = "ndarray")]
    if super::cpu::route(&input) == Some(super::cpu::Route::Plain) {
        return super::cpu::rotary(input, angles);
    }
    super::composed::rotary(input, angles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use burn::tensor::Distribution;

    fn values(tensor: Tensor<TestBackend, 2>) -> Vec<f32> {
        tensor.into_data().iter().collect()
    }

    #[test]
    fn pairs_are_turned_by_place_times_frequency() {
        let (lengths, frequencies, heads) = ([3, 1, 5], [1.0f32, 0.3, 0.01], 2);
        let packing = Packing::<TestBackend>::new(lengths.into(), &device());
        let angles = RotaryAngles::new(&frequencies, &packing);
        let half = frequencies.len();
        let input = Tensor::random([9, heads * 2 * half], Distribution::Default, &device());
        let found = values(rotary(input.clone(), &angles));
        let x = values(input);
        let places = lengths.iter().flat_map(|&length| 0..length);
        let mut turned = 0;
        for (token, place) in places.enumerate() {
            for head in 0..heads {
                let at = |i: usize| (token * heads + head) * 2 * half + i;
                for (i, frequency) in frequencies.iter().enumerate() {
                    let (sin, cos) = (place as f32 * frequency).sin_cos();
                    let (a, b) = (x[at(i)], x[at(i + half)]);
                    assert!((found[at(i)] - (a * cos - b * sin)).abs() < 1e-6);
                    assert!((found[at(i + half)] - (b * cos + a * sin)).abs() < 1e-6);
                    turned += usize::from((found[at(i)] - a).abs() > 1e-3);
                }
            }
        }
        // Negative control: the first token of each text alone stays as it is.
        assert!(turned > 24, "{turned}");
    }

    #[test]
    fn products_depend_on_distance_alone() {
        let packing = Packing::<TestBackend>::new([40].into(), &device());
        let angles = RotaryAngles::new(&[0.7, 0.05], &packing);
        let row = Tensor::<TestBackend, 2>::random([1, 4], Distribution::Default, &device());
        let turned = rotary(row.repeat_dim(0, 40), &angles);
        let products = values(turned.clone().matmul(turned.transpose()));
        for distance in 1..30 {
            let (near, far) = (products[distance], products[9 * 40 + 9 + distance]);
            assert!((near - far).abs() < 1e-5);
        }
        assert!((products[1] - products[2]).abs() > 1e-3);
    }
}
