//! The tools on embeddings: 100,000 documents of 384 dimensions.
//!
//! `semantic_search` finds the top 10; `composed` beside it is the same from all scores in
//! memory, in Burn's own operations.
//!
//! ```text
//! cargo bench --bench search
//! cargo bench --bench search -- semantic_search
//! ```

use std::sync::OnceLock;

use burn::backend::NdArray;
use burn::tensor::{Distribution, Tensor};
use divan::counter::ItemsCount;
use divan::{Bencher, Divan};
use sentence_burn::kernel::{TopK, composed};
use sentence_burn::model::{QuantizationRanges, quantize_embeddings_with_ranges};
use sentence_burn::search::{
    CommunityDetectionOptions, ParaphraseMiningOptions, QuantizedSearchOptions,
    SemanticSearchOptions, community_detection, paraphrase_mining_embeddings, semantic_search,
    semantic_search_quantized,
};
use sentence_burn::{Precision, SimilarityFunction};

const DOCUMENTS: usize = 100_000;
const DIM: usize = 384;
const TOP_K: usize = 10;

/// How many queries are searched for at a time.
const QUERIES: [usize; 3] = [1, 100, 1000];

type T = Tensor<NdArray, 2>;

fn main() {
    Divan::default().sample_count(10).config_with_args().main();
}

fn random(rows: usize) -> T {
    Tensor::random(
        [rows, DIM],
        Distribution::Normal(0.0, 1.0),
        &Default::default(),
    )
}

fn corpus() -> T {
    static CORPUS: OnceLock<T> = OnceLock::new();
    CORPUS.get_or_init(|| random(DOCUMENTS)).clone()
}

fn search(bencher: Bencher<'_, '_>, queries: usize, score_function: SimilarityFunction) {
    let (queries, corpus) = (random(queries), corpus());
    let options = SemanticSearchOptions {
        top_k: TOP_K,
        score_function,
        ..Default::default()
    };
    bencher
        .counter(ItemsCount::new(queries.dims()[0]))
        .bench_local(|| semantic_search(queries.clone(), corpus.clone(), &options));
}

#[divan::bench(args = QUERIES)]
fn semantic_search_by_cosine(bencher: Bencher<'_, '_>, queries: usize) {
    search(bencher, queries, SimilarityFunction::Cosine);
}

#[divan::bench(args = QUERIES)]
fn semantic_search_by_product(bencher: Bencher<'_, '_>, queries: usize) {
    search(bencher, queries, SimilarityFunction::Dot);
}

#[divan::bench(args = [100])]
fn composed_by_cosine(bencher: Bencher<'_, '_>, queries: usize) {
    let (queries, corpus) = (random(queries), corpus());
    let items: Vec<u32> = (0..DOCUMENTS as u32).collect();
    bencher
        .counter(ItemsCount::new(queries.dims()[0]))
        .bench_local(|| {
            let mut best = vec![TopK::new(TOP_K); queries.dims()[0]];
            let (queries, corpus) = (queries.clone(), corpus.clone());
            composed::offer_cosines(queries, corpus, &items, usize::MAX, &mut best)
                .expect("the CPU does not run out of memory here");
            best
        });
}

#[divan::bench(args = [Precision::Int8, Precision::Ubinary])]
fn semantic_search_in_codes(bencher: Bencher<'_, '_>, precision: Precision) {
    let queries = random(100);
    let ranges = QuantizationRanges::of(corpus());
    let ranges = ranges.unwrap_or_else(|error| panic!("{error}"));
    let codes = quantize_embeddings_with_ranges(corpus(), precision, &ranges);
    let codes = codes.unwrap_or_else(|error| panic!("{error}"));
    let options = QuantizedSearchOptions {
        top_k: TOP_K,
        ranges: Some(ranges),
        ..Default::default()
    };
    bencher
        .counter(ItemsCount::new(queries.dims()[0]))
        .bench_local(|| semantic_search_quantized(queries.clone(), &codes, precision, &options));
}

#[divan::bench(sample_count = 3)]
fn paraphrases_of_10_000(bencher: Bencher<'_, '_>) {
    let embeddings = random(10_000);
    let options = ParaphraseMiningOptions::default();
    bencher.bench_local(|| paraphrase_mining_embeddings(embeddings.clone(), &options));
}

#[divan::bench(sample_count = 3)]
fn communities_of_10_000(bencher: Bencher<'_, '_>) {
    let embeddings = random(10_000);
    let options = CommunityDetectionOptions::default();
    bencher.bench_local(|| community_detection(embeddings.clone(), &options));
}
