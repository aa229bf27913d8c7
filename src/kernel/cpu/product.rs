#![allow(
    unsafe_code,
    reason = "the inner loop reads its operands through pointers; see SAFETY"
)]

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::matrix::{LARGEST_TILE, MatrixView, PackedMatrix, Tile};
use super::threads;

/// The values of a block of the left operand that stay in the second-level cache while
/// the panels of the right one pass by.
const BLOCK: usize = 128 * 1024;

/// Below this many multiplications a product is not worth a second thread.
pub(super) const PARALLEL_WORK: usize = 1 << 20;

/// One term of a sum of products: `left · right`, added to the sum's rows from one on.
#[derive(Clone, Copy)]
pub(super) struct Term<'a> {
    left: MatrixView<'a>,
    right: &'a PackedMatrix,
    top: usize,
}

impl<'a> Term<'a> {
    /// # Panics
    /// If the operands do not fit together.
    pub(super) fn new(left: MatrixView<'a>, right: &'a PackedMatrix) -> Self {
        assert_eq!(left.columns, right.rows(), "operands of a product");
        Self {
            left,
            right,
            top: 0,
        }
    }

    /// The same term, added to the sum's rows from `top` on.
    pub(super) fn at_row(self, top: usize) -> Self {
        Self { top, ..self }
    }

    /// The sum's rows that it is added to.
    fn rows(&self) -> Range<usize> {
        self.top..self.top + self.left.rows
    }

    /// The shape of the product.
    pub(super) fn shape(&self) -> [usize; 2] {
        [self.left.rows, self.right.columns()]
    }
}

/// The values of one row of a tile.
pub(super) type Vectors<I> = [<I as Isa>::F32; VECTORS];

/// What happens to the values of a product while they are still in the first-level
/// cache: it stores them.
pub(super) trait Epilogue {
    /// Takes the product's values of one row, from a column on: whole vectors, of which
    /// the first `used` values belong to the product.
    fn row<I: Isa>(&self, isa: I, row: usize, column: usize, values: Vectors<I>, used: usize);
}

/// Computes the sum of products `Σ left · right` and hands each value to the epilogue once;
/// in parallel where the work is worth it. The first term has the shape of the sum, others
/// may be added to some of its rows only.
///
/// # Panics
/// If the terms do not fit together.
pub(super) fn product<E: Epilogue + Sync>(terms: &[Term<'_>], epilogue: &E) {
    let depth: usize = terms.iter().map(|term| term.left.columns).sum();
    let [rows, columns] = terms.first().map_or([0, 0], Term::shape);
    let threads = match rows * columns * depth < PARALLEL_WORK {
        true => 1,
        false => threads::available(),
    };
    product_on(threads, terms, epilogue);
}

/// As [`product`], on that many threads.
pub(super) fn product_on<E: Epilogue + Sync>(threads: usize, terms: &[Term<'_>], epilogue: &E) {
    let Some(first) = terms.first() else { return };
    let [rows, _] = first.shape();
    for term in terms {
        let fits = term.shape()[1] == first.shape()[1] && term.rows().end <= rows;
        assert!(fits, "terms of a sum of products");
    }
    assert_eq!(first.top, 0, "the first term of a sum has all its rows");
    let panels = first.right.panels();
    let depth: usize = terms.iter().map(|term| term.left.columns).sum();
    let run = |rows: Range<usize>, panels: Range<usize>| {
        let part = Part {
            terms,
            epilogue,
            rows,
            panels,
            depth,
        };
        part.run();
    };
    if threads == 1 {
        run(0..rows, 0..panels);
    } else if rows >= 4 * threads * LARGEST_TILE.rows {
        threads::split(rows, threads, |part| run(part, 0..panels));
    } else {
        // Few rows: each thread reads its own share of the weights.
        threads::split(panels, threads, |part| run(0..rows, part));
    }
}

/// As [`product`], on this thread alone: the epilogue need not be shared.
pub(super) fn product_here<E: Epilogue>(term: Term<'_>, epilogue: &E) {
    let [rows, _] = term.shape();
    let part = Part {
        terms: &[term],
        epilogue,
        rows: 0..rows,
        panels: 0..term.right.panels(),
        depth: term.left.columns,
    };
    part.run();
}

/// The rows of the left operand that stay in the second-level cache.
pub(super) fn rows_at_a_time(depth: usize) -> usize {
    (BLOCK / depth.max(1)).next_multiple_of(Tile::native().rows)
}

/// The part of a product that one thread computes.
struct Part<'a, E> {
    terms: &'a [Term<'a>],
    epilogue: &'a E,
    rows: Range<usize>,
    panels: Range<usize>,
    depth: usize,
}

/// A tile's sums, on cache lines.
#[repr(align(64))]
struct Sums([f32; LARGEST_TILE.rows * LARGEST_TILE.columns]);

impl<E: Epilogue> Part<'_, E> {
    fn run(&self) {
        let tile = Tile::native();
        let columns = self.terms[0].right.columns();
        let block = rows_at_a_time(self.depth);
        let mut sums = Sums([0.0; LARGEST_TILE.rows * LARGEST_TILE.columns]);
        let mut start = self.rows.start;
        while start < self.rows.end {
            let (end, terms) = self.section(start, block);
            // Strips of nearly equal height: a last one of a single row would leave the
            // multipliers waiting.
            let strips = (end - start).div_ceil(tile.rows);
            for panel in self.panels.clone() {
                let column = panel * tile.columns;
                for strip in 0..strips {
                    let top = start + (end - start) * strip / strips;
                    let bottom = start + (end - start) * (strip + 1) / strips;
                    let strip = Strip {
                        terms: &terms,
                        panel,
                        rows: top..bottom,
                        sums: &mut sums,
                    };
                    strip.dispatch();
                    let finish = Finish {
                        epilogue: self.epilogue,
                        rows: top..bottom,
                        column,
                        width: tile.columns.min(columns - column),
                        sums: &mut sums,
                    };
                    finish.dispatch();
                }
            }
            start = end;
        }
    }

    /// The end of the rows from `start` on, at most `most`, that are the sum of the same
    /// terms, and those terms.
    fn section(&self, start: usize, most: usize) -> (usize, Vec<Term<'_>>) {
        let mut end = self.rows.end.min(start + most);
        let mut terms = Vec::with_capacity(self.terms.len());
        for term in self.terms {
            let rows = term.rows();
            if rows.contains(&start) {
                end = end.min(rows.end);
                terms.push(*term);
            } else if rows.start > start {
                end = end.min(rows.start);
            }
        }
        (end, terms)
    }
}

/// Computes a strip of a panel's columns.
///
/// An operation of its own, so that it is compiled once and not for every epilogue.
struct Strip<'a> {
    terms: &'a [Term<'a>],
    panel: usize,
    rows: Range<usize>,
    sums: &'a mut Sums,
}

impl SimdOp for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self {
            terms,
            panel,
            rows,
            sums,
        } = self;
        // Two vectors of columns; rows such that the sums, a row of the right operand and
        // a broadcast value fill the 32, 16 or 32 registers.
        match isa.f32().len() {
            16 => strip_of_14(isa, terms, panel, rows, sums),
            8 => strip_of_6(isa, terms, panel, rows, sums),
            _ => strip_of_8(isa, terms, panel, rows, sums),
        }
    }
}

/// Hands a strip's sums to the epilogue.
struct Finish<'a, E> {
    epilogue: &'a E,
    rows: Range<usize>,
    column: usize,
    width: usize,
    sums: &'a mut Sums,
}

impl<E: Epilogue> SimdOp for Finish<'_, E> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let columns = VECTORS * ops.len();
        for (row, values) in self.rows.zip(self.sums.0.chunks_exact(columns)) {
            let values = ops.load_many::<VECTORS>(values);
            self.epilogue.row(isa, row, self.column, values, self.width);
        }
    }
}

/// A function that computes up to that many rows, each number of rows compiled for itself.
macro_rules! strip {
    ($name:ident: $($rows:literal)*) => {
        #[inline(always)]
        fn $name<I: Isa>(
            isa: I,
            terms: &[Term<'_>],
            panel: usize,
            rows: Range<usize>,
            sums: &mut Sums,
        ) {
            match rows.len() {
                $($rows => strip::<I, $rows>(isa, terms, panel, rows.start, sums),)*
                _ => unreachable!("a strip is never higher than its tile"),
            }
        }
    };
}
strip!(strip_of_14: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
strip!(strip_of_8: 1 2 3 4 5 6 7 8);
strip!(strip_of_6: 1 2 3 4 5 6);

/// Two vectors of columns in each tile.
pub(super) const VECTORS: usize = 2;

/// Computes `ROWS` rows of one panel's columns.
#[inline(always)]
fn strip<I: Isa, const ROWS: usize>(
    isa: I,
    terms: &[Term<'_>],
    panel: usize,
    top: usize,
    sums: &mut Sums,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let mut acc = [[ops.zero(); VECTORS]; ROWS];
    for term in terms {
        let depth = term.left.columns;
        let right = term.right.panel(panel);
        let (row_stride, step) = (term.left.row_stride, term.left.column_stride);
        if depth == 0 {
            continue;
        }
        let left = &term.left.data[(top - term.top) * row_stride..];
        assert!((ROWS - 1) * row_stride + (depth - 1) * step < left.len());
        assert!(depth * VECTORS * lanes <= right.len());
        let (mut left, mut right) = (left.as_ptr(), right.as_ptr());
        for _ in 0..depth {
            // SAFETY: `left` has moved by fewer than `depth` steps, so that the largest
            // place read, `(ROWS - 1) * row_stride`, is within the slice by the first
            // assertion; `right` by as many rows of `VECTORS * lanes` values, so that the
            // next such row is within its slice by the second. A pointer is moved past
            // its slice's end only with `wrapping_add`, and then not read.
            unsafe {
                let mut columns = [ops.zero(); VECTORS];
                for (j, column) in columns.iter_mut().enumerate() {
                    *column = ops.load_ptr(right.add(j * lanes));
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let value = ops.splat(*left.add(i * row_stride));
                    for (acc, &column) in acc.iter_mut().zip(&columns) {
                        *acc = ops.mul_add(value, column, *acc);
                    }
                }
            }
            left = left.wrapping_add(step);
            right = right.wrapping_add(VECTORS * lanes);
        }
    }
    for (acc, sums) in acc.iter().zip(sums.0.chunks_exact_mut(VECTORS * lanes)) {
        for (&acc, sums) in acc.iter().zip(sums.chunks_exact_mut(lanes)) {
            ops.store(acc, sums);
        }
    }
}
