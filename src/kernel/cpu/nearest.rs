use std::cell::RefCell;
use std::ops::Range;
use std::sync::Mutex;

use rten_simd::ops::{BitOps, FloatOps, MaskOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::elementwise::map_vectors;
use super::linear::view;
use super::matrix::{LARGEST_TILE, MatrixView, PackedMatrix};
use super::product::{Epilogue, PARALLEL_WORK, Term, Vectors, product_here, rows_at_a_time};
use super::tensor::Floats;
use super::threads;
use crate::kernel::TopK;

/// Documents to be compared with queries.
///
/// They are the left operand of the product, read once from memory; the queries, far
/// fewer, are packed. A score lives in registers: it is compared with the least that still
/// counts for its query, and most are forgotten there.
pub(super) struct Documents<'a> {
    rows: MatrixView<'a>,
    items: &'a [u32],
    /// Whether each row is scaled to unit length first.
    unit: bool,
}

impl<'a> Documents<'a> {
    pub(super) fn new(rows: &'a Floats, items: &'a [u32], unit: bool) -> Self {
        let rows = view(rows);
        assert_eq!(rows.rows, items.len(), "documents and their numbers");
        Self { rows, items, unit }
    }

    /// Offers each document to each query's best.
    pub(super) fn offer_to(&self, queries: &Floats, best: &mut [TopK]) {
        let queries = view(queries);
        assert_eq!(queries.rows, best.len(), "queries and their best");
        let work = self.rows.rows * queries.rows * queries.columns;
        let threads = match work < PARALLEL_WORK {
            true => 1,
            false => threads::available(),
        };
        let queries = PackedMatrix::new(queries.transposed(), 1.0);
        let forks: Vec<TopK> = best.iter().map(TopK::fork).collect();
        let best = Mutex::new(best);
        threads::split(self.rows.rows, threads, |part| {
            let found = self.scan(part, &queries, forks.clone());
            let mut best = best.lock().unwrap_or_else(|e| e.into_inner());
            for (best, found) in best.iter_mut().zip(found) {
                best.absorb(found);
            }
        });
    }

    /// Offers some of the documents.
    fn scan(&self, range: Range<usize>, queries: &PackedMatrix, best: Vec<TopK>) -> Vec<TopK> {
        let dim = self.rows.columns;
        let sieve = Sieve::new(best);
        let at_a_time = rows_at_a_time(dim);
        let mut scaled = Vec::new();
        for start in range.clone().step_by(at_a_time) {
            let end = range.end.min(start + at_a_time);
            let values = &self.rows.data[start * dim..end * dim];
            let values = match self.unit {
                true => {
                    scaled.clear();
                    scaled.extend_from_slice(values);
                    UnitRows(&mut scaled, dim).dispatch();
                    &scaled
                }
                false => values,
            };
            let term = Term::new(MatrixView::new(values, [end - start, dim]), queries);
            let items = &self.items[start..end];
            product_here(
                term,
                &Sift {
                    sieve: &sieve,
                    items,
                },
            );
        }
        sieve.best.into_inner()
    }
}

/// Scales rows to unit length.
struct UnitRows<'a>(&'a mut [f32], usize);

impl SimdOp for UnitRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        for row in self.0.chunks_exact_mut(self.1.max(1)) {
            let squares = row.chunks(ops.len()).fold(ops.zero(), |sum, values| {
                let (values, _) = ops.load_pad(values);
                ops.mul_add(values, values, sum)
            });
            let length = ops.splat(ops.sum(squares).max(1e-24).sqrt());
            map_vectors(
                isa,
                row,
                #[inline(always)]
                |_, values| ops.div(values, length),
            );
        }
    }
}

/// What of all scores so far is worth keeping, on one thread.
struct Sieve {
    best: RefCell<Vec<TopK>>,
    /// Each query's floor; behind the last query, what no score reaches.
    floors: RefCell<Vec<f32>>,
}

impl Sieve {
    fn new(best: Vec<TopK>) -> Self {
        let mut floors: Vec<f32> = best.iter().map(TopK::floor).collect();
        floors.resize(best.len() + LARGEST_TILE.columns, f32::INFINITY);
        Self {
            best: RefCell::new(best),
            floors: RefCell::new(floors),
        }
    }

    /// Offers an item to the queries from `first` on.
    #[inline(never)]
    fn offer(&self, item: u32, first: usize, scores: &[f32]) {
        let mut best = self.best.borrow_mut();
        let mut floors = self.floors.borrow_mut();
        let queries = best[first..].iter_mut().zip(&mut floors[first..]);
        for (&score, (best, floor)) in scores.iter().zip(queries) {
            if score >= *floor || score.is_nan() {
                best.push(score, item);
                *floor = best.floor();
            }
        }
    }
}

/// Lets the scores of some documents through a sieve.
struct Sift<'a> {
    sieve: &'a Sieve,
    items: &'a [u32],
}

impl Epilogue for Sift<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, column: usize, values: Vectors<I>, used: usize) {
        let (ops, masks) = (isa.f32(), isa.m32());
        let [left, right] = ops.load_many(&self.sieve.floors.borrow()[column..]);
        let below = masks.and(ops.lt(values[0], left), ops.lt(values[1], right));
        if masks.all(below) {
            return;
        }
        let mut scores = [0.0; LARGEST_TILE.columns];
        for (scores, &value) in scores.chunks_exact_mut(ops.len()).zip(&values) {
            ops.store(value, scores);
        }
        self.sieve.offer(self.items[row], column, &scores[..used]);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::kernel::Scored;

    fn random(rng: &mut StdRng, [rows, columns]: [usize; 2]) -> Floats {
        // Few distinct values, so that many scores tie.
        let values = (0..rows * columns).map(|_| rng.random_range(-2..3) as f32 / 2.0);
        Floats::from_vec(values.collect(), &[rows, columns])
    }

    /// The same, one score at a time.
    fn expected(
        queries: &Floats,
        documents: &Floats,
        items: &[u32],
        mut best: TopK,
    ) -> Vec<Scored> {
        for (row, &item) in items.iter().enumerate() {
            let dim = view(queries).columns;
            let document = &documents.values()[row * dim..][..dim];
            let score = queries.values()[..dim]
                .iter()
                .zip(document)
                .map(|(a, b)| a * b);
            best.push(score.sum(), item);
        }
        best.into_sorted()
    }

    #[test]
    fn keeps_what_one_score_at_a_time_would_keep() {
        let mut rng = StdRng::seed_from_u64(9);
        for (queries, documents, dim) in [(1, 1, 1), (1, 700, 5), (33, 90, 17), (40, 3000, 24)] {
            let queries = random(&mut rng, [queries, dim]);
            let rows = random(&mut rng, [documents, dim]);
            let items: Vec<u32> = (0..documents as u32).rev().collect();
            for start in [TopK::new(1), TopK::new(10), TopK::at_least(2.0)] {
                let mut best = vec![start.clone(); queries.dims::<2>()[0]];
                let half = documents / 2;
                for range in [0..half, half..documents] {
                    let part = rows.values()[range.start * dim..range.end * dim].to_vec();
                    let part = Floats::from_vec(part, &[range.len(), dim]);
                    Documents::new(&part, &items[range], false).offer_to(&queries, &mut best);
                }
                for (query, best) in best.into_iter().enumerate() {
                    let query = queries.values()[query * dim..][..dim].to_vec();
                    let query = Floats::from_vec(query, &[1, dim]);
                    let expected = expected(&query, &rows, &items, start.clone());
                    assert_eq!(best.into_sorted(), expected);
                }
            }
        }
    }

    #[test]
    fn a_row_of_any_length_is_scaled_to_one() {
        let mut rng = StdRng::seed_from_u64(4);
        for dim in [1, 7, 16, 45] {
            let mut rows: Vec<f32> = (0..3 * dim).map(|_| rng.random_range(-9.0..9.0)).collect();
            rows[dim..2 * dim].fill(0.0);
            UnitRows(&mut rows, dim).dispatch();
            for (row, length) in rows.chunks_exact(dim).zip([1.0, 0.0, 1.0]) {
                let squares: f32 = row.iter().map(|value| value * value).sum();
                assert!((squares.sqrt() - length).abs() < 1e-6, "{dim}");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_noted() {
        let queries = Floats::from_vec(vec![1.0; 4], &[2, 2]);
        let documents = Floats::from_vec(vec![9.0, 0.0, f32::NAN, 0.0, 1.0, 0.0], &[3, 2]);
        let mut best = vec![TopK::new(1); 2];
        Documents::new(&documents, &[5, 6, 7], true).offer_to(&queries, &mut best);
        assert!(best.iter().all(|best| best.not_a_number() == Some(6)));
    }
}
