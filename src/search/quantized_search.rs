use burn::tensor::{Tensor, TensorData, backend::Backend};
use rayon::prelude::*;

use super::{Neighbours, SearchHit};
use crate::error::{ModelError, Result, SearchError};
use crate::kernel::{Scored, TopK};
use crate::model::{
    Precision, QuantizationRanges, QuantizedEmbeddings, QuantizedValues, SimilarityFunction,
    quantize_embeddings_with_ranges,
};

/// How many bytes of a corpus are floats at a time: 16 MiB of them.
const BYTES_AT_A_TIME: usize = 1 << 22;

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
    let scale = Scale {
        precision,
        steps: ranges.steps(),
        columns,
    };
    match (&quantized.values, &corpus.values, precision) {
        (.., Precision::Float32) => Err(SearchError::Quantized {
            precision: precision.name(),
            reason: "it is not quantized: use `semantic_search`".to_owned(),
        }
        .into()),
        (QuantizedValues::U8(codes), QuantizedValues::U8(rows), _) => {
            scale.search(queries, codes, rows, |byte| byte, options)
        }
        (QuantizedValues::I8(codes), QuantizedValues::I8(rows), _) => {
            scale.search(queries, codes, rows, |byte| (byte as u8) ^ 0x80, options)
        }
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

/// What the bytes of a corpus mean.
struct Scale {
    precision: Precision,
    /// Each dimension's least value and the height of a step; of bytes alone.
    steps: Vec<(f32, f32)>,
    /// The bytes of a row.
    columns: usize,
}

impl Scale {
    /// Searches in bytes of one type, which `unsigned` makes those that are not less 128.
    fn search<B: Backend, T: Copy + Sync>(
        &self,
        queries: Tensor<B, 2>,
        codes: &[T],
        corpus: &[T],
        unsigned: fn(T) -> u8,
        options: &QuantizedSearchOptions,
    ) -> Result<Vec<Vec<SearchHit>>> {
        let factor = match options.rescore {
            true => options.rescore_multiplier.max(1),
            false => 1,
        };
        let best = TopK::new(options.top_k.saturating_mul(factor));
        let device = queries.device();
        let found = match self.precision.has_steps() {
            true => self.by_product::<B, T>(codes, corpus, unsigned, best, &device)?,
            false => self.by_distance(codes, corpus, unsigned, &best),
        };
        if !options.rescore {
            let hits = |found: Vec<Scored>| found.into_iter().map(SearchHit::from).collect();
            return Ok(found.into_iter().map(hits).collect());
        }
        let [_, dim] = queries.dims();
        let queries: Vec<f32> = queries.into_data().iter().collect();
        let rescored = |(query, found): (&[f32], Vec<Scored>)| {
            let score = |found: Scored| {
                let corpus_id = found.item as usize;
                let row = &corpus[corpus_id * self.columns..][..self.columns];
                (
                    corpus_id,
                    self.product(query, row.iter().map(|&byte| unsigned(byte))),
                )
            };
            let mut scored: Vec<(usize, f64)> = found.into_iter().map(score).collect();
            scored.sort_by(|a, b| b.1.total_cmp(&a.1));
            let hit = |(corpus_id, score)| SearchHit {
                corpus_id,
                score: score as f32,
            };
            scored.into_iter().take(options.top_k).map(hit).collect()
        };
        let queries = queries.par_chunks_exact(dim);
        Ok(queries.zip(found).map(rescored).collect())
    }

    /// The documents whose bytes have the greatest dot product with each query's.
    ///
    /// As floats: whole numbers below 2²⁴ are exact there. Documents' bytes are less 128 to
    /// stay below it; what that takes from a product is the same for all of a query's.
    fn by_product<B: Backend, T: Copy + Sync>(
        &self,
        codes: &[T],
        corpus: &[T],
        unsigned: fn(T) -> u8,
        best: TopK,
        device: &B::Device,
    ) -> Result<Vec<Vec<Scored>>> {
        let columns = self.columns;
        let tensor = |bytes: &[T], less: f32| {
            let values = bytes
                .par_iter()
                .map(|&byte| f32::from(unsigned(byte)) - less);
            let values: Vec<f32> = values.collect();
            let data = TensorData::new(values, [bytes.len() / columns, columns]);
            Tensor::<B, 2>::from_data(data.convert::<B::FloatElem>(), device)
        };
        let signed = self.precision == Precision::Int8;
        let queries = tensor(codes, if signed { 128.0 } else { 0.0 });
        let mut neighbours = Neighbours::new(queries, SimilarityFunction::Dot, best);
        let mut first = 0;
        for rows in corpus.chunks(BYTES_AT_A_TIME.next_multiple_of(columns)) {
            let end = first + (rows.len() / columns) as u32;
            let items: Vec<u32> = (first..end).collect();
            neighbours.offer(tensor(rows, 128.0), &items)?;
            first = end;
        }
        let mut rankings = neighbours.into_rankings().map_err(|nan| nan.in_rows(0))?;
        if !signed {
            for (ranking, codes) in rankings.iter_mut().zip(codes.chunks_exact(columns)) {
                let sum: f32 = codes.iter().map(|&byte| f32::from(unsigned(byte))).sum();
                ranking
                    .iter_mut()
                    .for_each(|found| found.score += 128.0 * sum);
            }
        }
        Ok(rankings)
    }

    /// The documents with the fewest bits that differ from each query's.
    fn by_distance<T: Copy + Sync>(
        &self,
        codes: &[T],
        corpus: &[T],
        unsigned: fn(T) -> u8,
        best: &TopK,
    ) -> Vec<Vec<Scored>> {
        let words = |bytes: &[T]| -> Vec<u64> {
            let word = |bytes: &[T]| {
                let bytes = bytes.iter().map(|&byte| u64::from(unsigned(byte)));
                bytes.fold(0, |word, byte| word << 8 | byte)
            };
            let rows = bytes.par_chunks_exact(self.columns);
            rows.flat_map_iter(|row| row.chunks(8).map(word)).collect()
        };
        let columns = self.columns.div_ceil(8);
        let (codes, corpus) = (words(codes), words(corpus));
        let find = |query: &[u64]| {
            let mut best = best.clone();
            for (document, row) in (0..).zip(corpus.chunks_exact(columns)) {
                let words = query.iter().zip(row);
                let differing: u32 = words.map(|(a, b)| (a ^ b).count_ones()).sum();
                best.push(-(differing as f32), document);
            }
            let mut found = best.into_sorted();
            // 0 is not to become -0.
            found
                .iter_mut()
                .for_each(|found| found.score = 0.0 - found.score);
            found
        };
        codes.par_chunks_exact(columns).map(find).collect()
    }

    /// A query's dot product with what a document's bytes stand for.
    fn product(&self, query: &[f32], bytes: impl Iterator<Item = u8>) -> f64 {
        if self.precision.has_steps() {
            let values = bytes.zip(&self.steps).map(|(byte, &(least, height))| {
                f64::from(byte) * f64::from(height) + f64::from(least)
            });
            let products = query.iter().zip(values);
            return products
                .map(|(&query, value)| f64::from(query) * value)
                .sum();
        }
        let dimensions = query.chunks(8).zip(bytes);
        let set = dimensions.flat_map(|(dimensions, byte)| {
            let bits = dimensions.iter().enumerate();
            bits.filter(move |(bit, _)| byte & (0x80 >> bit) != 0)
        });
        set.map(|(_, &value)| f64::from(value)).sum()
    }
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
