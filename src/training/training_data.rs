use std::collections::HashSet;
use std::sync::Arc;

use burn::tensor::backend::AutodiffBackend;

use super::arguments::TrainingArguments;
use super::best_model::LOSS;
use super::dataset::{Dataset, IterableDataset};
use super::learner::TrainableLoss;
use super::sampler::BatchSampler;
use super::text_batch::ColumnPass;
use crate::error::{Result, TrainingError};
use crate::loss::LossData;
use crate::model::SentenceTransformer;

/// The data sets of a run, and the losses that it minimises on them.
#[derive(Debug)]
pub(super) struct TrainingData<L> {
    /// One, or one for each data set.
    pub losses: Vec<L>,
    pub train: Vec<TrainingSet>,
    /// What the loss is evaluated on.
    pub eval: Vec<TrainingSet>,
}

/// A data set of a run.
#[derive(Debug, Clone)]
pub(super) struct TrainingSet {
    /// Its name, if there are several.
    pub name: Option<String>,
    /// Its samples; of a stream the first one, which shows what they are like.
    pub dataset: Arc<Dataset>,
    /// What reads its samples, if they are not in memory.
    pub stream: Option<IterableDataset>,
    /// The place of its loss.
    pub loss: usize,
}

impl<L> TrainingData<L> {
    /// One data set and its loss.
    pub(super) fn single(dataset: Dataset, loss: L) -> Self {
        let set = TrainingSet {
            name: None,
            dataset: Arc::new(dataset),
            stream: None,
            loss: 0,
        };
        Self {
            losses: vec![loss],
            train: vec![set],
            eval: Vec::new(),
        }
    }

    /// A data set that is not in memory, and its loss.
    pub(super) fn streamed(stream: IterableDataset, loss: L) -> Self {
        let mut data = Self::single(stream.head(), loss);
        for set in &mut data.train {
            set.stream = Some(stream.clone());
        }
        data
    }

    /// Several data sets under one loss.
    pub(super) fn shared(datasets: impl IntoIterator<Item = (String, Dataset)>, loss: L) -> Self {
        let set = |(name, dataset)| TrainingSet {
            name: Some(name),
            dataset: Arc::new(dataset),
            stream: None,
            loss: 0,
        };
        Self {
            losses: vec![loss],
            train: datasets.into_iter().map(set).collect(),
            eval: Vec::new(),
        }
    }

    /// Several data sets, each with a loss of its own.
    pub(super) fn each(parts: impl IntoIterator<Item = (String, Dataset, L)>) -> Self {
        let mut data = Self {
            losses: Vec::new(),
            train: Vec::new(),
            eval: Vec::new(),
        };
        for (name, dataset, loss) in parts {
            data.train.push(TrainingSet {
                name: Some(name),
                dataset: Arc::new(dataset),
                stream: None,
                loss: data.losses.len(),
            });
            data.losses.push(loss);
        }
        data
    }

    /// Adds data to evaluate the loss on: that of the training set of the same name.
    pub(super) fn add_eval(&mut self, name: Option<String>, dataset: Dataset) {
        let same = self.train.iter().find(|set| set.name == name);
        let shared = if self.losses.len() == 1 {
            0
        } else {
            usize::MAX
        };
        self.eval.push(TrainingSet {
            loss: same.map_or(shared, |set| set.loss),
            name,
            dataset: Arc::new(dataset),
            stream: None,
        });
    }

    /// Checks that each data set can be read by its loss.
    ///
    /// # Errors
    /// [`TrainingError`] for data without samples, without a name of their own or without
    /// a loss, for arguments that do not go with a stream, and whatever the loss says of the
    /// data.
    pub(super) fn check<B: AutodiffBackend>(
        &self,
        model: &SentenceTransformer<B>,
        arguments: &TrainingArguments,
        guide: bool,
    ) -> Result<()>
    where
        L: TrainableLoss<B>,
    {
        if self.train.is_empty() {
            return Err(TrainingError::EmptyDataset {
                source_name: "data sets".to_owned(),
            }
            .into());
        }
        for sets in [&self.train, &self.eval] {
            let mut names = HashSet::new();
            for set in sets {
                let Some(loss) = self.losses.get(set.loss) else {
                    return Err(TrainingError::UnknownDataset {
                        name: set.name.clone().unwrap_or_default(),
                        datasets: self.train.iter().map(TrainingSet::title).collect(),
                    }
                    .into());
                };
                let data = LossData::new(set.dataset.columns().len(), model.output_dim());
                loss.check(&data.with_labels(set.dataset.labels()).with_guide(guide))?;
                if set.dataset.is_empty() {
                    return Err(TrainingError::EmptyDataset {
                        source_name: set.title(),
                    }
                    .into());
                }
                if !names.insert(&set.name) {
                    return Err(TrainingError::InvalidArgument {
                        argument: "datasets",
                        expected: "data sets with a name each",
                        found: format!("two of the name {:?}", set.title()),
                    }
                    .into());
                }
            }
        }
        let sampler = arguments.batch_sampler;
        let train = (
            "per_device_train_batch_size",
            arguments.per_device_train_batch_size,
        );
        let eval = (
            "per_device_eval_batch_size",
            arguments.per_device_eval_batch_size,
        );
        for (sets, size) in [(&self.train, train), (&self.eval, eval)] {
            for set in sets {
                match &set.stream {
                    Some(_) => check_streamed(arguments)?,
                    None => sampler.check(&set.dataset, size)?,
                }
            }
        }
        let named = |set: &'_ TrainingSet| (set.name.clone(), set.dataset.column_names().to_vec());
        let named: Vec<_> = self.train.iter().map(named).collect();
        let names = named
            .iter()
            .map(|(name, columns)| (name.as_deref(), &columns[..]));
        let names: Vec<_> = names.collect();
        if let Some(prompts) = &arguments.prompts {
            prompts.check(&names)?;
        }
        match &arguments.router_mapping {
            Some(mapping) => mapping.check(&names),
            None if model.is_routed() => Err(TrainingError::InvalidArgument {
                argument: "router_mapping",
                expected: "a route for each column, as the model has a Router",
                found: "None".to_owned(),
            }
            .into()),
            None => Ok(()),
        }
    }

    /// How the columns of a data set are embedded: through which adapters, behind which
    /// prompt, by which route.
    ///
    /// # Errors
    /// [`TrainingError::InvalidArgument`] for adapters of a column that no data set has,
    /// [`AdapterError`](crate::error::AdapterError) for one that the model does not, and
    /// [`ModuleError::NoRoute`](crate::error::ModuleError) for a route.
    pub(super) fn column_passes<B: AutodiffBackend>(
        &self,
        model: &SentenceTransformer<B>,
        arguments: &TrainingArguments,
    ) -> Result<ColumnPasses> {
        for (column, adapters) in &arguments.column_adapters {
            let has = |set: &TrainingSet| set.dataset.column_names().contains(column);
            if !self.train.iter().any(has) {
                let names = self.train.iter().flat_map(|set| set.dataset.column_names());
                return Err(TrainingError::InvalidArgument {
                    argument: "column_adapters",
                    expected: "adapters by columns of the data set",
                    found: format!(
                        "{column:?}, the columns are {:?}",
                        names.collect::<Vec<_>>()
                    ),
                }
                .into());
            }
            for adapter in adapters {
                model.adapters().get(adapter)?;
            }
        }
        let routes = |set: &'_ TrainingSet| -> Result<()> {
            let names = set.dataset.column_names().iter();
            for column in names.filter(|_| model.is_routed()) {
                let mapping = arguments.router_mapping.as_ref();
                let task = mapping.and_then(|routes| routes.of(set.name.as_deref(), column));
                model.tokenizer_for(task)?;
            }
            Ok(())
        };
        self.train.iter().chain(&self.eval).try_for_each(routes)?;
        let of_set = |set: &TrainingSet| -> Vec<ColumnPass> {
            let pass = |column: &String| ColumnPass {
                adapters: arguments
                    .column_adapters
                    .get(column)
                    .map(|adapters| adapters.clone().into()),
                prompt: arguments
                    .prompts
                    .as_ref()
                    .and_then(|prompts| prompts.of(set.name.as_deref(), column))
                    .map(str::to_owned),
                task: arguments
                    .router_mapping
                    .as_ref()
                    .and_then(|routes| routes.of(set.name.as_deref(), column))
                    .map(str::to_owned),
            };
            set.dataset.column_names().iter().map(pass).collect()
        };
        Ok(ColumnPasses {
            train: self.train.iter().map(of_set).collect(),
            eval: self.eval.iter().map(of_set).collect(),
        })
    }
}

/// Checks that the arguments go with data whose samples come in their own order, and whose
/// end is not known.
fn check_streamed(arguments: &TrainingArguments) -> Result<()> {
    let refuse = |argument, expected, found| {
        Err(TrainingError::InvalidArgument {
            argument,
            expected,
            found,
        }
        .into())
    };
    if arguments.max_steps.is_none() {
        let expected = "the steps of the run, which the length of a stream does not tell";
        return refuse("max_steps", expected, "None".to_owned());
    }
    match arguments.batch_sampler {
        BatchSampler::Random | BatchSampler::Sequential => Ok(()),
        sampler => refuse(
            "batch_sampler",
            "the default one for a stream, whose samples come in its own order",
            format!("{sampler:?}"),
        ),
    }
}

/// How columns are embedded, by data set and column.
#[derive(Debug)]
pub(super) struct ColumnPasses {
    pub train: Vec<Vec<ColumnPass>>,
    pub eval: Vec<Vec<ColumnPass>>,
}

impl TrainingSet {
    /// What messages call it.
    pub(super) fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| "data set".to_owned())
    }

    /// What its loss is called among an evaluation's metrics.
    pub(super) fn loss_name(&self) -> String {
        match &self.name {
            Some(name) => format!("{name}_{LOSS}"),
            None => LOSS.to_owned(),
        }
    }
}
