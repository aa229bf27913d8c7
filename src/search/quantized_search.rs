use burn::tensor::{Tensor, backend::Backend};
use rayon::prelude::*;

use super::SearchHit;
use crate::error::{ModelError, Result, SearchError};
use crate::kernel::{Scored, TopK};
use crate::model::{
    Precision, QuantizationRanges, QuantizedEmbeddings, QuantizedValues,
    quantize_embeddings_with_ranges,
};

/// How [`semantic_search_quantized`] searches.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedSearchOptions {
    /// How many documents to find for each query.
    pub top_k: usize,
    /// Whether the documents that the quantized query finds are ranked anew by the query as
    /// it was.
    pub rescore: bool,
    /// How many times `top_k` documents are ranked anew.
    pub rescore_multiplier: usize,
    /// The ranges that a corpus of [`Precision::Int8`] or [`Precision::Uint8`] was
    /// quantized with. Without them the queries' own are taken, which is a guess.
    pub ranges: Option<QuantizationRanges>,
}

impl Default for QuantizedSearchOptions {
    fn default() -> Self {
        Self {
            top_k: 10,
            rescore: true,
            rescore_multiplier: 2,
            ranges: None,
        }
    }
}

/// Finds the documents most similar to each query in a corpus of bytes or bits, by an exact
/// search: what the reference's `semantic_search_faiss` and `semantic_search_usearch` do,
/// without an index.
///
/// Queries are quantized like the corpus and compared with it: bytes by their dot product,
/// bits by the number that differ (Hamming distance). The best are then ranked by the
/// query's dot product with what the bytes stand for, or with the bits as 0 and 1. Scores
/// are those products; without `rescore` the bytes' dot product, or the distance, least
/// first.
///
/// # Shapes
/// - queries: `[queries, dim]`
/// - corpus: `[documents, dim]`, or `[documents, ⌈dim / 8⌉]` of bits
/// - output: for each query up to `top_k` documents
///
/// # Errors
/// [`SearchError::Quantized`] if the corpus is not in that precision, or not quantized at
/// all, [`ModelError::IncompatibleEmbeddings`] where the dimensions differ,
/// [`ModelError::InvalidOption`] if ranges are to be found from fewer than two queries.
pub fn semantic_search_quantized<B: Backend>(
    queries: Tensor<B, 2>,
    corpus: &QuantizedEmbeddings,
    precision: Precision,
    options: &QuantizedSearchOptions,
) -> Result<Vec<Vec<SearchHit>>> {
    let [count, dim] = queries.dims();
    let columns = match precision {
        Precision::Binary | Precision::Ubinary => dim.div_ceil(8),
        _ => dim,
    };
    if columns != corpus.shape[1] {
        return Err(ModelError::IncompatibleEmbeddings {
            left: [count, dim],
            right: corpus.shape,
            how: "with each other in that precision",
        }
        .into());
    }
    if count == 0 || columns == 0 {
        return Ok(vec![Vec::new(); count]);
    }
    let ranges = match &options.ranges {
        Some(ranges) => ranges.clone(),
        None if precision.has_steps() => ranges_of_queries(queries.clone())?,
        None => QuantizationRanges::new(Vec::new()),
    };
    let quantized = quantize_embeddings_with_ranges(queries.clone(), precision, &ranges)?;
    let steps = ranges.steps();
    let queries: Vec<f32> = queries.into_data().iter().collect();
    match (precision, &quantized.values, &corpus.values) {
        (Precision::Uint8, QuantizedValues::U8(codes), QuantizedValues::U8(rows)) => {
            let value = |code: u8, (least, height): (f32, f32)| restore(code, least, height);
            let search = Search {
                product: dot,
                sign: 1.0,
                rescore: |query: &[f32], row: &[u8]| rescored(query, row, &steps, value),
            };
            Ok(search.run(&queries, codes, rows, [dim, columns], options))
        }
        (Precision::Int8, QuantizedValues::I8(codes), QuantizedValues::I8(rows)) => {
            let value =
                |code: i8, (least, height): (f32, f32)| restore((code as u8) ^ 0x80, least, height);
            let search = Search {
                product: dot,
                sign: 1.0,
                rescore: |query: &[f32], row: &[i8]| rescored(query, row, &steps, value),
            };
            Ok(search.run(&queries, codes, rows, [dim, columns], options))
        }
        (Precision::Ubinary, QuantizedValues::U8(codes), QuantizedValues::U8(rows)) => {
            let search = Search {
                product: differing_bits,
                sign: -1.0,
                rescore: |query: &[f32], row: &[u8]| bits_product(query, row.iter().copied()),
            };
            Ok(search.run(&queries, codes, rows, [dim, columns], options))
        }
        (Precision::Binary, QuantizedValues::I8(codes), QuantizedValues::I8(rows)) => {
            let search = Search {
                product: differing_bits,
                sign: -1.0,
                rescore: |query: &[f32], row: &[i8]| {
                    bits_product(query, row.iter().map(|&byte| (byte as u8) ^ 0x80))
                },
            };
            Ok(search.run(&queries, codes, rows, [dim, columns], options))
        }
        (Precision::Float32, ..) => Err(SearchError::Quantized {
            precision: precision.name(),
            reason: "it is not quantized: use `semantic_search`".to_owned(),
        }
        .into()),
        _ => Err(SearchError::Quantized {
            precision: precision.name(),
            reason: "its values are of another type: it was quantized otherwise".to_owned(),
        }
        .into()),
    }
}

fn ranges_of_queries<B: Backend>(queries: Tensor<B, 2>) -> Result<QuantizationRanges> {
    let [count, _] = queries.dims();
    if count < 2 {
        return Err(ModelError::InvalidOption {
            option: "ranges",
            expected: "those that the corpus was quantized with: one query has no ranges",
            found: "not given".to_owned(),
        }
        .into());
    }
    log::warn!("the corpus's ranges are not given: those of {count} queries are taken");
    QuantizationRanges::of(queries)
}

/// A search in codes of one type.
struct Search<T, R> {
    /// How a query's codes are compared with a document's.
    product: fn(&[T], &[T]) -> i32,
    /// -1 where less is better.
    sign: f32,
    /// How the query itself is compared with a document's codes.
    rescore: R,
}

impl<T: Sync, R: Fn(&[f32], &[T]) -> f64 + Sync> Search<T, R> {
    fn run(
        &self,
        queries: &[f32],
        codes: &[T],
        corpus: &[T],
        [dim, columns]: [usize; 2],
        options: &QuantizedSearchOptions,
    ) -> Vec<Vec<SearchHit>> {
        let factor = match options.rescore {
            true => options.rescore_multiplier.max(1),
            false => 1,
        };
        let find = |(query, codes): (&[f32], &[T])| {
            let mut best = TopK::new(options.top_k.saturating_mul(factor));
            for (document, row) in (0..).zip(corpus.chunks_exact(columns)) {
                best.push(self.sign * (self.product)(codes, row) as f32, document);
            }
            let best = best.into_sorted();
            match options.rescore {
                true => self.rescored(query, best, corpus, columns, options.top_k),
                false => best.into_iter().map(|found| self.hit(found)).collect(),
            }
        };
        let queries = queries.par_chunks_exact(dim);
        queries
            .zip(codes.par_chunks_exact(columns))
            .map(find)
            .collect()
    }

    fn hit(&self, found: Scored) -> SearchHit {
        SearchHit {
            corpus_id: found.item as usize,
            // Adding 0 turns -0 into 0.
            score: self.sign * found.score + 0.0,
        }
    }

    fn rescored(
        &self,
        query: &[f32],
        found: Vec<Scored>,
        corpus: &[T],
        columns: usize,
        top_k: usize,
    ) -> Vec<SearchHit> {
        let score = |found: Scored| {
            let document = found.item as usize;
            let row = &corpus[document * columns..][..columns];
            (document, (self.rescore)(query, row))
        };
        let mut scored: Vec<(usize, f64)> = found.into_iter().map(score).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        let hit = |(corpus_id, score)| SearchHit {
            corpus_id,
            score: score as f32,
        };
        scored.into_iter().take(top_k).map(hit).collect()
    }
}

/// The dot product of bytes.
fn dot<T: Copy + Into<i32>>(a: &[T], b: &[T]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| a.into() * b.into()).sum()
}

/// How many bits of two codes differ. Whether both are less 128 makes no difference.
fn differing_bits<T: Copy + Into<i32>>(a: &[T], b: &[T]) -> i32 {
    let differing = |(&a, &b): (&T, &T)| ((a.into() ^ b.into()) as u8).count_ones() as i32;
    a.iter().zip(b).map(differing).sum()
}

/// The value that a step stands for.
fn restore(code: u8, least: f32, height: f32) -> f64 {
    f64::from(code) * f64::from(height) + f64::from(least)
}

/// A query's dot product with what a document's codes stand for.
fn rescored<T: Copy>(
    query: &[f32],
    row: &[T],
    steps: &[(f32, f32)],
    value: impl Fn(T, (f32, f32)) -> f64,
) -> f64 {
    let values = row.iter().zip(steps);
    let products = query.iter().zip(values);
    products
        .map(|(&query, (&code, &step))| f64::from(query) * value(code, step))
        .sum()
}

/// A query's dot product with bits, the highest of each byte first.
fn bits_product(query: &[f32], bytes: impl Iterator<Item = u8>) -> f64 {
    let dimensions = query.chunks(8).zip(bytes);
    let set = dimensions.flat_map(|(dimensions, byte)| {
        let bits = dimensions.iter().enumerate();
        bits.filter(move |(bit, _)| byte & (0x80 >> bit) != 0)
    });
    set.map(|(_, &value)| f64::from(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::model::quantize_embeddings;

    fn tensor<const N: usize, const D: usize>(rows: [[f32; D]; N]) -> Tensor<TestBackend, 2> {
        Tensor::from_floats(rows, &device())
    }

    const CORPUS: [[f32; 3]; 4] = [
        [1.0, 0.1, -1.0],
        [-1.0, 0.2, 0.9],
        [0.2, 1.0, 0.1],
        [0.9, 0.9, -0.8],
    ];

    fn search(precision: Precision, rescore: bool) -> Vec<(usize, f32)> {
        let corpus = tensor(CORPUS);
        let options = QuantizedSearchOptions {
            top_k: 2,
            rescore,
            ranges: Some(QuantizationRanges::of(corpus.clone()).unwrap()),
            ..Default::default()
        };
        let corpus = quantize_embeddings(corpus, precision, None).unwrap();
        let query = tensor([[0.5, 0.6, -0.2]]);
        let hits = semantic_search_quantized(query, &corpus, precision, &options).unwrap();
        hits[0]
            .iter()
            .map(|hit| (hit.corpus_id, hit.score))
            .collect()
    }

    #[test]
    fn bits_are_compared_by_their_number_and_rescored_as_0_and_1() {
        for precision in [Precision::Binary, Precision::Ubinary] {
            // The query is ++-, the documents ++-, -++, +++ and ++-.
            assert_eq!(search(precision, false), [(0, 0.0), (3, 0.0)]);
            let found = search(precision, true);
            assert_eq!((found[0].0, found[1].0), (0, 3));
            assert!((found[0].1 - 1.1).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn bytes_are_rescored_by_what_they_stand_for() {
        for precision in [Precision::Int8, Precision::Uint8] {
            let found = search(precision, true);
            assert_eq!((found[0].0, found[1].0), (3, 0));
            // A step is less than 0.01 high.
            assert!((found[0].1 - 1.15).abs() < 0.02, "{found:?}");
            assert!(search(precision, false)[0].1.fract() == 0.0);
        }
    }

    #[test]
    fn a_corpus_that_does_not_fit_is_a_named_error() {
        let bits = quantize_embeddings(tensor(CORPUS), Precision::Ubinary, None).unwrap();
        let floats = quantize_embeddings(tensor(CORPUS), Precision::Float32, None).unwrap();
        let search = |corpus, precision| {
            let queries = tensor([[0.5, 0.6, -0.2]]);
            semantic_search_quantized(queries, corpus, precision, &Default::default())
        };
        let error = search(&bits, Precision::Binary).unwrap_err();
        assert!(error.to_string().contains("values are of another type"));
        let error = search(&floats, Precision::Float32).unwrap_err();
        assert!(error.to_string().contains("use `semantic_search`"));
        let error = search(&bits, Precision::Int8).unwrap_err();
        assert!(matches!(
            error,
            Error::Model(ModelError::IncompatibleEmbeddings { .. })
        ));
        let error = search(&floats, Precision::Int8).unwrap_err();
        assert!(error.to_string().contains("`ranges` is not given"));
    }
}
