use burn::tensor::{Tensor, activation, backend::Backend};
use serde::{Deserialize, Serialize};

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// No activation.
    Identity,
    /// `x · Φ(x)`, with the error function itself.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `x · σ(x)`
    Silu,
    /// `tanh(x)`
    Tanh,
    /// `1 / (1 + e⁻ˣ)`
    Sigmoid,
}

impl Activation {
    /// Applies the activation to each element.
    pub fn forward<B: Backend, const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Identity => input,
            Self::Gelu => gelu(input),
            Self::GeluTanh => activation::gelu_approximate(input),
            Self::Relu => activation::relu(input),
            Self::Silu => activation::silu(input),
            Self::Tanh => activation::tanh(input),
            Self::Sigmoid => activation::sigmoid(input),
        }
    }
}

/// Exact GELU, composed: Burn's own `gelu` has the derivative of the tanh
/// approximation, which is up to 5e-4 off and shows in a training curve.
fn gelu<B: Backend, const D: usize>(input: Tensor<B, D>) -> Tensor<B, D> {
    let erf = (input.clone() * std::f64::consts::FRAC_1_SQRT_2).erf();
    input * (erf + 1.0) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, device};

    /// `dx` of exact GELU: `Φ(x) + x φ(x)`, by central differences of the formula in f64.
    fn slope(x: f64) -> f64 {
        let gelu = |x: f64| {
            // Φ by Simpson's rule over the density: independent of any erf.
            let n = 2000;
            let h = x / n as f64;
            let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let sum: f64 = (0..=n)
                .map(|i| {
                    let weight = if i == 0 || i == n {
                        1.0
                    } else if i % 2 == 1 {
                        4.0
                    } else {
                        2.0
                    };
                    weight * density(i as f64 * h)
                })
                .sum();
            x * (0.5 + sum * h / 3.0)
        };
        (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5
    }

    #[test]
    fn the_gradient_of_gelu_is_exact() {
        type B = TestAutodiffBackend;
        let xs = [-3.0f32, -1.1, -0.3, 0.2, 0.9, 2.2];
        let gradient = |forward: fn(Tensor<B, 1>) -> Tensor<B, 1>| -> Vec<f32> {
            let x = Tensor::<B, 1>::from_floats(xs, &device()).require_grad();
            let gradients = forward(x.clone()).sum().backward();
            let gradient = x.grad(&gradients).map(|g| g.into_data().iter().collect());
            gradient.unwrap_or_default()
        };
        let error = |found: Vec<f32>| {
            assert_eq!(found.len(), xs.len());
            let errors = xs
                .iter()
                .zip(found)
                .map(|(&x, f)| (slope(x.into()) - f64::from(f)).abs());
            errors.fold(0.0, f64::max)
        };
        assert!(error(gradient(|x| Activation::Gelu.forward(x))) < 1e-6);
        // Negative control: the approximation's derivative is told apart.
        assert!(error(gradient(|x| Activation::GeluTanh.forward(x))) > 1e-5);
    }
}
