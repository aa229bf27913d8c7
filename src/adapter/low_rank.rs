use super::Matrix;
use crate::error::{AdapterError, Result};

/// The two thin matrices of an update of rank r, in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    a: Matrix,
    b: Matrix,
}

impl LowRank {
    /// The update of A, `[r, d_input]`, and B, `[d_output, r]`.
    ///
    /// # Errors
    /// [`AdapterError::ShapeMismatch`] if A's rows are not as many as B's columns.
    pub fn new(a: Matrix, b: Matrix) -> Result<Self> {
        if a.shape()[0] != b.shape()[1] {
            return Err(AdapterError::ShapeMismatch {
                what: "lora_B".to_owned(),
                expected: format!("[d_output, {}], as lora_A has rows", a.shape()[0]),
                found: format!("{:?}", b.shape()),
            }
            .into());
        }
        Ok(Self { a, b })
    }

    /// The pair of one computation, whose ranks agree by construction.
    pub(super) fn from_factors(a: Matrix, b: Matrix) -> Self {
        debug_assert_eq!(a.shape()[0], b.shape()[1]);
        Self { a, b }
    }

    /// `[r, d_input]`
    pub fn a(&self) -> &Matrix {
        &self.a
    }

    /// `[d_output, r]`
    pub fn b(&self) -> &Matrix {
        &self.b
    }

    /// A and B.
    pub fn into_factors(self) -> (Matrix, Matrix) {
        (self.a, self.b)
    }

    /// The rank.
    pub fn r(&self) -> usize {
        self.a.shape()[0]
    }

    /// The updated weight's shape, `[d_output, d_input]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.b.shape()[0], self.a.shape()[1]]
    }

    /// `scaling · B · A`, `[d_output, d_input]`
    pub fn delta(&self, scaling: f64) -> Matrix {
        let product = self.b.to_f64() * self.a.to_f64();
        Matrix::from_f64((product * faer::Scale(scaling)).as_ref())
    }

    /// The update that training added to a base that lost the initial one: A is
    /// `[A; A₀]` and B `[B, −B₀]`, of rank r + r₀. With PiSSA or OLoRA this makes the
    /// adapter one of the untouched base. The scale must stay: twice the alpha, or √2
    /// times with rank-stabilised LoRA.
    ///
    /// Source: `LoraModel.subtract_mutated_init` of PEFT.
    ///
    /// # Errors
    /// [`AdapterError::ShapeMismatch`] if the two are of different layers.
    pub fn subtract(&self, initial: &Self) -> Result<Self> {
        if self.dims() != initial.dims() {
            return Err(AdapterError::ShapeMismatch {
                what: "the initial adapter's update".to_owned(),
                expected: format!("{:?}", self.dims()),
                found: format!("{:?}", initial.dims()),
            }
            .into());
        }
        let [d_output, d_input] = self.dims();
        let r = self.r() + initial.r();
        let a = [self.a.values(), initial.a.values()].concat();
        let rows = self.b.rows().zip(initial.b.rows());
        let b = rows.flat_map(|(row, initial)| {
            let negated = initial.iter().map(|&value| -value);
            row.iter().copied().chain(negated)
        });
        Ok(Self::from_factors(
            Matrix::filled([r, d_input], a),
            Matrix::filled([d_output, r], b.collect()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn low_rank(a: &[f32], b: &[f32], r: usize) -> LowRank {
        let matrix = |shape, values: &[f32]| Matrix::new(shape, values.to_vec()).unwrap();
        let (d_input, d_output) = (a.len() / r, b.len() / r);
        LowRank::new(matrix([r, d_input], a), matrix([d_output, r], b)).unwrap()
    }

    #[test]
    fn the_update_is_scaling_times_b_times_a() {
        let update = low_rank(&[1.0, 2.0, 0.0, -1.0], &[1.0, 0.0, 3.0, 1.0, 0.0, 2.0], 2);
        assert_eq!(update.dims(), [3, 2]);
        let expected = [0.5, 1.0, 1.5, 2.5, 0.0, -1.0];
        assert_eq!(update.delta(0.5).values(), expected);
    }

    #[test]
    fn subtracting_the_initial_update_gives_the_difference() {
        let trained = low_rank(&[1.0, 2.0, 3.0], &[1.0, -1.0], 1);
        let initial = low_rank(&[0.5, 0.0, 1.0, 1.0, 1.0, 0.0], &[2.0, 1.0, 0.0, 1.0], 2);
        let difference = trained.subtract(&initial).unwrap();
        assert_eq!(difference.r(), 3);
        let expected: Vec<f32> = trained
            .delta(1.5)
            .values()
            .iter()
            .zip(initial.delta(1.5).values())
            .map(|(trained, initial)| trained - initial)
            .collect();
        assert_eq!(difference.delta(1.5).values(), expected);
        assert_ne!(trained.delta(1.5).values(), expected);
    }

    #[test]
    fn factors_of_different_ranks_are_refused() {
        let error = LowRank::new(Matrix::zeros([2, 3]), Matrix::zeros([4, 3])).unwrap_err();
        assert!(
            matches!(&error, Error::Adapter(AdapterError::ShapeMismatch { found, .. }) if found == "[4, 3]"),
            "{error}"
        );
        let narrow = low_rank(&[1.0, 2.0], &[1.0], 1);
        assert!(narrow.subtract(&low_rank(&[1.0], &[1.0], 1)).is_err());
    }
}
