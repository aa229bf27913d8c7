use burn::module::Initializer;
use burn::tensor::{Distribution, Tensor, backend::Backend};

use crate::kernel::Mode;

/// What LoHa and LoKr drop while training.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LycorisDropout {
    /// The share of the update's rows that is dropped.
    pub rank: f64,
    /// How often the whole update of a layer is dropped.
    pub module: f64,
}

impl LycorisDropout {
    /// The same share of both.
    pub(super) fn both(dropout: f64) -> Self {
        Self {
            rank: dropout,
            module: dropout,
        }
    }

    /// The update with its rows dropped, scaled to `keep_mean` or not; none where the whole
    /// update is dropped.
    pub(super) fn apply<B: Backend>(
        self,
        delta: Tensor<B, 2>,
        keep_mean: bool,
        mode: Mode,
    ) -> Option<Tensor<B, 2>> {
        if mode == Mode::Inference {
            return Some(delta);
        }
        let device = delta.device();
        if self.module > 0.0 {
            let drawn = Tensor::<B, 1>::random([1], Distribution::Uniform(0.0, 1.0), &device);
            let drawn = drawn.into_data().iter::<f64>().next().unwrap_or(1.0);
            if drawn <= self.module {
                return None;
            }
        }
        if self.rank == 0.0 {
            return Some(delta);
        }
        let rows = delta.dims()[0];
        let keep = Distribution::Bernoulli(1.0 - self.rank);
        let kept = Tensor::<B, 2>::random([rows, 1], keep, &device);
        if !keep_mean {
            return Some(delta * kept);
        }
        // Where every row is dropped, nothing is left to scale.
        let share = kept.clone().mean().clamp_min(1.0 / rows.max(1) as f64);
        Some(delta * (kept / share.unsqueeze()))
    }
}

/// `kaiming_uniform_(a = √5)` of PyTorch: uniform in ±1/√fan_in.
pub(super) fn torch_uniform(shape: [usize; 2]) -> Initializer {
    let bound = (shape[1].max(1) as f64).sqrt().recip();
    Initializer::Uniform {
        min: -bound,
        max: bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    fn ones() -> Tensor<TestBackend, 2> {
        Tensor::ones([200, 3], &device())
    }

    fn values(dropout: LycorisDropout, keep_mean: bool, mode: Mode) -> Option<Vec<f32>> {
        let dropped = dropout.apply(ones(), keep_mean, mode)?;
        Some(dropped.into_data().iter().collect())
    }

    #[test]
    fn whole_rows_are_dropped_and_the_mean_is_kept_where_it_is_to_be() {
        let dropout = LycorisDropout {
            rank: 0.4,
            module: 0.0,
        };
        let plain = values(dropout, false, Mode::Training).unwrap();
        assert!(
            plain
                .chunks(3)
                .all(|row| row == [0.0; 3] || row == [1.0; 3])
        );
        let kept = plain.iter().sum::<f32>() / 600.0;
        assert!((0.45..0.75).contains(&kept), "{kept} kept");
        let scaled = values(dropout, true, Mode::Training).unwrap();
        assert!((scaled.iter().sum::<f32>() / 600.0 - 1.0).abs() < 1e-4);
        assert_eq!(values(dropout, true, Mode::Inference), Some(vec![1.0; 600]));
    }

    #[test]
    fn whole_updates_are_dropped_as_often_as_told() {
        let dropout = LycorisDropout {
            rank: 0.0,
            module: 0.5,
        };
        let tries = 200;
        let dropped = (0..tries).filter(|_| values(dropout, true, Mode::Training).is_none());
        assert!((60..140).contains(&dropped.count()));
        assert!(values(dropout, true, Mode::Inference).is_some());
    }
}
