/// The length of the Mersenne Twister's state.
const STATE: usize = 624;
/// The distance between the words that are mixed.
const SHIFT: usize = 397;
/// From so many values on, PyTorch draws normal values in blocks of sixteen.
const BLOCK: usize = 16;

/// The random numbers of PyTorch on a CPU: the same seed draws the same adapters as
/// `torch.manual_seed` before PEFT does.
///
/// Normal values agree to the last bit or two: the logarithms and sines behind them are
/// other ones.
///
/// Source: `CPUGeneratorImpl`, `DistributionsHelper.h` and `DistributionTemplates.h` of
/// ATen; MT19937 is Matsumoto's and Nishimura's.
#[derive(Debug, Clone)]
pub struct TorchGenerator {
    state: Vec<u32>,
    next: usize,
    /// The second value of a pair of which one was asked for.
    spare: Option<f64>,
}

impl TorchGenerator {
    /// A generator as `torch.manual_seed(seed)` leaves it; the seed's upper half does not
    /// count there.
    pub fn new(seed: u64) -> Self {
        let mut state = vec![seed as u32];
        for place in 1..STATE {
            let last = state[place - 1];
            let mixed = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30));
            state.push(mixed.wrapping_add(place as u32));
        }
        Self {
            state,
            next: STATE,
            spare: None,
        }
    }

    /// Values uniform in `[from, to)`: `tensor.uniform_(from, to)`.
    pub fn uniform(&mut self, from: f64, to: f64, count: usize) -> Vec<f32> {
        let (from, to) = (from as f32, to as f32);
        // PyTorch's kernel is compiled to a fused product and sum.
        let draw = |_| self.unit_f32().mul_add(to - from, from);
        (0..count).map(draw).collect()
    }

    /// Standard normal values: `torch.randn` in single precision.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        let values = self.fill_normal(count, |generator| f64::from(generator.unit_f32()));
        values.into_iter().map(|value| value as f32).collect()
    }

    /// Standard normal values: `torch.randn` in double precision.
    pub fn normal_f64(&mut self, count: usize) -> Vec<f64> {
        self.fill_normal(count, Self::unit_f64)
    }

    /// Whether each of `count` draws with this probability succeeds: `torch.bernoulli` of
    /// single-precision probabilities.
    pub fn bernoulli(&mut self, probability: f64, count: usize) -> Vec<bool> {
        let probability = probability as f32;
        (0..count).map(|_| self.unit_f32() < probability).collect()
    }

    fn fill_normal(&mut self, count: usize, unit: impl Fn(&mut Self) -> f64) -> Vec<f64> {
        if count < BLOCK {
            return (0..count).map(|_| self.one_normal()).collect();
        }
        let mut values: Vec<f64> = (0..count).map(|_| unit(self)).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty() {
            // The last sixteen are drawn again, over what was there.
            let mut block = std::array::from_fn(|_| unit(self));
            box_muller(&mut block);
            values[count - BLOCK..].copy_from_slice(&block);
        }
        values
    }

    fn one_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.unit_f64(), self.unit_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * u1).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// Uniform in `[0, 1)`, 24 bits.
    fn unit_f32(&mut self) -> f32 {
        (self.word() & ((1 << 24) - 1)) as f32 * (1.0 / (1_u32 << 24) as f32)
    }

    /// Uniform in `[0, 1)`, 53 bits.
    fn unit_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.word()), u64::from(self.word()));
        let bits = (high << 32 | low) & ((1 << 53) - 1);
        bits as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    fn word(&mut self) -> u32 {
        if self.next == STATE {
            self.advance();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn advance(&mut self) {
        for place in 0..STATE {
            let following = self.state[(place + 1) % STATE];
            let joined = (self.state[place] & 0x8000_0000) | (following & 0x7fff_ffff);
            let twisted = joined >> 1 ^ if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[place] = self.state[(place + SHIFT) % STATE] ^ twisted;
        }
        self.next = 0;
    }
}

/// Turns sixteen uniform values into normal ones, the first eight with the second.
fn box_muller(block: &mut [f64; BLOCK]) {
    for place in 0..BLOCK / 2 {
        let radius = (-2.0 * (1.0 - block[place]).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * block[place + BLOCK / 2]).sin_cos();
        block[place] = radius * cos;
        block[place + BLOCK / 2] = radius * sin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::golden::{Golden, difference};

    #[test]
    fn the_same_seed_draws_what_torch_draws() {
        let golden = Golden::read("generator");
        let mut generator = TorchGenerator::new(42);
        // In the order of the fixture: each draw leaves the generator where torch's is.
        let uniform = generator.uniform(-0.5, 0.25, 5);
        assert_eq!(uniform, golden.values("uniform"));
        let few = generator.normal(7);
        assert!(difference(&few, &golden.values("normal_7")) < 1e-6);
        let blocks = generator.normal(32);
        assert!(difference(&blocks, &golden.values("normal_32")) < 1e-6);
        let rest = generator.normal(700);
        assert!(difference(&rest, &golden.values("normal_700")) < 1e-6);
        let double: Vec<f32> = generator
            .normal_f64(21)
            .iter()
            .map(|&value| value as f32)
            .collect();
        assert!(difference(&double, &golden.values("normal_f64_21")) < 1e-6);
        let coins: Vec<f32> = generator
            .bernoulli(0.3, 40)
            .iter()
            .map(|&success| f32::from(u8::from(success)))
            .collect();
        assert_eq!(coins, golden.values("bernoulli"));
    }

    #[test]
    fn another_seed_or_a_skipped_draw_gives_other_values() {
        let golden = Golden::read("generator");
        let uniform = golden.values("uniform");
        assert_ne!(TorchGenerator::new(43).uniform(-0.5, 0.25, 5), uniform);
        let mut generator = TorchGenerator::new(42);
        generator.uniform(0.0, 1.0, 1);
        assert_ne!(generator.uniform(-0.5, 0.25, 5), uniform);
        // Torch takes the lower half of a seed alone.
        let upper = TorchGenerator::new((1 << 32) + 42).uniform(-0.5, 0.25, 5);
        assert_eq!(upper, uniform);
    }
}
