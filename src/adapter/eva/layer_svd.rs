use faer::Mat;

use crate::adapter::decomposition::svd_lowrank;
use crate::adapter::{Matrix, TorchGenerator};
use crate::error::{AdapterError, Result};

/// PEFT's seed of the randomised decomposition, anew for every batch.
const SEED: u64 = 42;
/// The rounds of subspace iteration.
const NITER: usize = 4;
/// Below this a vector's length does not count in the cosine similarity.
const COSINE_EPSILON: f64 = 1e-8;

/// The first right singular vectors of one layer's centred inputs: their principal
/// components, found a batch at a time.
#[derive(Debug, Clone)]
pub struct LayerSvd {
    d_input: usize,
    n_components: usize,
    tau: f64,
    fit: Option<Fit>,
    converged: Vec<bool>,
}

/// What is known after a batch.
#[derive(Debug, Clone)]
struct Fit {
    samples: usize,
    mean: Vec<f64>,
    /// The sum of the squared distances from the mean.
    total_variance: f64,
    /// `[n_components, d_input]`
    components: Mat<f64>,
    singular_values: Vec<f64>,
    explained_variance_ratio: Vec<f64>,
}

impl LayerSvd {
    /// Looks for `n_components` vectors in inputs of this width; one is found when its
    /// cosine similarity with the one a batch before is at least `tau`.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`] if there are not so many.
    pub fn new(d_input: usize, n_components: usize, tau: f64) -> Result<Self> {
        if !(1..=d_input).contains(&n_components) {
            return Err(AdapterError::InvalidField {
                field: "eva_config.rho".to_owned(),
                expected: format!("r · rho in 1..={d_input}, the layer's inputs"),
                found: format!("r · rho = {n_components}"),
            }
            .into());
        }
        Ok(Self {
            d_input,
            n_components,
            tau,
            fit: None,
            converged: vec![false; n_components],
        })
    }

    /// Takes a batch of inputs, `[tokens, d_input]`, without padding. Says whether it was
    /// used: one with fewer tokens than components is not.
    ///
    /// # Errors
    /// [`AdapterError::ShapeMismatch`] if the width is another,
    /// [`AdapterError::NoDecomposition`] if the inputs are not finite.
    pub fn update(&mut self, inputs: &Matrix) -> Result<bool> {
        let [tokens, width] = inputs.shape();
        if width != self.d_input {
            return Err(AdapterError::ShapeMismatch {
                what: "a layer's inputs".to_owned(),
                expected: format!("[tokens, {}]", self.d_input),
                found: format!("[{tokens}, {width}]"),
            }
            .into());
        }
        if tokens < self.n_components {
            return Ok(false);
        }
        let fit = self.refit(inputs)?;
        if let Some(last) = &self.fit {
            for (place, converged) in self.converged.iter_mut().enumerate() {
                let similarity = cosine(&fit.components, &last.components, place);
                *converged = similarity >= self.tau;
            }
        }
        self.fit = Some(fit);
        Ok(true)
    }

    /// Whether a batch was ever used.
    pub fn is_fitted(&self) -> bool {
        self.fit.is_some()
    }

    /// Whether the first `r` components are found.
    pub fn has_converged(&self, r: usize) -> bool {
        self.converged.iter().take(r).all(|&converged| converged)
    }

    /// The part of the inputs' variance that each component explains, falling; empty
    /// before the first batch.
    pub fn explained_variance_ratio(&self) -> &[f64] {
        self.fit
            .as_ref()
            .map_or(&[], |fit| &fit.explained_variance_ratio)
    }

    /// The components' singular values; empty before the first batch.
    pub fn singular_values(&self) -> &[f64] {
        self.fit.as_ref().map_or(&[], |fit| &fit.singular_values)
    }

    /// The first `r` components as an adapter's A, `[r, d_input]`: whitened, they are
    /// divided by the roots of their singular values. `None` before the first batch.
    pub fn components(&self, r: usize, whiten: bool) -> Option<Matrix> {
        let fit = self.fit.as_ref()?;
        let rows = Mat::from_fn(r.min(self.n_components), self.d_input, |row, column| {
            let scale = if whiten {
                fit.singular_values[row].sqrt()
            } else {
                1.0
            };
            fit.components[(row, column)] / scale
        });
        Some(Matrix::from_f64(rows.as_ref()))
    }

    /// One step of incremental principal component analysis: the singular vectors of the
    /// components so far, scaled by their singular values, the centred batch and the
    /// step between the means.
    fn refit(&self, inputs: &Matrix) -> Result<Fit> {
        let tokens = inputs.shape()[0];
        let batch_sum = column_sums(inputs);
        let batch_mean: Vec<f64> = batch_sum.iter().map(|sum| sum / tokens as f64).collect();
        let batch_variance: f64 = inputs
            .rows()
            .flat_map(|row| row.iter().zip(&batch_mean))
            .map(|(&value, mean)| (f64::from(value) - mean).powi(2))
            .sum();

        let (samples, mean, total_variance, stacked) = match &self.fit {
            None => {
                let centred = centre(inputs, &batch_mean);
                (tokens, batch_mean, batch_variance, centred)
            }
            Some(last) => {
                let samples = last.samples + tokens;
                let step = (last.samples as f64 / samples as f64 * tokens as f64).sqrt();
                let steps: Vec<f64> = last
                    .mean
                    .iter()
                    .zip(&batch_mean)
                    .map(|(last, batch)| step * (last - batch))
                    .collect();
                let between: f64 = steps.iter().map(|step| step * step).sum();
                let means = last.mean.iter().zip(&batch_sum);
                let mean = means
                    .map(|(mean, sum)| (mean * last.samples as f64 + sum) / samples as f64)
                    .collect();
                let total_variance = last.total_variance + batch_variance + between;
                let stacked = stack(last, &centre(inputs, &batch_mean), &steps);
                (samples, mean, total_variance, stacked)
            }
        };

        // PEFT computes in single precision until the second batch.
        let first = self.fit.is_none();
        let draw = |[rows, columns]: [usize; 2]| {
            let mut generator = TorchGenerator::new(SEED);
            let values = if first {
                let values = generator.normal(rows * columns);
                values.into_iter().map(f64::from).collect()
            } else {
                generator.normal_f64(rows * columns)
            };
            Mat::from_fn(rows, columns, |row, column| values[row * columns + column])
        };
        let svd = svd_lowrank(stacked.as_ref(), 2 * self.n_components, NITER, draw)?;

        let signs: Vec<f64> = (0..self.n_components)
            .map(|place| largest(svd.v.col(place).iter()).signum())
            .collect();
        let singular_values = svd.s[..self.n_components].to_vec();
        let explained = |s: &f64| {
            if total_variance > 0.0 {
                s * s / total_variance
            } else {
                0.0
            }
        };
        Ok(Fit {
            samples,
            mean,
            total_variance,
            components: Mat::from_fn(self.n_components, self.d_input, |row, column| {
                signs[row] * svd.v[(column, row)]
            }),
            explained_variance_ratio: singular_values.iter().map(explained).collect(),
            singular_values,
        })
    }
}

fn column_sums(inputs: &Matrix) -> Vec<f64> {
    let mut sums = vec![0.0; inputs.shape()[1]];
    for row in inputs.rows() {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    sums
}

fn centre(inputs: &Matrix, mean: &[f64]) -> Mat<f64> {
    let mut centred = inputs.to_f64();
    for (column, mean) in mean.iter().enumerate() {
        centred
            .col_as_slice_mut(column)
            .iter_mut()
            .for_each(|value| *value -= mean);
    }
    centred
}

fn stack(last: &Fit, centred: &Mat<f64>, steps: &[f64]) -> Mat<f64> {
    let (components, tokens) = (last.components.nrows(), centred.nrows());
    Mat::from_fn(components + tokens + 1, steps.len(), |row, column| {
        if row < components {
            last.singular_values[row] * last.components[(row, column)]
        } else if row < components + tokens {
            centred[(row - components, column)]
        } else {
            steps[column]
        }
    })
}

/// The value that is farthest from zero, the first of equals.
fn largest<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    values.fold(0.0, |largest: f64, &value| {
        if value.abs() > largest.abs() {
            value
        } else {
            largest
        }
    })
}

fn cosine(a: &Mat<f64>, b: &Mat<f64>, row: usize) -> f64 {
    let dot = |a: &Mat<f64>, b: &Mat<f64>| -> f64 {
        a.row(row)
            .iter()
            .zip(b.row(row).iter())
            .map(|(a, b)| a * b)
            .sum()
    };
    let length = |matrix: &Mat<f64>| dot(matrix, matrix).sqrt().max(COSINE_EPSILON);
    dot(a, b) / (length(a) * length(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::golden::{Golden, difference};

    const COMPONENTS: usize = 3;

    fn singles(values: &[f64]) -> Vec<f32> {
        values.iter().map(|&value| value as f32).collect()
    }

    fn layer(n_components: usize) -> LayerSvd {
        LayerSvd::new(10, n_components, 0.99).unwrap()
    }

    #[test]
    fn each_batch_gives_what_peft_s_hook_has_after_it() {
        let golden = Golden::read("layer_svd");
        let mut svd = layer(COMPONENTS);
        // Without the step between the batches' means the components would be others.
        let mut centred = layer(COMPONENTS);
        for step in 0..3 {
            let batch = golden.matrix(&format!("batch_{step}"));
            assert!(svd.update(&batch).unwrap());
            let expected = |name: &str| golden.values(&format!("{name}_{step}"));
            let ours = svd.components(COMPONENTS, false).unwrap();
            assert!(difference(ours.values(), &expected("components")) < 1e-5);
            let ours = singles(svd.singular_values());
            assert!(difference(&ours, &expected("singular_values")) < 1e-4);
            let ours = singles(svd.explained_variance_ratio());
            assert!(difference(&ours, &expected("explained_variance_ratio")) < 1e-6);
            let ours: Vec<f32> = svd
                .converged
                .iter()
                .map(|&c| f32::from(u8::from(c)))
                .collect();
            assert_eq!(ours, expected("converged"));

            let mean = column_sums(&batch);
            let mean: Vec<f64> = mean.iter().map(|sum| sum / 24.0).collect();
            let batch = Matrix::from_f64(centre(&batch, &mean).as_ref());
            centred.update(&batch).unwrap();
        }
        let control = centred.components(COMPONENTS, false).unwrap();
        assert!(difference(control.values(), &golden.values("components_2")) > 1e-3);
    }

    #[test]
    fn convergence_is_of_the_first_components_only() {
        let golden = Golden::read("layer_svd");
        let batch = golden.matrix("batch_0");
        let mut svd = layer(COMPONENTS);
        assert!(!svd.has_converged(1) && svd.has_converged(0));
        svd.update(&batch).unwrap();
        assert!(!svd.has_converged(1));
        // The same batch again has the same directions.
        svd.update(&batch).unwrap();
        assert!(svd.has_converged(COMPONENTS));
        svd.converged[2] = false;
        assert!(svd.has_converged(2) && !svd.has_converged(3));
    }

    #[test]
    fn whitened_components_are_divided_by_the_root_of_their_value() {
        let golden = Golden::read("layer_svd");
        let mut svd = layer(2);
        assert_eq!(svd.components(2, true), None);
        svd.update(&golden.matrix("batch_0")).unwrap();
        let plain = svd.components(2, false).unwrap();
        let whitened = svd.components(2, true).unwrap();
        for (place, (plain, whitened)) in plain.rows().zip(whitened.rows()).enumerate() {
            let root = svd.singular_values()[place].sqrt() as f32;
            let scaled: Vec<f32> = whitened.iter().map(|value| value * root).collect();
            assert!(difference(&scaled, plain) < 1e-6);
            assert!(difference(whitened, plain) > 1e-2);
        }
    }

    #[test]
    fn short_batches_are_skipped_and_wrong_ones_named() {
        let mut svd = layer(COMPONENTS);
        assert!(!svd.update(&Matrix::zeros([2, 10])).unwrap());
        assert!(!svd.is_fitted());
        let error = svd.update(&Matrix::zeros([5, 9])).unwrap_err();
        assert!(error.to_string().contains("[5, 9]"), "{error}");
        let infinite = Matrix::new([4, 10], vec![f32::INFINITY; 40]).unwrap();
        assert!(svd.update(&infinite).is_err());
        assert!(!svd.is_fitted());
        for n_components in [0, 11] {
            let error = LayerSvd::new(10, n_components, 0.99).unwrap_err();
            assert!(error.to_string().contains("rho"), "{error}");
        }
    }
}
