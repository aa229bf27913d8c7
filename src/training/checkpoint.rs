//! Checkpoints: what is trained, and what it takes to go on as if nothing had happened.
//!
//! `checkpoint-N/` holds the model as [`SentenceTransformer::save`] writes it (for an
//! adapter: only the adapter), `training_state.safetensors` with each trained parameter
//! and AdamW's two moments of it by name, and `trainer_state.json`. A checkpoint is
//! written beside its place and renamed into it: one that is there is whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use super::arguments::TrainingArguments;
use super::checkpoint_folders::{
    PREFIX, UNFINISHED, io_error, list, remove, remove_dir, sync, sync_tree,
};
use super::history::{EvaluationRecord, History, StepRecord};
use super::learner::{TrainableLoss, TrainingModel};
use super::optimizer::Moments;
use super::plan::Plan;
use super::stream::StreamState;
use super::training_state::{self, NamedParameter, Restored};
use crate::error::{Result, TrainingError};
use crate::repo::interruption::place;

const STATE: &str = "trainer_state.json";
const TENSORS: &str = "training_state.safetensors";

/// The history's name in the folder of a run.
pub(super) const HISTORY: &str = "history.jsonl";

/// Where a run was when a checkpoint was written: `trainer_state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// The last step that is in the checkpoint.
    pub record: StepRecord,
    /// The samples of all data sets together; 0 for a stream.
    pub samples: usize,
    /// The samples of each data set by its name, where there are several.
    #[serde(default)]
    pub datasets: BTreeMap<String, usize>,
    /// The number of devices that shared each step.
    #[serde(default = "one")]
    pub workers: usize,
    /// Where the data were, if they were a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamState>,
    /// The arguments of the run.
    pub arguments: TrainingArguments,
    /// The evaluations so far.
    pub evaluations: Vec<EvaluationRecord>,
}

fn one() -> usize {
    1
}

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    path: PathBuf,
    state: TrainerState,
}

impl Checkpoint {
    /// Reads where the run of a checkpoint folder was.
    ///
    /// # Errors
    /// [`TrainingError::Io`] or [`TrainingError::InvalidFile`] if its
    /// `trainer_state.json` is missing or malformed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file = path.join(STATE);
        let text = fs::read_to_string(&file).map_err(|e| io_error(&file, "read", e))?;
        let state = serde_json::from_str(&text).map_err(|e| invalid(&file, e))?;
        Ok(Self { path, state })
    }

    /// The last checkpoint of the run that `output_dir` holds the history of.
    ///
    /// A checkpoint that another run left there is not taken: the history would not have
    /// its last step.
    ///
    /// # Errors
    /// [`TrainingError`] if the folder or its history cannot be read.
    pub fn last_in(output_dir: impl AsRef<Path>) -> Result<Option<Self>> {
        Ok(Self::all_in(output_dir.as_ref())?.pop())
    }

    /// The checkpoints of the run that `output_dir` holds the history of, oldest first.
    pub(super) fn all_in(output_dir: &Path) -> Result<Vec<Self>> {
        let history = output_dir.join(HISTORY);
        if !history.is_file() {
            return Ok(Vec::new());
        }
        let history = History::read(history)?;
        let mut found = Vec::new();
        for path in list(output_dir)? {
            match Self::open(&path) {
                Ok(checkpoint) => {
                    let record = &checkpoint.state.record;
                    let index = record.step.wrapping_sub(1);
                    if history.records().get(index) == Some(record) {
                        found.push(checkpoint);
                    } else {
                        log::warn!("{}: is another run's, passed over", path.display());
                    }
                }
                Err(error) => log::warn!("{error}: passed over"),
            }
        }
        Ok(found)
    }

    /// The checkpoint's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the run was.
    pub fn state(&self) -> &TrainerState {
        &self.state
    }

    /// Checks that going on with this plan continues the run, rather than starts another
    /// one in its middle.
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let (theirs, arguments) = (&self.state.arguments, plan.arguments());
        let (samples, datasets) = sizes(plan);
        let kind = |streamed| if streamed { "a stream" } else { "in memory" };
        let streamed = (self.state.stream.is_some(), plan.stream().is_some());
        if streamed.0 != streamed.1 {
            let (theirs, ours) = (kind(streamed.0), kind(streamed.1));
            return Err(self.mismatch(format!("the data were {theirs}, now they are {ours}")));
        }
        if self.state.datasets != datasets {
            return Err(self.mismatch(format!(
                "the data sets were {:?}, now they are {datasets:?}",
                self.state.datasets
            )));
        }
        let facts = [
            ("samples", self.state.samples as u64, samples as u64),
            ("devices", self.state.workers as u64, plan.workers() as u64),
            ("seed", theirs.seed, arguments.seed),
            (
                "per_device_train_batch_size",
                theirs.per_device_train_batch_size as u64,
                arguments.per_device_train_batch_size as u64,
            ),
            (
                "gradient_accumulation_steps",
                theirs.gradient_accumulation_steps as u64,
                arguments.gradient_accumulation_steps as u64,
            ),
        ];
        for (fact, theirs, ours) in facts {
            if theirs != ours {
                return Err(self.mismatch(format!("`{fact}` was {theirs}, now it is {ours}")));
            }
        }
        let samplers = |arguments: &TrainingArguments| {
            format!(
                "{:?}, multi_dataset_batch_sampler {:?}, dataloader_drop_last {}",
                arguments.batch_sampler,
                arguments.multi_dataset_batch_sampler,
                arguments.dataloader_drop_last
            )
        };
        let (theirs, ours) = (samplers(theirs), samplers(arguments));
        match theirs == ours {
            true => Ok(()),
            false => Err(self.mismatch(format!("`batch_sampler` was {theirs}, now it is {ours}"))),
        }
    }

    /// Lets the plan's stream go on where the run was.
    ///
    /// # Errors
    /// [`TrainingError::CheckpointMismatch`] if it is in another order, or ends before that,
    /// and the error of a sample that cannot be read.
    pub(super) fn go_on(&self, plan: &Plan) -> Result<()> {
        let (Some(stream), Some(state)) = (plan.stream(), &self.state.stream) else {
            return Ok(());
        };
        let (theirs, ours) = (state.shuffle, stream.state(0).shuffle);
        if theirs != ours {
            let order = |shuffle: Option<(usize, u64)>| match shuffle {
                None => "none".to_owned(),
                Some((size, seed)) => format!("of {size} samples with seed {seed}"),
            };
            return Err(self.mismatch(format!(
                "the stream's shuffle buffer was {}, now it is {}",
                order(theirs),
                order(ours)
            )));
        }
        let steps = self.state.record.step;
        match stream.go_on(steps, state)? {
            true => Ok(()),
            false => Err(self.mismatch(format!(
                "the stream has not the samples of the {steps} steps behind"
            ))),
        }
    }

    /// Puts the trained parameters into a model and gives AdamW's moments of them.
    ///
    /// # Errors
    /// [`TrainingError::CheckpointMismatch`] if the model does not train the same
    /// parameters.
    pub(super) fn restore<B: AutodiffBackend, L: TrainableLoss<B>>(
        &self,
        model: TrainingModel<B, L>,
        parameters: &[NamedParameter],
    ) -> Result<Restored<B, L>> {
        let path = self.path.join(TENSORS);
        let bytes = fs::read(&path).map_err(|e| io_error(&path, "read", e))?;
        let steps = self.state.record.step;
        let restored = training_state::restore(&bytes, model, parameters, steps);
        restored.map_err(|reason| self.mismatch(reason))
    }

    fn mismatch(&self, reason: String) -> crate::Error {
        TrainingError::CheckpointMismatch {
            path: self.path.clone(),
            reason,
        }
        .into()
    }
}

/// The samples of all data sets of a run, and of each by its name.
pub(super) fn sizes(plan: &Plan) -> (usize, BTreeMap<String, usize>) {
    let sets = plan.sets().iter().filter(|set| set.stream.is_none());
    let named = sets
        .clone()
        .filter_map(|set| Some((set.name.clone()?, set.dataset.len())));
    (sets.map(|set| set.dataset.len()).sum(), named.collect())
}

/// Writes a checkpoint into its place and gives that place.
pub(super) fn write<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &TrainingModel<B, L>,
    moments: &Moments<B, L>,
    parameters: &[NamedParameter],
    state: &TrainerState,
) -> Result<PathBuf> {
    let output_dir = &state.arguments.output_dir;
    let name = format!("{PREFIX}{}", state.record.step);
    let unfinished = output_dir.join(format!(".{name}{UNFINISHED}"));
    remove_dir(&unfinished)?;
    place();
    fs::create_dir_all(&unfinished).map_err(|e| io_error(&unfinished, "create", e))?;
    match model.model.adapters().active() {
        // A model folder holds one adapter; several lie beside each other, as PEFT has it.
        [_, _, ..] => model.model.save_adapters(&unfinished)?,
        _ => model.model.save(&unfinished)?,
    }

    let file = unfinished.join(TENSORS);
    let bytes = training_state::to_safetensors(model, moments, parameters);
    let bytes = bytes.map_err(|e| invalid(&file, e))?;
    place();
    fs::write(&file, bytes).map_err(|e| io_error(&file, "write", e))?;

    let file = unfinished.join(STATE);
    let json = serde_json::to_string_pretty(state).map_err(|e| invalid(&file, e))?;
    place();
    fs::write(&file, json).map_err(|e| io_error(&file, "write", e))?;

    sync_tree(&unfinished)?;
    let target = output_dir.join(name);
    remove(&target)?;
    place();
    fs::rename(&unfinished, &target).map_err(|e| io_error(&target, "rename into place", e))?;
    place();
    sync(output_dir)?;
    Ok(target)
}

fn invalid(path: &Path, reason: impl ToString) -> crate::Error {
    TrainingError::InvalidFile {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
    .into()
}
