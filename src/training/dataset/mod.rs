mod columns;
mod iterable;
mod options;
mod reading;

use rand::rngs::StdRng;
use rand::{SeedableRng, seq::SliceRandom};

use super::seed;
use crate::error::{DataError, Result, TrainingError};

pub use columns::Sample;
pub use iterable::{IterableDataset, Samples};
pub use options::{BadRows, DatasetOptions, HubDatasetOptions};

use columns::LABEL_NAMES;

/// Samples to train on: columns of texts, and a label where the data has one.
///
/// A column's place counts, its name does not: the first column is the anchor, the
/// second the positive, and so on, as the loss reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    names: Vec<String>,
    columns: Vec<Vec<String>>,
    labels: Option<Vec<Vec<f32>>>,
    skipped_rows: usize,
}

impl Dataset {
    /// A data set of text columns, each with its name.
    ///
    /// # Errors
    /// [`TrainingError::UnequalColumns`] if a column is shorter or longer than the first.
    pub fn from_columns<N: Into<String>>(
        columns: impl IntoIterator<Item = (N, Vec<String>)>,
    ) -> Result<Self> {
        let (names, columns): (Vec<String>, Vec<Vec<String>>) = columns
            .into_iter()
            .map(|(name, texts)| (name.into(), texts))
            .unzip();
        let expected = columns.first().map_or(0, Vec::len);
        for (column, texts) in names.iter().zip(&columns) {
            if texts.len() != expected {
                return Err(TrainingError::UnequalColumns {
                    column: column.clone(),
                    expected,
                    found: texts.len(),
                }
                .into());
            }
        }
        Ok(Self {
            names,
            columns,
            labels: None,
            skipped_rows: 0,
        })
    }

    /// A data set of (anchor, positive) pairs.
    pub fn from_pairs<A: Into<String>, P: Into<String>>(
        pairs: impl IntoIterator<Item = (A, P)>,
    ) -> Self {
        let (anchors, positives) = pairs
            .into_iter()
            .map(|(anchor, positive)| (anchor.into(), positive.into()))
            .unzip();
        Self {
            names: vec!["anchor".to_owned(), "positive".to_owned()],
            columns: vec![anchors, positives],
            labels: None,
            skipped_rows: 0,
        }
    }

    /// A data set of samples that have a text for each of the columns, all with a label or
    /// none.
    pub(super) fn from_samples(
        names: &[String],
        samples: impl IntoIterator<Item = Sample>,
    ) -> Self {
        let mut dataset = Self {
            names: names.to_vec(),
            columns: vec![Vec::new(); names.len()],
            labels: None,
            skipped_rows: 0,
        };
        for sample in samples {
            for (column, text) in dataset.columns.iter_mut().zip(sample.texts) {
                column.push(text);
            }
            if let Some(label) = sample.label {
                dataset.labels.get_or_insert_default().push(label);
            }
        }
        dataset
    }

    /// Gives each sample its label, a row of numbers.
    ///
    /// # Errors
    /// [`TrainingError::UnequalColumns`] if there is not one row a sample.
    pub fn with_labels(mut self, labels: Vec<Vec<f32>>) -> Result<Self> {
        if labels.len() != self.len() {
            return Err(TrainingError::UnequalColumns {
                column: LABEL_NAMES[0].to_owned(),
                expected: self.len(),
                found: labels.len(),
            }
            .into());
        }
        self.labels = Some(labels);
        Ok(self)
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of the files that could not be read and were left out, as
    /// [`BadRows::Skip`] asks.
    pub fn skipped_rows(&self) -> usize {
        self.skipped_rows
    }

    /// The text columns' names, in order.
    pub fn column_names(&self) -> &[String] {
        &self.names
    }

    /// The text columns, in order.
    pub fn columns(&self) -> &[Vec<String>] {
        &self.columns
    }

    /// The label of each sample.
    pub fn labels(&self) -> Option<&[Vec<f32>]> {
        self.labels.as_deref()
    }

    /// The numbers of one label.
    pub fn label_width(&self) -> Option<usize> {
        self.labels.as_ref()?.first().map(Vec::len)
    }

    /// The columns of these names alone, in this order.
    ///
    /// # Errors
    /// [`DataError::UnknownColumn`] if there is none of a name.
    pub fn select_columns(mut self, names: &[&str]) -> Result<Self> {
        let places: Result<Vec<usize>> = names.iter().map(|name| self.place_of(name)).collect();
        let places = places?;
        self.columns = places.iter().map(|&at| self.columns[at].clone()).collect();
        self.names = places.iter().map(|&at| self.names[at].clone()).collect();
        Ok(self)
    }

    /// The same with another name for a column.
    ///
    /// # Errors
    /// [`DataError::UnknownColumn`] if there is none of that name.
    pub fn rename_column(mut self, from: &str, to: impl Into<String>) -> Result<Self> {
        let place = self.place_of(from)?;
        self.names[place] = to.into();
        Ok(self)
    }

    fn place_of(&self, name: &str) -> Result<usize> {
        let place = self.names.iter().position(|known| known == name);
        Ok(place.ok_or_else(|| DataError::UnknownColumn {
            source_name: "data set".to_owned(),
            found: name.to_owned(),
            known: self.names.clone(),
        })?)
    }

    /// The same samples in an order that follows from the seed.
    #[must_use]
    pub fn shuffle(self, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed::derive(seed, &[SHUFFLE])));
        let reorder = |texts: Vec<String>| arrange(texts, &order);
        Self {
            columns: self.columns.into_iter().map(reorder).collect(),
            labels: self.labels.map(|labels| arrange(labels, &order)),
            ..self
        }
    }

    /// Two data sets: the first `samples` of this one, and the rest.
    pub fn split_at(mut self, samples: usize) -> (Self, Self) {
        let at = samples.min(self.len());
        let columns = self
            .columns
            .iter_mut()
            .map(|texts| texts.split_off(at))
            .collect();
        let labels = self.labels.as_mut().map(|labels| labels.split_off(at));
        let rest = Self {
            names: self.names.clone(),
            columns,
            labels,
            skipped_rows: 0,
        };
        (self, rest)
    }
}

/// Keeps the seeds of a data set's order apart from those of other things.
const SHUFFLE: u64 = 12;

/// What is at the places of `order`, each place being there once.
fn arrange<T: Default>(mut values: Vec<T>, order: &[usize]) -> Vec<T> {
    let take = |&place: &usize| std::mem::take(&mut values[place]);
    order.iter().map(take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn columns_are_chosen_ordered_and_renamed() {
        let dataset = Dataset::from_pairs([("a", "b"), ("c", "d")]);
        let turned = dataset
            .clone()
            .select_columns(&["positive", "anchor"])
            .unwrap()
            .rename_column("anchor", "query")
            .unwrap();
        assert_eq!(turned.column_names(), ["positive", "query"]);
        assert_eq!(turned.columns(), [["b", "d"], ["a", "c"]]);
        for result in [
            dataset.clone().select_columns(&["query"]),
            dataset.rename_column("query", "x"),
        ] {
            assert!(matches!(
                result,
                Err(Error::Data(DataError::UnknownColumn { found, known, .. }))
                    if found == "query" && known == ["anchor", "positive"]
            ));
        }
    }

    #[test]
    fn columns_must_be_of_one_length() {
        let texts = |n: usize| vec!["x".to_owned(); n];
        assert!(matches!(
            Dataset::from_columns([("a", texts(2)), ("b", texts(3))]),
            Err(Error::Training(TrainingError::UnequalColumns {
                expected: 2,
                found: 3,
                ..
            }))
        ));
        assert!(
            Dataset::from_pairs([("a", "b")])
                .with_labels(Vec::new())
                .is_err()
        );
    }

    #[test]
    fn a_shuffled_set_keeps_its_samples_together() {
        let number = |i: usize| (i.to_string(), format!("p{i}"));
        let dataset = Dataset::from_pairs((0..50).map(number));
        let dataset = dataset
            .with_labels((0..50).map(|i| vec![i as f32]).collect())
            .unwrap();
        let shuffled = dataset.clone().shuffle(3);
        assert_eq!(shuffled, dataset.clone().shuffle(3));
        assert_ne!(shuffled, dataset.clone().shuffle(4));
        let mut seen: Vec<usize> = (0..50)
            .map(|place| {
                let number: usize = shuffled.columns()[0][place].parse().unwrap();
                assert_eq!(shuffled.columns()[1][place], format!("p{number}"));
                assert_eq!(shuffled.labels().unwrap()[place], [number as f32]);
                number
            })
            .collect();
        assert_ne!(seen, (0..50).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn splits_keep_every_sample() {
        let dataset = Dataset::from_pairs((0..5).map(|i| (format!("a{i}"), format!("p{i}"))));
        let (head, tail) = dataset.split_at(3);
        assert_eq!(head.columns()[0], ["a0", "a1", "a2"]);
        assert_eq!(tail.columns()[1], ["p3", "p4"]);
        let (_, none) = head.split_at(9);
        assert!(none.is_empty());
    }
}
