use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::Dataset;
use super::columns::{Columns, Sample};
use super::options::{DatasetOptions, HubDatasetOptions};
use super::reading::{FileSamples, download};
use crate::error::{Result, TrainingError};
use crate::training::seed;

/// Samples that are read while they are trained on, so that they need not fit into memory:
/// what `IterableDataset` is in Python.
///
/// The same data, seed and epoch give the same samples in the same order. What was cut off
/// therefore goes on exactly where it was: `dataset.samples(epoch)?.skip(seen)`.
#[derive(Clone)]
pub struct IterableDataset {
    source: Source,
    names: Vec<String>,
    /// The first sample, unshuffled.
    first: Sample,
    shuffle: Option<Shuffle>,
}

type Generator = dyn Fn() -> Box<dyn Iterator<Item = Result<Sample>> + Send> + Send + Sync;

#[derive(Clone)]
enum Source {
    Files {
        paths: Vec<PathBuf>,
        options: DatasetOptions,
        range: Range<usize>,
        columns: Option<Columns>,
    },
    Generator(Arc<Generator>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shuffle {
    buffer_size: usize,
    seed: u64,
}

/// Keeps the seeds of the order of streamed samples apart from those of other things.
const STREAM_ORDER: u64 = 11;

impl IterableDataset {
    /// Samples of a data file, whose extension says its format.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_files(&[path], &DatasetOptions::default())
    }

    /// Samples of data files, as [`Dataset::from_files`](super::Dataset::from_files) reads
    /// them. The first one is read, to know the columns.
    ///
    /// # Errors
    /// Those of reading the first sample; [`TrainingError::EmptyDataset`] if there is none.
    pub fn from_files<P: AsRef<Path>>(paths: &[P], options: &DatasetOptions) -> Result<Self> {
        let paths = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        Self::from_rows(paths, options.clone(), 0..usize::MAX)
    }

    /// Samples of a data set on the Hugging Face Hub, whose files are downloaded first.
    ///
    /// # Errors
    /// Those of [`HubDataset`](crate::data::HubDataset) and of
    /// [`from_files`](Self::from_files).
    pub fn from_hub(id: &str, options: &HubDatasetOptions) -> Result<Self> {
        let (paths, files, range) = download(id, options)?;
        Self::from_rows(paths, files, range)
    }

    fn from_rows(
        paths: Vec<PathBuf>,
        options: DatasetOptions,
        range: Range<usize>,
    ) -> Result<Self> {
        let mut samples = FileSamples::new(paths.clone(), options.clone(), range.clone());
        let first = samples.next().transpose()?;
        let first = first.ok_or_else(|| TrainingError::EmptyDataset {
            source_name: samples.source_name().to_owned(),
        })?;
        Ok(Self {
            names: samples.names().to_vec(),
            first,
            source: Source::Files {
                paths,
                options,
                range,
                columns: samples.columns().cloned(),
            },
            shuffle: None,
        })
    }

    /// Samples of an iterator, which is begun anew for each epoch; each sample has a text
    /// for each of the columns. The first one is read, to know the label.
    ///
    /// # Errors
    /// The first item's; [`TrainingError::EmptyDataset`] if there is none.
    pub fn from_generator<N, I>(
        names: impl IntoIterator<Item = N>,
        generator: impl Fn() -> I + Send + Sync + 'static,
    ) -> Result<Self>
    where
        N: Into<String>,
        I: Iterator<Item = Result<Sample>> + Send + 'static,
    {
        let first = generator().next().transpose()?;
        let first = first.ok_or_else(|| TrainingError::EmptyDataset {
            source_name: "an iterator".to_owned(),
        })?;
        Ok(Self {
            names: names.into_iter().map(Into::into).collect(),
            first,
            source: Source::Generator(Arc::new(move || Box::new(generator()))),
            shuffle: None,
        })
    }

    /// Puts the samples of each epoch into an order of its own: the files in an order that
    /// is drawn, and of `buffer_size` samples that are held always any one next.
    #[must_use]
    pub fn shuffle(mut self, buffer_size: usize, seed: u64) -> Self {
        self.shuffle = Some(Shuffle { buffer_size, seed });
        self
    }

    /// The text columns' names, in order.
    pub fn column_names(&self) -> &[String] {
        &self.names
    }

    /// The numbers of one label.
    pub fn label_width(&self) -> Option<usize> {
        self.first.label.as_ref().map(Vec::len)
    }

    /// What the samples are like: the first one of the data, alone.
    pub(in crate::training) fn head(&self) -> Dataset {
        Dataset::from_samples(&self.names, [self.first.clone()])
    }

    /// The samples that are held to draw the next one from, and the seed; none in the data's
    /// own order.
    pub(in crate::training) fn shuffling(&self) -> Option<(usize, u64)> {
        self.shuffle.map(|order| (order.buffer_size, order.seed))
    }

    /// The samples of an epoch, from its first one.
    pub fn samples(&self, epoch: usize) -> Samples {
        let mut rng = StdRng::seed_from_u64(seed::derive(
            self.shuffle.map_or(0, |shuffle| shuffle.seed),
            &[STREAM_ORDER, epoch as u64],
        ));
        let source = match &self.source {
            Source::Generator(generator) => Inner::Generated(generator()),
            Source::Files {
                paths,
                options,
                range,
                columns,
            } => {
                let mut paths = paths.clone();
                // A part of the rows is of the files in their own order.
                if self.shuffle.is_some() && *range == (0..usize::MAX) {
                    paths.shuffle(&mut rng);
                }
                let samples = FileSamples::new(paths, options.clone(), range.clone());
                Inner::Read(Box::new(samples.with_columns(columns.clone())))
            }
        };
        Samples {
            source,
            names: self.names.clone(),
            label_width: self.label_width(),
            held: Vec::new(),
            buffer_size: self.shuffle.map_or(1, |shuffle| shuffle.buffer_size.max(1)),
            rng,
            ended: false,
        }
    }
}

impl fmt::Debug for IterableDataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: &[PathBuf] = match &self.source {
            Source::Files { paths, .. } => paths,
            Source::Generator(_) => &[],
        };
        f.debug_struct("IterableDataset")
            .field("paths", &paths)
            .field("names", &self.names)
            .field("label_width", &self.label_width())
            .field("shuffle", &self.shuffle)
            .finish_non_exhaustive()
    }
}

/// The samples of an epoch. Behind an error there are none.
pub struct Samples {
    source: Inner,
    names: Vec<String>,
    label_width: Option<usize>,
    /// Those that were read and wait.
    held: Vec<Sample>,
    buffer_size: usize,
    rng: StdRng,
    ended: bool,
}

enum Inner {
    Read(Box<FileSamples>),
    Generated(Box<dyn Iterator<Item = Result<Sample>> + Send>),
}

impl Samples {
    /// The next `samples` of them, fewer at the end, as a data set that is in memory; `None`
    /// behind the last one.
    ///
    /// # Errors
    /// The first sample's that cannot be read.
    pub fn next_dataset(&mut self, samples: usize) -> Result<Option<Dataset>> {
        let found: Vec<Sample> = self.by_ref().take(samples).collect::<Result<_>>()?;
        if found.is_empty() {
            return Ok(None);
        }
        Ok(Some(Dataset::from_samples(&self.names, found)))
    }

    /// The rows that could not be read and were left out so far, as
    /// [`BadRows::Skip`](super::BadRows::Skip) asks.
    pub fn skipped_rows(&self) -> usize {
        match &self.source {
            Inner::Read(samples) => samples.skipped(),
            Inner::Generated(_) => 0,
        }
    }

    fn fill(&mut self) -> Result<()> {
        while !self.ended && self.held.len() < self.buffer_size {
            let sample = match &mut self.source {
                Inner::Read(samples) => samples.next(),
                Inner::Generated(samples) => samples.next(),
            };
            match sample.transpose()? {
                None => self.ended = true,
                Some(sample) if sample.texts.len() != self.names.len() => {
                    return Err(TrainingError::UnequalColumns {
                        column: "a sample of the iterator".to_owned(),
                        expected: self.names.len(),
                        found: sample.texts.len(),
                    }
                    .into());
                }
                Some(sample) if sample.label.as_ref().map(Vec::len) != self.label_width => {
                    return Err(TrainingError::UnequalColumns {
                        column: "the label of a sample".to_owned(),
                        expected: self.label_width.unwrap_or(0),
                        found: sample.label.map_or(0, |label| label.len()),
                    }
                    .into());
                }
                Some(sample) => self.held.push(sample),
            }
        }
        Ok(())
    }
}

impl Iterator for Samples {
    type Item = Result<Sample>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.ended = true;
            self.held.clear();
            return Some(Err(error));
        }
        if self.held.is_empty() {
            return None;
        }
        let place = self.rng.random_range(0..self.held.len());
        Some(Ok(self.held.swap_remove(place)))
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Samples")
            .field("held", &self.held.len())
            .field("buffer_size", &self.buffer_size)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, RepoError};

    fn numbers(count: usize) -> IterableDataset {
        IterableDataset::from_generator(["text"], move || (0..count).map(|i| Ok(sample(i))))
            .unwrap()
    }

    fn sample(number: usize) -> Sample {
        Sample {
            texts: vec![number.to_string()],
            label: None,
        }
    }

    fn order(dataset: &IterableDataset, epoch: usize) -> Vec<usize> {
        dataset
            .samples(epoch)
            .map(|sample| sample.unwrap().texts[0].parse().unwrap())
            .collect()
    }

    #[test]
    fn the_order_follows_from_seed_and_epoch() {
        let plain = numbers(50);
        assert_eq!(order(&plain, 3), (0..50).collect::<Vec<_>>());
        let shuffled = plain.clone().shuffle(10, 42);
        let first = order(&shuffled, 0);
        assert_eq!(first, order(&shuffled, 0));
        assert_ne!(first, order(&shuffled, 1));
        assert_ne!(first, order(&plain.shuffle(10, 43), 0));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        // A buffer of ten lets no sample come more than nine places early.
        assert!(
            first
                .iter()
                .enumerate()
                .all(|(place, &number)| number < place + 10)
        );
        assert!(
            first
                .iter()
                .enumerate()
                .any(|(place, &number)| number > place + 4)
        );
    }

    #[test]
    fn what_was_cut_off_goes_on_exactly() {
        let dataset = numbers(100).shuffle(16, 7);
        let whole = order(&dataset, 2);
        let rest: Vec<usize> = dataset
            .samples(2)
            .skip(37)
            .map(|sample| sample.unwrap().texts[0].parse().unwrap())
            .collect();
        assert_eq!(rest, whole[37..]);
    }

    #[test]
    fn parts_are_data_sets_in_memory() {
        let dataset = numbers(10).shuffle(4, 1);
        let mut samples = dataset.samples(0);
        let mut parts = Vec::new();
        while let Some(part) = samples.next_dataset(4).unwrap() {
            assert_eq!(part.column_names(), ["text"]);
            parts.push(part.columns()[0].clone());
        }
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let whole: Vec<String> = order(&dataset, 0).iter().map(usize::to_string).collect();
        assert_eq!(parts.concat(), whole);
    }

    #[test]
    fn files_are_read_in_an_order_of_their_own_each_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..6)
            .map(|file| {
                let path = folder.path().join(format!("{file}.jsonl"));
                let line = |i: usize| format!("{{\"a\": \"{}\", \"score\": {i}}}\n", file * 10 + i);
                std::fs::write(&path, (0..10).map(line).collect::<String>()).unwrap();
                path
            })
            .collect();
        let dataset = IterableDataset::from_files(&paths, &DatasetOptions::default()).unwrap();
        assert_eq!(dataset.column_names(), ["a"]);
        assert_eq!(dataset.label_width(), Some(1));
        assert_eq!(order(&dataset, 0), (0..60).collect::<Vec<_>>());
        let shuffled = dataset.shuffle(1, 5);
        let firsts: Vec<usize> = (0..8).map(|epoch| order(&shuffled, epoch)[0]).collect();
        assert!(firsts.iter().all(|first| first.is_multiple_of(10)));
        assert!(firsts.iter().any(|first| *first != firsts[0]));
        let mut all = order(&shuffled, 1);
        all.sort_unstable();
        assert_eq!(all, (0..60).collect::<Vec<_>>());
    }

    #[test]
    fn a_bad_row_ends_the_samples_or_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "{\"a\": \"1\"}\n{\n{\"a\": \"3\"}\n").unwrap();
        let mut samples = IterableDataset::from_file(&path).unwrap().samples(0);
        assert!(samples.next().unwrap().is_ok());
        assert!(matches!(
            samples.next(),
            Some(Err(Error::Repo(RepoError::InvalidLine { line: 2, .. })))
        ));
        assert!(samples.next().is_none());
        let options = DatasetOptions {
            bad_rows: super::super::BadRows::Skip,
            ..DatasetOptions::default()
        };
        let skipping = IterableDataset::from_files(&[&path], &options).unwrap();
        let mut samples = skipping.samples(0);
        assert_eq!(samples.by_ref().map(Result::unwrap).count(), 2);
        assert_eq!(samples.skipped_rows(), 1);
    }

    #[test]
    fn a_generator_without_samples_or_texts_is_refused() {
        let none = IterableDataset::from_generator(["a"], std::iter::empty);
        assert!(matches!(
            none,
            Err(Error::Training(TrainingError::EmptyDataset { .. }))
        ));
        let labelled = |number| Sample {
            label: (number == 0).then(|| vec![1.0]),
            ..sample(number)
        };
        let some = IterableDataset::from_generator(["a"], move || (0..2).map(labelled).map(Ok));
        assert!(some.unwrap().samples(0).nth(1).unwrap().is_err());
        let two = IterableDataset::from_generator(["a", "b"], || std::iter::once(Ok(sample(1))));
        assert!(matches!(
            two.unwrap().samples(0).next(),
            Some(Err(Error::Training(TrainingError::UnequalColumns { .. })))
        ));
    }
}
