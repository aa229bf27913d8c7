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

/// Up to that many queries are not worth a product.
const FEW: usize = 6;

/// Documents to be compared with queries.
///
/// They are the left operand of the product, read once from memory; the queries, far
/// fewer, are packed. A score lives in registers: it is compared with the least that still
/// counts for its query, and most are forgotten there. Of a few queries, which would leave
/// most of a panel's columns empty, the products are taken one by one.
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
        let few = queries.rows <= FEW && queries.columns > 0;
        let packed = (!few).then(|| PackedMatrix::new(queries.transposed(), 1.0));
        let forks: Vec<TopK> = best.iter().map(TopK::fork).collect();
        let best = Mutex::new(best);
        threads::split(self.rows.rows, threads, |part| {
            let sieve = Sieve::new(forks.clone());
            match &packed {
                Some(packed) => self.scan(part, packed, &sieve),
                None => self.scan_for_few(part, queries.data, &sieve),
            }
            let found = sieve.best.into_inner();
            let mut best = best.lock().unwrap_or_else(|e| e.into_inner());
            for (best, found) in best.iter_mut().zip(found) {
                best.absorb(found);
            }
        });
    }

    /// Offers some of the documents to a few queries.
    fn scan_for_few(&self, range: Range<usize>, queries: &[f32], sieve: &Sieve) {
        let dim = self.rows.columns;
        Few {
            rows: &self.rows.data[range.start * dim..range.end * dim],
            items: &self.items[range],
            queries,
            dim,
            unit: self.unit,
            sieve,
        }
        .dispatch();
    }

    /// Offers some of the documents.
    fn scan(&self, range: Range<usize>, queries: &PackedMatrix, sieve: &Sieve) {
        let dim = self.rows.columns;
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
            product_here(term, &Sift { sieve, items });
        }
    }
}

/// Compares rows with a few queries.
struct Few<'a> {
    rows: &'a [f32],
    items: &'a [u32],
    queries: &'a [f32],
    dim: usize,
    unit: bool,
    sieve: &'a Sieve,
}

impl SimdOp for Few<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let rows = self.rows.chunks_exact(self.dim);
        for (row, &item) in rows.zip(self.items) {
            let length = match self.unit {
                true => dot(isa, row, row).max(1e-24).sqrt(),
                false => 1.0,
            };
            for (query, values) in self.queries.chunks_exact(self.dim).enumerate() {
                let score = dot(isa, row, values) / length;
                if !self.sieve.is_below(query, score) {
                    self.sieve.offer(item, query, &[score]);
                }
            }
        }
    }
}

/// The dot product of two rows.
#[inline(always)]
fn dot<I: Isa>(isa: I, a: &[f32], b: &[f32]) -> f32 {
    /// As many sums as keep the multipliers busy.
    const SUMS: usize = 4;
    let ops = isa.f32();
    let width = SUMS * ops.len();
    let mut sums = [ops.zero(); SUMS];
    let whole = a.len() / width * width;
    let (a, a_rest) = a.split_at(whole);
    let (b, b_rest) = b.split_at(whole);
    for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
        let (a, b) = (ops.load_many::<SUMS>(a), ops.load_many::<SUMS>(b));
        for (sum, (a, b)) in sums.iter_mut().zip(a.into_iter().zip(b)) {
            *sum = ops.mul_add(a, b, *sum);
        }
    }
    for (a, b) in a_rest.chunks(ops.len()).zip(b_rest.chunks(ops.len())) {
        let ((a, _), (b, _)) = (ops.load_pad(a), ops.load_pad(b));
        sums[0] = ops.mul_add(a, b, sums[0]);
    }
    let [first, second, third, fourth] = sums;
    ops.sum(ops.add(ops.add(first, second), ops.add(third, fourth)))
}

/// Scales rows to unit length.
struct UnitRows<'a>(&'a mut [f32], usize);

impl SimdOp for UnitRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        for row in self.0.chunks_exact_mut(self.1.max(1)) {
            let length = ops.splat(dot(isa, row, row).max(1e-24).sqrt());
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

    /// Whether a score is too low for a query.
    #[inline(always)]
    fn is_below(&self, query: usize, score: f32) -> bool {
        score < self.floors.borrow()[query]
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
        for (queries, documents, dim) in [
            (1, 1, 1),
            (1, 700, 5),
            (3, 200, 150),
            (FEW + 1, 60, 3),
            (33, 90, 17),
            (40, 3000, 24),
        ] {
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
