use burn::tensor::{Tensor, backend::Backend, s};

use crate::error::{ModelError, Result};
use crate::kernel::{Scored, TopK, offer_compared, offer_cosines, offer_products};
use crate::model::SimilarityFunction;

/// The best documents of each query, over documents that come some at a time.
pub(crate) struct Neighbours<B: Backend> {
    queries: Tensor<B, 2>,
    similarity: SimilarityFunction,
    queries_at_a_time: usize,
    best: Vec<TopK>,
}

/// A query and a document whose similarity is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotANumber {
    /// The query's row.
    pub(crate) query: usize,
    /// The document, by its number.
    pub(crate) document: u32,
}

impl<B: Backend> Neighbours<B> {
    /// None yet; `best` says which documents of a query are kept.
    ///
    /// # Shapes
    /// - queries: `[queries, dim]`
    pub(crate) fn new(queries: Tensor<B, 2>, similarity: SimilarityFunction, best: TopK) -> Self {
        let best = vec![best; queries.dims()[0]];
        Self {
            queries,
            similarity,
            queries_at_a_time: usize::MAX,
            best,
        }
    }

    /// The same with that many queries compared at a time, at most, where a backend keeps
    /// their scores.
    pub(crate) fn with_queries_at_a_time(mut self, queries: usize) -> Self {
        self.queries_at_a_time = queries;
        self
    }

    /// Offers documents to all queries.
    ///
    /// # Shapes
    /// - documents: `[documents, dim]`
    /// - items: the documents' numbers
    ///
    /// # Errors
    /// [`ModelError::IncompatibleEmbeddings`] where the dimensions differ;
    /// [`DeviceError`](crate::error::DeviceError) if the device's memory does not suffice.
    pub(crate) fn offer(&mut self, documents: Tensor<B, 2>, items: &[u32]) -> Result<()> {
        let (left, right) = (self.queries.dims(), documents.dims());
        if left[1] != right[1] {
            return Err(ModelError::IncompatibleEmbeddings {
                left,
                right,
                how: "with each other",
            }
            .into());
        }
        if left[0] == 0 || right[0] == 0 {
            return Ok(());
        }
        let (queries, at_a_time) = (self.queries.clone(), self.queries_at_a_time);
        let best = &mut self.best;
        match self.similarity {
            SimilarityFunction::Cosine => {
                offer_cosines(queries, documents, items, at_a_time, best)?
            }
            SimilarityFunction::Dot => offer_products(queries, documents, items, at_a_time, best)?,
            other => offer_compared(queries, items, at_a_time, best, |block| {
                other.similarity(block, documents.clone())
            })?,
        }
        Ok(())
    }

    /// Offers a corpus some documents at a time, each under its row.
    ///
    /// # Shapes
    /// - corpus: `[documents, dim]`
    ///
    /// # Errors
    /// As [`offer`](Self::offer).
    pub(crate) fn offer_corpus(&mut self, corpus: Tensor<B, 2>, at_a_time: usize) -> Result<()> {
        let [documents, _] = corpus.dims();
        let items: Vec<u32> = (0..documents as u32).collect();
        if documents <= at_a_time {
            return self.offer(corpus, &items);
        }
        for start in (0..documents).step_by(at_a_time) {
            let end = documents.min(start + at_a_time);
            self.offer(corpus.clone().slice(s![start..end, ..]), &items[start..end])?;
        }
        Ok(())
    }

    /// Each query's documents, the best first.
    ///
    /// # Errors
    /// The first query and document whose similarity is not a number.
    pub(crate) fn into_rankings(self) -> Result<Vec<Vec<Scored>>, NotANumber> {
        let mut rankings = Vec::with_capacity(self.best.len());
        for (query, best) in self.best.into_iter().enumerate() {
            if let Some(document) = best.not_a_number() {
                return Err(NotANumber { query, document });
            }
            rankings.push(best.into_sorted());
        }
        Ok(rankings)
    }
}

impl NotANumber {
    /// The same as an error about rows, the queries' beginning at `first_query`.
    pub(super) fn in_rows(self, first_query: usize) -> crate::Error {
        crate::error::SearchError::NotANumber {
            query: first_query + self.query,
            document: self.document as usize,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    #[test]
    fn every_similarity_ranks_by_itself() {
        let tensor = |rows: &[[f32; 2]]| {
            let values: Vec<f32> = rows.concat();
            let values = Tensor::<TestBackend, 1>::from_floats(&values[..], &device());
            values.reshape([rows.len(), 2])
        };
        // Cosines 1, .8, .6; products 1, 4, 3; distances 0, √18, √20 and 0, 6, 6.
        let corpus = tensor(&[[1.0, 0.0], [4.0, 3.0], [3.0, 4.0]]);
        for (similarity, expected) in [
            (SimilarityFunction::Cosine, [0, 1, 2]),
            (SimilarityFunction::Dot, [1, 2, 0]),
            (SimilarityFunction::Euclidean, [0, 1, 2]),
            (SimilarityFunction::Manhattan, [0, 1, 2]),
        ] {
            for at_a_time in [1, 2, 9] {
                let queries = tensor(&[[1.0, 0.0], [1.0, 0.0]]);
                let mut neighbours = Neighbours::new(queries, similarity, TopK::new(3))
                    .with_queries_at_a_time(at_a_time);
                neighbours.offer_corpus(corpus.clone(), at_a_time).unwrap();
                for ranking in neighbours.into_rankings().unwrap() {
                    let found: Vec<u32> = ranking.iter().map(|scored| scored.item).collect();
                    assert_eq!(found, expected, "{}", similarity.name());
                }
            }
        }
    }
}
