//! The four similarity functions, between all pairs or row by row; differentiable.

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};
use crate::kernel::normalize;

/// One embedding or several: a tensor that has, or can be given, rows.
pub trait Rows<B: Backend> {
    /// The embeddings as rows, `[n, dim]`.
    fn into_rows(self) -> Tensor<B, 2>;
}

impl<B: Backend> Rows<B> for Tensor<B, 1> {
    fn into_rows(self) -> Tensor<B, 2> {
        self.unsqueeze()
    }
}

impl<B: Backend> Rows<B> for Tensor<B, 2> {
    fn into_rows(self) -> Tensor<B, 2> {
        self
    }
}

/// How two embeddings are compared; more is more alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimilarityFunction {
    /// The cosine of the angle between them.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
    /// The negative Euclidean distance.
    Euclidean,
    /// The negative Manhattan distance.
    Manhattan,
}

impl SimilarityFunction {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Cosine, Self::Dot, Self::Euclidean, Self::Manhattan];

    /// The function's name, as configurations and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
        }
    }

    /// The function of that name.
    ///
    /// # Errors
    /// [`ModelError::UnknownSimilarity`].
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|function| function.name() == name);
        Ok(found.ok_or_else(|| ModelError::UnknownSimilarity {
            found: name.to_owned(),
        })?)
    }

    /// Compares every row of `a` with every row of `b`.
    ///
    /// # Shapes
    /// - a: `[n, dim]` or `[dim]`
    /// - b: `[m, dim]` or `[dim]`
    /// - output: `[n, m]`
    ///
    /// # Errors
    /// [`ModelError::IncompatibleEmbeddings`] where the dimensions differ.
    pub fn similarity<B: Backend>(self, a: impl Rows<B>, b: impl Rows<B>) -> Result<Tensor<B, 2>> {
        let (a, b) = (a.into_rows(), b.into_rows());
        let ([n, left], [m, right]) = (a.dims(), b.dims());
        if left != right {
            return Err(incompatible(&a, &b, "with each other"));
        }
        if n == 0 || m == 0 {
            return Ok(Tensor::empty([n, m], &a.device()));
        }
        Ok(match self {
            Self::Cosine => cos_sim(a, b),
            Self::Dot => dot_score(a, b),
            Self::Euclidean => euclidean_sim(a, b),
            Self::Manhattan => manhattan_sim(a, b),
        })
    }

    /// Compares each row of `a` with the same row of `b`.
    ///
    /// # Shapes
    /// - a, b: `[n, dim]` or `[dim]`
    /// - output: `[n]`
    ///
    /// # Errors
    /// [`ModelError::IncompatibleEmbeddings`] where the shapes differ.
    pub fn pairwise<B: Backend>(self, a: impl Rows<B>, b: impl Rows<B>) -> Result<Tensor<B, 1>> {
        let (a, b) = (a.into_rows(), b.into_rows());
        if a.dims() != b.dims() {
            return Err(incompatible(&a, &b, "row by row"));
        }
        if a.dims()[0] == 0 {
            return Ok(Tensor::empty([0], &a.device()));
        }
        let sums = match self {
            Self::Cosine => (normalize(a) * normalize(b)).sum_dim(1),
            Self::Dot => (a * b).sum_dim(1),
            Self::Euclidean => -euclidean_norm(a - b),
            Self::Manhattan => -(a - b).abs().sum_dim(1),
        };
        Ok(sums.squeeze_dim(1))
    }
}

fn incompatible<B: Backend>(
    a: &Tensor<B, 2>,
    b: &Tensor<B, 2>,
    how: &'static str,
) -> crate::error::Error {
    ModelError::IncompatibleEmbeddings {
        left: a.dims(),
        right: b.dims(),
        how,
    }
    .into()
}

/// The cosine of every row of `a` with every row of `b`.
///
/// # Shapes
/// - a: `[n, dim]`
/// - b: `[m, dim]`
/// - output: `[n, m]`
pub fn cos_sim<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    dot_score(normalize(a), normalize(b))
}

/// The dot product of every row of `a` with every row of `b`.
///
/// # Shapes
/// - a: `[n, dim]`
/// - b: `[m, dim]`
/// - output: `[n, m]`
pub fn dot_score<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    a.matmul(b.transpose())
}

/// The negative Euclidean distance of every row of `a` to every row of `b`.
///
/// # Shapes
/// - a: `[n, dim]`
/// - b: `[m, dim]`
/// - output: `[n, m]`
pub fn euclidean_sim<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    by_differences(a, b, |differences| -euclidean_norm(differences))
}

/// The negative Manhattan distance of every row of `a` to every row of `b`.
///
/// # Shapes
/// - a: `[n, dim]`
/// - b: `[m, dim]`
/// - output: `[n, m]`
pub fn manhattan_sim<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    by_differences(a, b, |differences| -differences.abs().sum_dim(1))
}

/// The length of each row, `[rows, 1]`.
fn euclidean_norm<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    (rows.clone() * rows).sum_dim(1).sqrt()
}

/// Differences rather than products: the products' rounding would drown small distances.
/// Rows of `a` go a few at a time, so that the differences of all pairs never stand in
/// memory at once.
fn by_differences<B: Backend>(
    a: Tensor<B, 2>,
    b: Tensor<B, 2>,
    similarity: impl Fn(Tensor<B, 2>) -> Tensor<B, 2>,
) -> Tensor<B, 2> {
    const ELEMENTS_AT_ONCE: usize = 1 << 22;
    let ([n, dim], [m, _]) = (a.dims(), b.dims());
    let rows_at_once = (ELEMENTS_AT_ONCE / (m * dim).max(1)).max(1);
    let parts = (0..n).step_by(rows_at_once).map(|start| {
        let rows = start..(start + rows_at_once).min(n);
        let count = rows.len();
        let differences = a.clone().slice([rows, 0..dim]).reshape([count, 1, dim])
            - b.clone().reshape([1, m, dim]);
        similarity(differences.reshape([count * m, dim])).reshape([count, m])
    });
    Tensor::cat(parts.collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    fn tensor<const N: usize>(rows: [[f32; 2]; N]) -> Tensor<TestBackend, 2> {
        Tensor::from_floats(rows, &device())
    }

    fn values<const D: usize>(tensor: Tensor<TestBackend, D>) -> Vec<f32> {
        tensor.into_data().iter().collect()
    }

    #[test]
    fn the_four_functions_follow_their_formulas() {
        let a = || tensor([[3.0, 4.0], [0.0, 0.0]]);
        let b = || tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]]);
        for (function, expected) in [
            (SimilarityFunction::Cosine, [0.6, 0.8, 1.0, 0.0, 0.0, 0.0]),
            (SimilarityFunction::Dot, [9.0, 16.0, 25.0, 0.0, 0.0, 0.0]),
            (
                SimilarityFunction::Euclidean,
                [-4.0, -3.0, 0.0, -3.0, -4.0, -5.0],
            ),
            (
                SimilarityFunction::Manhattan,
                [-4.0, -3.0, 0.0, -3.0, -4.0, -7.0],
            ),
        ] {
            let found = function.similarity(a(), b()).map(values);
            let close = found.is_ok_and(|found| {
                found
                    .iter()
                    .zip(expected)
                    .all(|(f, e)| (f - e).abs() < 1e-6)
            });
            assert!(close, "{}", function.name());
        }
    }

    #[test]
    fn pairwise_is_the_diagonal() {
        let a = tensor([[1.0, 2.0], [-3.0, 0.5]]);
        let b = tensor([[0.3, 2.0], [4.0, -1.0]]);
        for function in SimilarityFunction::ALL {
            let all = function.similarity(a.clone(), b.clone()).map(values);
            let pairs = function.pairwise(a.clone(), b.clone()).map(values);
            let (all, pairs) = (all.unwrap_or_default(), pairs.unwrap_or_default());
            assert_eq!((all.len(), pairs.len()), (4, 2));
            assert!((all[0] - pairs[0]).abs() < 1e-6 && (all[3] - pairs[1]).abs() < 1e-6);
        }
    }

    #[test]
    fn one_vector_is_a_row() {
        let one = Tensor::<TestBackend, 1>::from_floats([1.0, 0.0], &device());
        let scores = SimilarityFunction::Dot.similarity(one, tensor([[2.0, 1.0], [3.0, 1.0]]));
        let scores = scores.map(|scores| (scores.dims(), values(scores)));
        assert!(matches!(scores, Ok(([1, 2], v)) if v == [2.0, 3.0]));
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        let narrow = Tensor::<TestBackend, 2>::zeros([2, 3], &device());
        let two = tensor([[1.0, 2.0], [3.0, 4.0]]);
        assert!(
            SimilarityFunction::Cosine
                .similarity(narrow, two.clone())
                .is_err()
        );
        assert!(
            SimilarityFunction::Cosine
                .pairwise(two, tensor([[1.0, 2.0]]))
                .is_err()
        );
        assert!(SimilarityFunction::from_name("jaccard").is_err());
    }
}
