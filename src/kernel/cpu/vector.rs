#![allow(
    clippy::excessive_precision,
    clippy::approx_constant,
    reason = "coefficients of fits, to the digits they were fitted to"
)]

use rten_simd::ops::{BitOps, FloatOps, IntOps, NumOps};
use rten_simd::{Isa, Simd, SimdUnaryOp};
use rten_vecmath::{Sigmoid, Tanh};

use crate::kernel::Activation;

/// `eˣ` for `x ≤ 0`, to 2 ulp; 0 below -87, where results would no longer be normal
/// numbers.
///
/// `x = k ln 2 + r` with `|r| ≤ ½ ln 2`; `eʳ` by the polynomial of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp_negative<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (ops, ints) = (isa.f32(), isa.i32());
    let visible = ops.ge(x, ops.splat(-87.0));
    let x = ops.max(x, ops.splat(-87.0));
    // Adding 1.5 · 2²³ leaves no bits behind the point: what remains is `k`.
    let magic = ops.splat(12_582_912.0);
    let k = ops.mul_add(x, ops.splat(std::f32::consts::LOG2_E), magic);
    let k = ops.sub(k, magic);
    // ln 2 in two parts, so that the subtraction is exact.
    let r = ops.mul_add(k, ops.splat(-0.693_359_4), x);
    let r = ops.mul_add(k, ops.splat(2.121_944_4e-4), r);
    let mut sum = ops.splat(1.987_569_1e-4);
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_66,
        0.5,
    ] {
        sum = ops.mul_add(sum, r, ops.splat(coefficient));
    }
    let sum = ops.mul_add(sum, ops.mul(r, r), ops.add(r, ops.one()));
    let exponent = ints.add(ops.to_int_trunc(k), ints.splat(127));
    let power: I::F32 = ints.shift_left::<23>(exponent).reinterpret_cast();
    ops.select(ops.mul(sum, power), ops.zero(), visible)
}

/// The error function, to 3.3e-7: half an ulp of approximation, the rest is rounding.
///
/// By a rational function, odd over even, fitted to the least relative error.
#[inline(always)]
pub(super) fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    // Beyond, the function is 1 in f32.
    let x = ops.clamp(x, ops.splat(-3.832_506_9), ops.splat(3.832_506_9));
    let square = ops.mul(x, x);
    let mut odd = ops.splat(2.290_327_5e-4);
    for coefficient in [3.407_723_5e-3, 5.095_390_2e-2, 0.185_195_74, 1.128_379_1] {
        odd = ops.mul_add(odd, square, ops.splat(coefficient));
    }
    let mut even = ops.splat(-1.179_181e-7);
    for coefficient in [
        2.354_720_9e-5,
        1.017_816_4e-3,
        1.406_932_7e-2,
        0.110_979_736,
        0.497_458_1,
        1.0,
    ] {
        even = ops.mul_add(even, square, ops.splat(coefficient));
    }
    ops.div(ops.mul(x, odd), even)
}

/// The activation of each lane.
#[inline(always)]
pub(super) fn activate<I: Isa>(isa: I, activation: Activation, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    match activation {
        Activation::Identity => x,
        Activation::Gelu => {
            let phi = ops.add(erf(isa, ops.mul(x, ops.splat(SQRT_HALF))), ops.one());
            ops.mul(ops.mul(x, ops.splat(0.5)), phi)
        }
        Activation::GeluTanh => {
            let phi = ops.add(Tanh::apply(isa, gelu_tanh_inner(isa, x)), ops.one());
            ops.mul(ops.mul(x, ops.splat(0.5)), phi)
        }
        Activation::Relu => ops.max(x, ops.zero()),
        Activation::Silu => ops.mul(x, Sigmoid::apply(isa, x)),
        Activation::Tanh => Tanh::apply(isa, x),
        Activation::Sigmoid => Sigmoid::apply(isa, x),
    }
}

/// The derivative of the activation at each lane.
#[inline(always)]
pub(super) fn activate_slope<I: Isa>(isa: I, activation: Activation, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    match activation {
        Activation::Identity => ops.one(),
        Activation::Gelu => {
            // Φ(x) + x φ(x)
            let phi = ops.add(erf(isa, ops.mul(x, ops.splat(SQRT_HALF))), ops.one());
            let density = exp_negative(isa, ops.mul(ops.mul(x, x), ops.splat(-0.5)));
            let density = ops.mul(density, ops.splat(INVERSE_SQRT_TAU));
            ops.mul_add(x, density, ops.mul(phi, ops.splat(0.5)))
        }
        Activation::GeluTanh => {
            // ½(1 + t) + ½x(1 - t²)u', with t = tanh(u)
            let tanh = Tanh::apply(isa, gelu_tanh_inner(isa, x));
            let square = ops.mul(x, x);
            let inner = ops.mul_add(
                square,
                ops.splat(3.0 * GELU_TANH_CUBIC * SQRT_2_OVER_PI),
                ops.splat(SQRT_2_OVER_PI),
            );
            let rest = ops.mul_sub_from(tanh, tanh, ops.one());
            let second = ops.mul(ops.mul(x, rest), inner);
            ops.mul(ops.add(ops.add(ops.one(), tanh), second), ops.splat(0.5))
        }
        Activation::Relu => ops.select(ops.one(), ops.zero(), ops.gt(x, ops.zero())),
        Activation::Silu => {
            // σ(1 + x(1 - σ))
            let sigmoid = Sigmoid::apply(isa, x);
            let rest = ops.sub(ops.one(), sigmoid);
            ops.mul(sigmoid, ops.mul_add(x, rest, ops.one()))
        }
        Activation::Tanh => {
            let tanh = Tanh::apply(isa, x);
            ops.mul_sub_from(tanh, tanh, ops.one())
        }
        Activation::Sigmoid => {
            let sigmoid = Sigmoid::apply(isa, x);
            ops.mul_sub_from(sigmoid, sigmoid, sigmoid)
        }
    }
}

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const GELU_TANH_CUBIC: f32 = 0.044_715;

/// `√(2/π) (x + 0.044715 x³)`
#[inline(always)]
fn gelu_tanh_inner<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    let cubic = ops.splat(GELU_TANH_CUBIC * SQRT_2_OVER_PI);
    let factor = ops.mul_add(ops.mul(x, x), cubic, ops.splat(SQRT_2_OVER_PI));
    ops.mul(x, factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rten_simd::SimdOp;

    /// Applies a function of a vector to every value.
    struct Map<'a, F>(&'a mut [f32], F);

    trait Vectorised {
        fn apply<I: Isa>(&self, isa: I, x: I::F32) -> I::F32;
    }

    impl<F: Vectorised> SimdOp for Map<'_, F> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            let ops = isa.f32();
            for values in self.0.chunks_exact_mut(ops.len()) {
                ops.store(self.1.apply(isa, ops.load(values)), values);
            }
        }
    }

    struct Exp;
    struct Erf;
    struct Activate(Activation);
    struct Slope(Activation);

    impl Vectorised for Exp {
        #[inline(always)]
        fn apply<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
            exp_negative(isa, x)
        }
    }

    impl Vectorised for Erf {
        #[inline(always)]
        fn apply<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
            erf(isa, x)
        }
    }

    impl Vectorised for Activate {
        #[inline(always)]
        fn apply<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
            activate(isa, self.0, x)
        }
    }

    impl Vectorised for Slope {
        #[inline(always)]
        fn apply<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
            activate_slope(isa, self.0, x)
        }
    }

    fn grid(low: f32, high: f32) -> Vec<f32> {
        let n = 1 << 16;
        (0..n)
            .map(|i| low + (high - low) * i as f32 / n as f32)
            .collect()
    }

    fn map(function: impl Vectorised, xs: &[f32]) -> Vec<f32> {
        let mut values = xs.to_vec();
        Map(&mut values, function).dispatch();
        values
    }

    /// `erf` in double precision, by its series and its continued fraction.
    fn exact_erf(x: f64) -> f64 {
        if x.abs() < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..100 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            return sum * 2.0 / std::f64::consts::PI.sqrt();
        }
        let y = x.abs();
        let fraction = (1..60).rev().fold(y, |sum, n| y + f64::from(n) / 2.0 / sum);
        let tail = (-y * y).exp() / (fraction * std::f64::consts::PI.sqrt());
        x.signum() * (1.0 - tail)
    }

    #[test]
    fn exp_is_right_to_two_ulp_and_vanishes_below_87() {
        let xs = grid(-86.9, 0.0);
        for (&x, y) in xs.iter().zip(map(Exp, &xs)) {
            let exact = f64::from(x).exp();
            let ulp = f64::from(f32::EPSILON) * exact;
            assert!((f64::from(y) - exact).abs() <= 2.0 * ulp, "{x}: {y}");
        }
        for x in [-87.1, -1000.0, f32::NEG_INFINITY] {
            assert_eq!(map(Exp, &[x; 64]), [0.0; 64]);
        }
        assert_eq!(map(Exp, &[0.0; 64]), [1.0; 64]);
    }

    #[test]
    fn erf_is_right_to_its_bound() {
        let xs = grid(-6.0, 6.0);
        for (&x, y) in xs.iter().zip(map(Erf, &xs)) {
            let exact = exact_erf(x.into());
            assert!(
                (f64::from(y) - exact).abs() < 3.5e-7,
                "{x}: {y} for {exact}"
            );
        }
        // Near 0 the relative error counts.
        for (x, y) in [1e-20f32, -3e-7]
            .iter()
            .map(|&x| (x, map(Erf, &[x; 64])[0]))
        {
            let exact = f64::from(x) * 2.0 / std::f64::consts::PI.sqrt();
            assert!(((f64::from(y) - exact) / exact).abs() < 3e-7, "{x}: {y}");
        }
    }

    #[test]
    fn activations_and_slopes_are_those_of_their_formulas() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let formulas: [(Activation, &dyn Fn(f64) -> f64); 7] = [
            (Activation::Identity, &|x| x),
            (Activation::Gelu, &|x| {
                0.5 * x * (1.0 + exact_erf(x / std::f64::consts::SQRT_2))
            }),
            (Activation::GeluTanh, &|x| {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + u.tanh())
            }),
            (Activation::Relu, &|x| x.max(0.0)),
            (Activation::Silu, &|x| x * sigmoid(x)),
            (Activation::Tanh, &|x| x.tanh()),
            (Activation::Sigmoid, &sigmoid),
        ];
        let xs = grid(-7.003, 7.0);
        for (activation, formula) in formulas {
            let (values, slopes) = (map(Activate(activation), &xs), map(Slope(activation), &xs));
            for ((&x, y), slope) in xs.iter().zip(values).zip(slopes) {
                let x64 = f64::from(x);
                let expected = formula(x64);
                assert!(
                    (f64::from(y) - expected).abs() < 2e-6,
                    "{activation:?} at {x}: {y} for {expected}"
                );
                let h = 1e-5;
                let expected = (formula(x64 + h) - formula(x64 - h)) / (2.0 * h);
                // At the kink of ReLU a difference quotient means nothing.
                assert!(
                    x.abs() < 1e-3 || (f64::from(slope) - expected).abs() < 5e-6,
                    "{activation:?}' at {x}: {slope} for {expected}"
                );
            }
        }
    }
}
