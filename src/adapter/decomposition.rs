use faer::linalg::solvers::{Qr, Svd};
use faer::{Mat, MatRef};

use crate::error::{AdapterError, Result};

/// `matrix = U · diag(S) · Vᵀ`, the singular values falling. A column of U and the same
/// column of V may both have either sign.
#[derive(Debug)]
pub(super) struct SingularValues {
    /// `[rows, k]`
    pub(super) u: Mat<f64>,
    /// `[k]`
    pub(super) s: Vec<f64>,
    /// `[columns, k]`
    pub(super) v: Mat<f64>,
}

/// The singular value decomposition with `k = min(rows, columns)`.
///
/// # Errors
/// [`AdapterError::NoDecomposition`] if the matrix holds NaN or infinity.
pub(super) fn thin_svd(matrix: MatRef<'_, f64>) -> Result<SingularValues> {
    let failed = |reason| AdapterError::NoDecomposition {
        shape: [matrix.nrows(), matrix.ncols()],
        reason,
    };
    if !matrix.is_all_finite() {
        return Err(failed("it holds NaN or infinity").into());
    }
    let svd = Svd::new_thin(matrix).map_err(|_| failed("the iteration does not converge"))?;
    Ok(SingularValues {
        u: svd.U().to_owned(),
        s: svd.S().column_vector().iter().copied().collect(),
        v: svd.V().to_owned(),
    })
}

/// Orthonormal columns Q, `[rows, min(rows, columns)]`, with `matrix = Q · R`, R upper
/// triangular.
///
/// The signs are LAPACK's, and so PyTorch's: a column's reflection turns its head's sign,
/// so R's diagonal is as often negative. The last column of a square matrix is left as it
/// is.
pub(super) fn orthonormal_basis(matrix: MatRef<'_, f64>) -> Mat<f64> {
    Qr::new(matrix).compute_thin_Q()
}

/// The first `q` singular values and vectors, by `niter` rounds of randomised subspace
/// iteration: `torch.svd_lowrank`. `draw` gives the standard normal test matrix.
///
/// Source: algorithms 4.4 and 5.1 of Halko, Martinsson and Tropp
/// (<https://arxiv.org/abs/0909.4061>).
///
/// # Errors
/// [`AdapterError::NoDecomposition`] if the matrix holds NaN or infinity.
pub(super) fn svd_lowrank<D>(
    matrix: MatRef<'_, f64>,
    q: usize,
    niter: usize,
    draw: D,
) -> Result<SingularValues>
where
    D: FnOnce([usize; 2]) -> Mat<f64>,
{
    if matrix.nrows() < matrix.ncols() {
        let SingularValues { u, s, v } = svd_lowrank(matrix.transpose(), q, niter, draw)?;
        return Ok(SingularValues { u: v, s, v: u });
    }
    let test = draw([matrix.ncols(), q]);
    let mut basis = orthonormal_basis((matrix * test).as_ref());
    for _ in 0..niter {
        let rows = orthonormal_basis((matrix.transpose() * &basis).as_ref());
        basis = orthonormal_basis((matrix * rows).as_ref());
    }
    let SingularValues { u, s, v } = thin_svd((basis.transpose() * matrix).as_ref())?;
    Ok(SingularValues { u: basis * u, s, v })
}

/// The singular value decomposition of `b · a`, with as many values as `a` has rows,
/// without forming the product.
///
/// # Errors
/// [`AdapterError::NoDecomposition`] if a factor holds NaN or infinity.
pub(super) fn svd_of_product(b: &Mat<f64>, a: &Mat<f64>) -> Result<SingularValues> {
    let left = orthonormal_basis(b.as_ref());
    let right = orthonormal_basis(a.transpose());
    let core = (left.transpose() * b) * (a * &right);
    let SingularValues { u, s, v } = thin_svd(core.as_ref())?;
    Ok(SingularValues {
        u: left * u,
        s,
        v: right * v,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Matrix, TorchGenerator};

    fn random(shape: [usize; 2], seed: u64) -> Mat<f64> {
        let values = TorchGenerator::new(seed).normal(shape[0] * shape[1]);
        Matrix::new(shape, values).unwrap().to_f64()
    }

    fn difference(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
        (a - b).norm_max()
    }

    fn rebuilt(svd: &SingularValues) -> Mat<f64> {
        let scaled = Mat::from_fn(svd.u.nrows(), svd.s.len(), |row, column| {
            svd.u[(row, column)] * svd.s[column]
        });
        scaled * svd.v.transpose()
    }

    #[test]
    fn singular_values_rebuild_tall_and_wide_matrices() {
        for shape in [[7, 4], [4, 7], [5, 5], [1, 3]] {
            let matrix = random(shape, 1);
            let svd = thin_svd(matrix.as_ref()).unwrap();
            assert!(difference(&rebuilt(&svd), &matrix) < 1e-12);
            assert!(svd.s.is_sorted_by(|a, b| a >= b));
            let identity = Mat::<f64>::identity(svd.s.len(), svd.s.len());
            assert!(difference(&(svd.u.transpose() * &svd.u), &identity) < 1e-12);
            assert!(difference(&(svd.v.transpose() * &svd.v), &identity) < 1e-12);
        }
    }

    #[test]
    fn the_basis_is_orthonormal_and_triangularises() {
        for shape in [[7, 4], [4, 7], [5, 5]] {
            let matrix = random(shape, 2);
            let q = orthonormal_basis(matrix.as_ref());
            assert_eq!(q.ncols(), shape[0].min(shape[1]));
            let r = q.transpose() * &matrix;
            assert!(difference(&(&q * &r), &matrix) < 1e-12);
            for row in 0..r.nrows() {
                assert!((0..row).all(|column| r[(row, column)].abs() < 1e-12));
            }
        }
    }

    #[test]
    fn subspace_iteration_finds_the_first_singular_values() {
        let matrix = random([40, 6], 3) * random([6, 30], 4);
        let exact = thin_svd(matrix.as_ref()).unwrap();
        for matrix in [matrix.as_ref(), matrix.transpose()] {
            let svd = svd_lowrank(matrix, 8, 2, |shape| random(shape, 5)).unwrap();
            assert_eq!(svd.s.len(), 8);
            let worst = svd.s.iter().zip(&exact.s).map(|(a, b)| (a - b).abs());
            assert!(worst.fold(0.0, f64::max) < 1e-9);
            assert!(difference(&rebuilt(&svd), &matrix.to_owned()) < 1e-9);
        }
    }

    #[test]
    fn a_product_has_the_singular_values_of_its_factors() {
        let (b, a) = (random([9, 3], 7), random([3, 7], 8));
        let exact = thin_svd((&b * &a).as_ref()).unwrap();
        let svd = svd_of_product(&b, &a).unwrap();
        assert_eq!(svd.s.len(), 3);
        let worst = svd.s.iter().zip(&exact.s).map(|(a, b)| (a - b).abs());
        assert!(worst.fold(0.0, f64::max) < 1e-12);
        assert!(difference(&rebuilt(&svd), &(b * a)) < 1e-12);
    }

    #[test]
    fn a_matrix_with_nan_has_no_decomposition() {
        let mut matrix = random([3, 3], 6);
        matrix[(1, 1)] = f64::NAN;
        let error = thin_svd(matrix.as_ref()).unwrap_err();
        assert!(error.to_string().contains("NaN"), "{error}");
    }
}
