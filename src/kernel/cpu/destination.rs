#![allow(
    unsafe_code,
    reason = "threads write disjoint parts of one output; see SAFETY"
)]

use std::marker::PhantomData;
use std::slice;

use rten_simd::Isa;
use rten_simd::ops::BitOps;

/// A matrix that is written by several threads, each value by one of them.
///
/// Not initialised before: a fresh output is written once, not cleared first.
#[derive(Debug)]
pub(super) struct Destination<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: all access goes through `write` and `update`, whose callers vouch that no two
// threads touch the same values.
unsafe impl Send for Destination<'_> {}
// SAFETY: as above.
unsafe impl Sync for Destination<'_> {}

impl<'a> Destination<'a> {
    /// The rows of a matrix that holds values already.
    pub(super) fn over(values: &'a mut [f32], columns: usize) -> Self {
        Self {
            start: values.as_mut_ptr(),
            rows: values.len().checked_div(columns).unwrap_or(0),
            columns,
            memory: PhantomData,
        }
    }

    /// Puts values into a row, from a column on.
    ///
    /// # Safety
    /// No other thread may read or write the same values until all are done.
    #[inline(always)]
    pub(super) unsafe fn write(&self, row: usize, column: usize, values: &[f32]) {
        let place = self.place(row, column, values.len());
        // SAFETY: `place` is within the matrix; the caller vouches that it is ours alone.
        unsafe { place.copy_from_nonoverlapping(values.as_ptr(), values.len()) }
    }

    /// Puts whole vectors of values, of which the first `used` count, into a row.
    ///
    /// # Safety
    /// As of [`write`](Self::write).
    #[inline(always)]
    pub(super) unsafe fn write_vectors<I: Isa, const N: usize>(
        &self,
        isa: I,
        row: usize,
        column: usize,
        vectors: [I::F32; N],
        used: usize,
    ) {
        let ops = isa.f32();
        let lanes = ops.len();
        let place = self.place(row, column, used);
        if used >= N * lanes {
            for (index, vector) in vectors.into_iter().enumerate() {
                // SAFETY: `place` has room for `used` values, which are all the vectors';
                // the caller vouches that they are ours alone.
                unsafe { ops.store_ptr(vector, place.add(index * lanes)) }
            }
            return;
        }
        for (index, vector) in vectors.into_iter().enumerate() {
            let left = used.saturating_sub(index * lanes).min(lanes);
            let place = place.wrapping_add(index * lanes);
            if left > 0 {
                // SAFETY: as above, `left` of the values being this vector's.
                unsafe { ops.store_ptr_mask(vector, place, ops.first_n_mask(left)) }
            }
        }
    }

    /// The values of a row, from a column on.
    ///
    /// # Safety
    /// They must have been written, and no other thread may read or write them while the
    /// slice lives.
    #[inline(always)]
    #[allow(
        clippy::mut_from_ref,
        reason = "the caller vouches that there is no other"
    )]
    pub(super) unsafe fn update(&self, row: usize, column: usize, length: usize) -> &mut [f32] {
        let place = self.place(row, column, length);
        // SAFETY: `place` is within the matrix and written; the caller vouches that it is
        // ours alone.
        unsafe { slice::from_raw_parts_mut(place, length) }
    }

    #[inline(always)]
    fn place(&self, row: usize, column: usize, length: usize) -> *mut f32 {
        assert!(row < self.rows && column + length <= self.columns);
        // SAFETY: the assertion keeps the place within the memory that `start` begins.
        unsafe { self.start.add(row * self.columns + column) }
    }
}

/// A new matrix that `fill` writes whole.
///
/// # Safety
/// `fill` must write every value.
pub(super) unsafe fn filled<R>(
    [rows, columns]: [usize; 2],
    fill: impl FnOnce(&Destination<'_>) -> R,
) -> (Vec<f32>, R) {
    let mut values = Vec::<f32>::with_capacity(rows * columns);
    let destination = Destination {
        start: values.as_mut_ptr(),
        rows,
        columns,
        memory: PhantomData,
    };
    let result = fill(&destination);
    // SAFETY: the capacity is that many values, and the caller vouches that `fill` has
    // written each.
    unsafe { values.set_len(rows * columns) };
    (values, result)
}
