use std::path::{Path, PathBuf};

use burn::tensor::backend::AutodiffBackend;
use sentence_burn::data::DataFormat;
use sentence_burn::training::{
    Dataset, DatasetOptions, IterableDataset, TrainableLoss, Trainer, TrainingArguments,
};
use sentence_burn::{Result, SentenceTransformer};

use super::options::Options;

/// What is trained on.
pub(crate) enum TrainingData {
    /// Data sets by the names of their files.
    InMemory(Vec<(String, Dataset)>),
    /// One that is read while it is trained on.
    Stream(Box<IterableDataset>),
}

impl TrainingData {
    pub(crate) fn open(files: &[PathBuf], options: &Options) -> Result<Self> {
        if options.stream {
            let json = DatasetOptions {
                format: Some(DataFormat::Json),
                ..DatasetOptions::default()
            };
            let stream = IterableDataset::from_files(files, &json)?;
            return Ok(Self::Stream(Box::new(options.order(stream))));
        }
        let named = |file: &PathBuf| Ok((name_of(file), Dataset::from_jsonl(file)?));
        files
            .iter()
            .map(named)
            .collect::<Result<_>>()
            .map(Self::InMemory)
    }

    /// One more than the largest class of the first data set, at least 2.
    pub(crate) fn classes(&self) -> Result<usize> {
        let mut largest = 0f32;
        let mut see = |label: &[f32]| largest = label.iter().copied().fold(largest, f32::max);
        match self {
            Self::InMemory(data) => {
                let labels = data.first().and_then(|(_, data)| data.labels());
                labels
                    .unwrap_or_default()
                    .iter()
                    .for_each(|label| see(label));
            }
            Self::Stream(stream) => {
                for sample in stream.samples(0) {
                    see(&sample?.label.unwrap_or_default());
                }
            }
        }
        Ok((largest as usize + 1).max(2))
    }

    pub(crate) fn trainer<B: AutodiffBackend, L: TrainableLoss<B>>(
        self,
        model: SentenceTransformer<B>,
        arguments: TrainingArguments,
        loss: L,
    ) -> Trainer<B, L> {
        match self {
            Self::Stream(stream) => Trainer::with_stream(model, arguments, *stream, loss),
            Self::InMemory(mut data) if data.len() == 1 => {
                Trainer::new(model, arguments, data.remove(0).1, loss)
            }
            Self::InMemory(data) => Trainer::with_datasets(model, arguments, data, loss),
        }
    }
}

/// A data set's name: that of its file.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}
