use burn::backend::NdArray;
use burn::tensor::{Distribution, Tensor};
use rten_simd::Isa;
use rten_simd::ops::{BitOps, IntOps, NumOps};

use crate::kernel::Mode;

/// Dropout whose mask is a function of a seed and of a value's place: it is never
/// stored, and the backward pass draws the same one again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dropout {
    probability: f32,
    seed: [i32; 2],
}

/// The lanes of the widest vector.
const MOST_LANES: usize = 16;

const PLACES: [i32; MOST_LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

impl Dropout {
    /// Dropout with a seed drawn from the backend's generator, so that `Backend::seed`
    /// replays it; none where nothing is to be dropped.
    pub(super) fn draw(probability: f64, mode: Mode) -> Option<Self> {
        if mode == Mode::Inference || probability == 0.0 {
            return None;
        }
        let device = Default::default();
        let drawn = Tensor::<NdArray, 1>::random([3], Distribution::Default, &device).into_data();
        // 16 random bits of each.
        let mut parts = drawn.iter::<f32>().map(|part| (part * 65_536.0) as u32);
        let mut next = || parts.next().unwrap_or_default();
        let (low, middle, high) = (next(), next(), next());
        Some(Self {
            probability: probability as f32,
            seed: [(low | middle << 16) as i32, high as i32],
        })
    }

    /// Dropout with this very seed.
    #[cfg(all(test, not(feature = "ddp")))]
    pub(super) fn of(probability: f32, seed: [i32; 2]) -> Self {
        Self { probability, seed }
    }

    /// What each of a vector of values is multiplied with, from the value at `place` on:
    /// 0, or `1 / (1 - p)`.
    #[inline(always)]
    pub(super) fn factors<I: Isa>(&self, isa: I, place: usize) -> I::F32 {
        let (ops, ints) = (isa.f32(), isa.i32());
        let places = ints.load(&PLACES[..ints.len()]);
        let places = ints.add(places, ints.splat(place as i32));
        let mut bits = ints.xor(places, ints.splat(self.seed[0]));
        // The finaliser of MurmurHash3, the second half of the seed in between.
        bits = mix::<I, 16>(isa, bits, 0x85eb_ca6b_u32 as i32);
        bits = ints.add(bits, ints.splat(self.seed[1]));
        bits = mix::<I, 13>(isa, bits, 0xc2b2_ae35_u32 as i32);
        bits = mix::<I, 16>(isa, bits, 0x9e37_79b1_u32 as i32);
        let threshold = f64::from(self.probability) * 4_294_967_296.0 - 2_147_483_648.0;
        let kept = ints.ge(bits, ints.splat(threshold as i32));
        ops.select(
            ops.splat((1.0 - self.probability).recip()),
            ops.zero(),
            kept,
        )
    }
}

/// `(x ^ x >> SHIFT) · factor`
#[inline(always)]
fn mix<I: Isa, const SHIFT: i32>(isa: I, bits: I::I32, factor: i32) -> I::I32 {
    let ints = isa.i32();
    // The shift carries the sign along: cut it off.
    let low = ints.splat((u32::MAX >> SHIFT) as i32);
    let shifted = ints.and(ints.shift_right::<SHIFT>(bits), low);
    ints.mul(ints.xor(bits, shifted), ints.splat(factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rten_simd::SimdOp;

    struct Factors<'a>(Dropout, usize, &'a mut [f32]);

    impl SimdOp for Factors<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            let ops = isa.f32();
            for (i, values) in self.2.chunks_exact_mut(ops.len()).enumerate() {
                let place = self.1 + i * ops.len();
                ops.store(self.0.factors(isa, place), values);
            }
        }
    }

    fn factors(dropout: Dropout, place: usize) -> Vec<f32> {
        let mut values = vec![0.0; 1 << 16];
        Factors(dropout, place, &mut values).dispatch();
        values
    }

    fn dropout(seed: i32) -> Dropout {
        Dropout {
            probability: 0.25,
            seed: [seed, 7],
        }
    }

    #[test]
    fn drops_the_share_it_is_told_and_keeps_the_mean() {
        let values = factors(dropout(1), 0);
        let dropped = values.iter().filter(|&&v| v == 0.0).count();
        let share = dropped as f64 / values.len() as f64;
        assert!((share - 0.25).abs() < 0.01, "{share}");
        assert!(
            values
                .iter()
                .all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6)
        );
    }

    #[test]
    fn a_mask_is_a_function_of_seed_and_place() {
        assert_eq!(factors(dropout(1), 0), factors(dropout(1), 0));
        assert_eq!(
            factors(dropout(1), 64)[..1000],
            factors(dropout(1), 0)[64..1064]
        );
        // Of two unrelated masks, a share of 2 · ¼ · ¾ differs.
        for other in [factors(dropout(2), 0), factors(dropout(1), 1)] {
            let same = factors(dropout(1), 0);
            let differ = same.iter().zip(&other).filter(|(a, b)| a != b).count();
            let share = differ as f64 / same.len() as f64;
            assert!((share - 0.375).abs() < 0.01, "{share}");
        }
    }

    #[test]
    fn the_backend_s_seed_replays_it() {
        use burn::tensor::backend::Backend;
        let device = Default::default();
        let draw = || Dropout::draw(0.5, Mode::Training);
        // Other tests may draw in between: a few tries settle it.
        let replayed = (0..20).any(|_| {
            NdArray::<f32>::seed(&device, 11);
            let first = draw();
            NdArray::<f32>::seed(&device, 11);
            draw() == first
        });
        assert!(replayed);
        assert_ne!(draw(), draw());
        assert_eq!(Dropout::draw(0.5, Mode::Inference), None);
        assert_eq!(Dropout::draw(0.0, Mode::Training), None);
    }
}
