#![allow(
    unsafe_code,
    reason = "threads write disjoint parts of one output; see SAFETY"
)]

use std::marker::PhantomData;
use std::slice;

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

    /// The values of a row, from a column on.
    ///
    /// # Safety
    /// They must have been written, and no other thread may read or write them while the
    /// slice lives.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller vouches that there is no other")]
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
