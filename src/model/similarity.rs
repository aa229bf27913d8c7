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
        Ok(self.to_similarity_fn()(a, b))
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
        Ok(self.to_similarity_pairwise_fn()(a, b))
    }

    /// The function between all pairs, for embeddings that are known to go together.
    pub fn to_similarity_fn<B: Backend>(self) -> fn(Tensor<B, 2>, Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Cosine => cos_sim,
            Self::Dot => dot_score,
            Self::Euclidean => euclidean_sim,
            Self::Manhattan => manhattan_sim,
        }
    }

    /// The function row by row, for embeddings that are known to go together.
    pub fn to_similarity_pairwise_fn<B: Backend>(
        self,
    ) -> fn(Tensor<B, 2>, Tensor<B, 2>) -> Tensor<B, 1> {
        match self {
            Self::Cosine => pairwise_cos_sim,
            Self::Dot => pairwise_dot_score,
            Self::Euclidean => pairwise_euclidean_sim,
            Self::Manhattan => pairwise_manhattan_sim,
        }
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

/// The cosine of each row of `a` with the same row of `b`.
///
/// # Shapes
/// - a, b: `[n, dim]`
/// - output: `[n]`
pub fn pairwise_cos_sim<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
    pairwise_dot_score(normalize(a), normalize(b))
}

/// The dot product of each row of `a` with the same row of `b`.
///
/// # Shapes
/// - a, b: `[n, dim]`
/// - output: `[n]`
pub fn pairwise_dot_score<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
    (a * b).sum_dim(1).squeeze_dim(1)
}

/// The negative Euclidean distance of each row of `a` to the same row of `b`.
///
/// # Shapes
/// - a, b: `[n, dim]`
/// - output: `[n]`
pub fn pairwise_euclidean_sim<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
    -euclidean_norm(a - b).squeeze_dim(1)
}

/// The negative Manhattan distance of each row of `a` to the same row of `b`.
///
/// # Shapes
/// - a, b: `[n, dim]`
/// - output: `[n]`
pub fn pairwise_manhattan_sim<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
    -(a - b).abs().sum_dim(1).squeeze_dim(1)
}

/// The length of each row, `[rows, 1]`; a row of zeros has no gradient, as in PyTorch.
fn euclidean_norm<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let squares = (rows.clone() * rows).sum_dim(1);
    // The root's own gradient at zero is infinite.
    let zero = squares.clone().equal_elem(0.0);
    let squares = squares.mask_fill(zero.clone(), 1.0);
    squares.sqrt().mask_fill(zero, 0.0)
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
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};

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
    fn equal_rows_have_a_gradient_of_zero() {
        for function in [SimilarityFunction::Euclidean, SimilarityFunction::Manhattan] {
            let rows = [[3.0, 4.0], [1.0, 2.0]];
            let a = Tensor::<TestAutodiffBackend, 2>::from_floats(rows, &device()).require_grad();
            let b = Tensor::from_floats([[3.0, 4.0], [1.0, 1.0]], &device());
            let pairs = function.to_similarity_pairwise_fn()(a.clone(), b);
            let gradient = a.grad(&pairs.sum().backward()).unwrap();
            assert_eq!(
                values(gradient),
                [0.0, 0.0, 0.0, -1.0],
                "{}",
                function.name()
            );
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
