use std::collections::HashMap;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend, s};
use indexmap::{IndexMap, IndexSet};
use rand::rngs::StdRng;
use rand::{SeedableRng, seq};

use super::Neighbours;
use super::mined::{HardNegatives, MinedRow, NegativeFormat};
use super::negative_options::{HardNegativeOptions, SamplingStrategy};
use super::rescoring::{PairScorer, rescore};
use crate::error::{Result, SearchError};
use crate::kernel::{Scored, TopK};
use crate::model::SimilarityFunction;

/// Anchors with their positives, and the corpus that negatives are taken from; each text
/// once.
#[derive(Debug, Clone)]
pub struct HardNegativeMiner {
    /// For each anchor its positives, by their place in the corpus.
    positives: IndexMap<String, IndexSet<u32>>,
    corpus: IndexSet<String>,
    /// The most pairs of one anchor.
    pub(super) max_positives: usize,
}

impl HardNegativeMiner {
    /// Gathers each anchor's positives.
    ///
    /// # Errors
    /// [`SearchError::Empty`] if there is no pair.
    pub fn new(pairs: Vec<(String, String)>, corpus: Vec<String>) -> Result<Self> {
        if pairs.is_empty() {
            let what = "the set of anchors and positives";
            return Err(SearchError::Empty { what }.into());
        }
        let mut corpus: IndexSet<String> = corpus.into_iter().collect();
        let mut positives: IndexMap<String, IndexSet<u32>> = IndexMap::new();
        let mut rows: HashMap<usize, usize> = HashMap::new();
        for (anchor, positive) in pairs {
            let (place, _) = corpus.insert_full(positive);
            let entry = positives.entry(anchor);
            *rows.entry(entry.index()).or_default() += 1;
            entry.or_default().insert(place as u32);
        }
        let max_positives = rows.into_values().max().unwrap_or(1);
        Ok(Self {
            positives,
            corpus,
            max_positives,
        })
    }

    /// The anchors, in the order that [`mine_embeddings`](Self::mine_embeddings) reads
    /// their embeddings.
    pub fn queries(&self) -> Vec<&str> {
        self.positives.keys().map(String::as_str).collect()
    }

    /// The documents, in the order that [`mine_embeddings`](Self::mine_embeddings) reads
    /// their embeddings.
    pub fn corpus(&self) -> Vec<&str> {
        self.corpus.iter().map(String::as_str).collect()
    }

    /// Mines among embeddings that are there already. The reference compares embeddings of
    /// unit length.
    ///
    /// # Shapes
    /// - queries: `[queries, dim]`
    /// - corpus: `[documents, dim]`
    ///
    /// # Errors
    /// [`SearchError::InvalidOption`] for options that do not fit together,
    /// [`SearchError::EmbeddingCount`] if there are more or fewer embeddings than texts,
    /// [`SearchError::NotANumber`] if a similarity is NaN.
    pub fn mine_embeddings<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        corpus: Tensor<B, 2>,
        similarity: SimilarityFunction,
        options: &HardNegativeOptions,
    ) -> Result<HardNegatives> {
        self.mine(queries, corpus, similarity, None, options)
    }

    /// The same with the margins and scores of a scorer, as
    /// [`mine_hard_negatives_rescored`](super::mine_hard_negatives_rescored) has them.
    ///
    /// # Shapes
    /// - queries: `[queries, dim]`
    /// - corpus: `[documents, dim]`
    ///
    /// # Errors
    /// As [`mine_embeddings`](Self::mine_embeddings), and those of the scorer.
    pub fn mine_embeddings_rescored<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        corpus: Tensor<B, 2>,
        similarity: SimilarityFunction,
        mut scorer: impl PairScorer,
        options: &HardNegativeOptions,
    ) -> Result<HardNegatives> {
        self.mine(queries, corpus, similarity, Some(&mut scorer), options)
    }

    /// Mines, with a scorer or without.
    pub(super) fn mine<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        corpus: Tensor<B, 2>,
        similarity: SimilarityFunction,
        mut scorer: Option<&mut dyn PairScorer>,
        options: &HardNegativeOptions,
    ) -> Result<HardNegatives> {
        let range_max = options.range_max(self.max_positives, scorer.is_some())?;
        for (what, expected, found) in [
            ("anchors", self.positives.len(), queries.dims()[0]),
            ("the corpus", self.corpus.len(), corpus.dims()[0]),
        ] {
            if expected != found {
                return Err(SearchError::EmbeddingCount {
                    what,
                    expected,
                    found,
                }
                .into());
            }
        }
        let mut positive_scores =
            self.positive_scores(queries.clone(), corpus.clone(), similarity)?;
        let mut rng = StdRng::seed_from_u64(options.seed);
        let format = options.format();
        let mut mined = HardNegatives {
            format,
            rows: Vec::new(),
        };
        let mut lacking = 0;
        for start in (0..self.positives.len()).step_by(options.query_chunk_size) {
            let end = self.positives.len().min(start + options.query_chunk_size);
            let chunk = queries.clone().slice(s![start..end, ..]);
            let best = TopK::new(range_max + self.max_positives);
            let mut neighbours = Neighbours::new(chunk, similarity, best);
            neighbours.offer_corpus(corpus.clone(), usize::MAX)?;
            let rankings = neighbours
                .into_rankings()
                .map_err(|nan| nan.in_rows(start))?;
            for (query, mut ranking) in (start..).zip(rankings) {
                let scores = &mut positive_scores[query];
                if let Some(scorer) = scorer.as_mut().filter(|_| options.is_bounded()) {
                    ranking = self.rescored(query, ranking, scores, &mut **scorer)?;
                }
                let candidates = self.candidates(query, ranking, scores, options);
                let window = candidates.into_iter().take(range_max);
                let window: Vec<Scored> = window.skip(options.range_min).collect();
                let negatives = sample(window, options, &mut rng);
                lacking += options.num_negatives - negatives.len();
                self.add_rows(query, scores, &negatives, options, &mut mined);
            }
        }
        if lacking > 0 {
            log::warn!(
                "{lacking} negatives too few: a greater `range_max`, or looser margins and scores, \
                 would find more"
            );
        }
        Ok(mined)
    }

    /// Each anchor's similarity to its positives.
    fn positive_scores<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        corpus: Tensor<B, 2>,
        similarity: SimilarityFunction,
    ) -> Result<Vec<Vec<f32>>> {
        let device = queries.device();
        let select = |embeddings: Tensor<B, 2>, places: Vec<i32>| {
            let count = places.len();
            let places = TensorData::new(places, [count]);
            embeddings.select(0, Tensor::<B, 1, Int>::from_data(places, &device))
        };
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (query, positives) in self.positives.values().enumerate() {
            left.extend(positives.iter().map(|_| query as i32));
            right.extend(positives.iter().map(|&positive| positive as i32));
        }
        let scores = similarity.pairwise(select(queries, left), select(corpus, right))?;
        let scores = scores.into_data();
        let mut scores = scores.iter::<f32>();
        let of_query = |positives: &IndexSet<u32>| scores.by_ref().take(positives.len()).collect();
        Ok(self.positives.values().map(of_query).collect())
    }

    /// The candidates of a query by the scorer's order, with its scores; the positives get
    /// its scores too.
    fn rescored(
        &self,
        query: usize,
        ranking: Vec<Scored>,
        positive_scores: &mut [f32],
        scorer: &mut dyn PairScorer,
    ) -> Result<Vec<Scored>> {
        let Some((anchor, positives)) = self.positives.get_index(query) else {
            return Ok(ranking);
        };
        let items: Vec<u32> = ranking.iter().map(|candidate| candidate.item).collect();
        let mut rescored = rescore(query, anchor, &items, &self.corpus, scorer)?;
        // Of equal scores, the candidate that was more similar stays first.
        rescored.sort_by(|a, b| b.score.total_cmp(&a.score));
        let items: Vec<u32> = positives.iter().copied().collect();
        let of_positives = rescore(query, anchor, &items, &self.corpus, scorer)?;
        for (score, rescored) in positive_scores.iter_mut().zip(of_positives) {
            *score = rescored.score;
        }
        Ok(rescored)
    }

    /// The documents that may be negatives of a query, the most similar first.
    fn candidates(
        &self,
        query: usize,
        mut ranking: Vec<Scored>,
        positive_scores: &[f32],
        options: &HardNegativeOptions,
    ) -> Vec<Scored> {
        let positives = &self.positives[query];
        // Of several positives the least similar one decides.
        let positive = positive_scores
            .iter()
            .copied()
            .fold(f32::INFINITY, f32::min);
        ranking.retain(|&Scored { score, item }| {
            (options.include_positives || !positives.contains(&item))
                && options
                    .absolute_margin
                    .is_none_or(|margin| score + margin <= positive)
                && options
                    .relative_margin
                    .is_none_or(|margin| score <= positive - positive.abs() * margin)
                && options.max_score.is_none_or(|most| score <= most)
                && options.min_score.is_none_or(|least| score >= least)
        });
        ranking
    }

    /// Lays out what was found for a query.
    fn add_rows(
        &self,
        query: usize,
        positive_scores: &[f32],
        negatives: &[Scored],
        options: &HardNegativeOptions,
        mined: &mut HardNegatives,
    ) {
        let Some((anchor, positives)) = self.positives.get_index(query) else {
            return;
        };
        let positives = positives.iter().zip(positive_scores);
        let positives = positives.map(|(&item, &score)| Scored { score, item });
        let mut add = |documents: &[Scored], positives: usize| {
            mined.rows.push(MinedRow {
                anchor: anchor.clone(),
                documents: documents
                    .iter()
                    .map(|document| self.corpus[document.item as usize].clone())
                    .collect(),
                labels: (0..documents.len())
                    .map(|place| u8::from(place < positives))
                    .collect(),
                scores: documents.iter().map(|document| document.score).collect(),
            });
        };
        match mined.format {
            NegativeFormat::Triplet => {
                for positive in positives {
                    for &negative in negatives {
                        add(&[positive, negative], 1);
                    }
                }
            }
            NegativeFormat::LabeledPair => {
                for positive in positives {
                    add(&[positive], 1);
                }
                for &negative in negatives {
                    add(&[negative], 0);
                }
            }
            NegativeFormat::NTuple if negatives.len() < options.num_negatives => {}
            NegativeFormat::LabeledList if negatives.is_empty() => {}
            NegativeFormat::NTuple | NegativeFormat::LabeledList => {
                for positive in positives {
                    add(&[&[positive][..], negatives].concat(), 1);
                }
            }
        }
    }
}

/// Takes some of the candidates, in their order.
fn sample(
    mut candidates: Vec<Scored>,
    options: &HardNegativeOptions,
    rng: &mut StdRng,
) -> Vec<Scored> {
    let count = options.num_negatives;
    match options.sampling_strategy {
        SamplingStrategy::Random if candidates.len() > count => {
            let mut places = seq::index::sample(rng, candidates.len(), count).into_vec();
            places.sort_unstable();
            places.into_iter().map(|place| candidates[place]).collect()
        }
        _ => {
            candidates.truncate(count);
            candidates
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    /// An anchor "q" with the positives "p" and "r", and documents whose products with it
    /// are their values.
    fn miner() -> HardNegativeMiner {
        let pair = |positive: &str| ("q".to_owned(), positive.to_owned());
        let corpus = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        HardNegativeMiner::new(vec![pair("p"), pair("r"), pair("p")], corpus).unwrap()
    }

    const SCORES: [f32; 7] = [0.9, 0.7, 0.5, -0.2, 0.3, 0.8, 0.6];

    fn mine(change: impl Fn(&mut HardNegativeOptions)) -> Result<HardNegatives> {
        let mut options = HardNegativeOptions::default();
        change(&mut options);
        let column = |values: &[f32]| {
            Tensor::<TestBackend, 1>::from_floats(values, &device()).reshape([values.len(), 1])
        };
        let (queries, corpus) = (column(&[1.0]), column(&SCORES));
        miner().mine_embeddings(queries, corpus, SimilarityFunction::Dot, &options)
    }

    /// The documents of each row, strung together.
    fn documents(change: impl Fn(&mut HardNegativeOptions)) -> Vec<String> {
        let rows = mine(change).unwrap().rows;
        rows.into_iter().map(|row| row.documents.concat()).collect()
    }

    fn tuple(change: impl Fn(&mut HardNegativeOptions)) -> Vec<String> {
        documents(|options| {
            options.output_format = NegativeFormat::LabeledList;
            change(options);
        })
    }

    #[test]
    fn texts_count_once_and_positives_join_the_corpus() {
        let miner = miner();
        assert_eq!(miner.queries(), ["q"]);
        assert_eq!(miner.corpus(), ["a", "b", "c", "d", "e", "p", "r"]);
        assert_eq!(miner.max_positives, 3);
        assert!(HardNegativeMiner::new(vec![], vec![]).is_err());
    }

    #[test]
    fn each_format_lays_the_same_negatives_out() {
        use NegativeFormat::{LabeledList, LabeledPair, NTuple, Triplet};
        let with = |format, count| {
            documents(move |options| {
                options.output_format = format;
                options.num_negatives = count;
            })
        };
        assert_eq!(with(Triplet, 2), ["pa", "pb", "ra", "rb"]);
        assert_eq!(with(NTuple, 3), ["pabc", "rabc"]);
        assert_eq!(with(NTuple, 6), [] as [&str; 0]);
        assert_eq!(with(LabeledList, 6), ["pabced", "rabced"]);
        assert_eq!(with(LabeledPair, 2), ["p", "r", "a", "b"]);
        let rows = mine(|options| options.output_format = LabeledPair).unwrap();
        let labels: Vec<u8> = rows
            .rows
            .iter()
            .flat_map(|row| row.labels.clone())
            .collect();
        assert_eq!(labels, [1, 1, 0, 0, 0]);
        assert_eq!(rows.rows[1].scores, [0.6]);
    }

    #[test]
    fn ranks_scores_and_margins_bound_the_negatives() {
        // Without the positives p and r: a .9, b .7, c .5, e .3, d -.2.
        assert_eq!(tuple(|o| o.range_min = 1), ["pbce", "rbce"]);
        assert_eq!(tuple(|o| o.range_max = Some(3)), ["pabc", "rabc"]);
        assert_eq!(tuple(|o| o.max_score = Some(0.7)), ["pbce", "rbce"]);
        assert_eq!(tuple(|o| o.min_score = Some(0.7)), ["pab", "rab"]);
        // The least similar positive, r, is at .6.
        assert_eq!(tuple(|o| o.absolute_margin = Some(0.0)), ["pced", "rced"]);
        assert_eq!(tuple(|o| o.absolute_margin = Some(0.2)), ["ped", "red"]);
        assert_eq!(tuple(|o| o.relative_margin = Some(0.3)), ["ped", "red"]);
        let with_positives = documents(|options| {
            options.include_positives = true;
            options.num_negatives = 4;
        });
        assert_eq!(with_positives, ["papbr", "rapbr"]);
    }

    #[test]
    fn random_negatives_are_drawn_by_the_seed_and_stay_in_order() {
        let draw = |seed| {
            tuple(move |options| {
                options.sampling_strategy = SamplingStrategy::Random;
                options.range_max = Some(9);
                options.num_negatives = 2;
                options.seed = seed;
            })
        };
        let drawn: Vec<_> = (0..40).map(draw).collect();
        assert_eq!(drawn[7], draw(7));
        assert!(drawn.iter().any(|rows| *rows != drawn[0]));
        for rows in drawn {
            let places: Vec<_> = rows[0].chars().skip(1).map(|c| "abced".find(c)).collect();
            assert!(places[0].is_some() && places[0] < places[1], "{rows:?}");
        }
    }

    #[test]
    fn options_that_do_not_fit_together_are_named_errors() {
        let message = |change: fn(&mut HardNegativeOptions)| match mine(change) {
            Err(Error::Search(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(message(|o| o.num_negatives = 0).contains("`num_negatives` is 0"));
        assert!(
            message(|o| (o.range_min, o.range_max) = (5, Some(5)))
                .contains("`range_min` is 5, expected less than `range_max`, which is 5")
        );
        assert!(
            message(|o| (o.range_min, o.range_max) = (3, Some(5)))
                .contains("`num_negatives` is 3, expected at most the 2 ranks")
        );
    }
}
