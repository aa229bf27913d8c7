//! Checkpoints: what is trained, and what it takes to go on as if nothing had happened.
//!
//! `checkpoint-N/` holds the model as [`SentenceTransformer::save`] writes it (for an
//! adapter: only the adapter), `training_state.safetensors` with each trained parameter
//! and AdamW's two moments of it by name, and `trainer_state.json`. A checkpoint is
//! written beside its place and renamed into it: one that is there is whole.

use std::collections::{HashMap, HashSet};
use std::fs;
#[cfg(unix)]
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::record::AdaptorRecord;
use burn::optim::{AdamWState, AdaptiveMomentumState};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::arguments::TrainingArguments;
use super::history::{EvaluationRecord, History, StepRecord};
use super::learner::{TrainableLoss, TrainingModel};
use super::optimizer::Moments;
use crate::error::{Result, TrainingError};

const PREFIX: &str = "checkpoint-";
const STATE: &str = "trainer_state.json";
const TENSORS: &str = "training_state.safetensors";
const UNFINISHED: &str = ".unfinished";
const REMOVED: &str = ".removed";

/// The history's name in the folder of a run.
pub(super) const HISTORY: &str = "history.jsonl";

/// Where a run was when a checkpoint was written: `trainer_state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// The last step that is in the checkpoint.
    pub record: StepRecord,
    /// The samples of the data set.
    pub samples: usize,
    /// The arguments of the run.
    pub arguments: TrainingArguments,
    /// The evaluations so far.
    pub evaluations: Vec<EvaluationRecord>,
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
                    let place = record.step.wrapping_sub(1);
                    if history.records().get(place) == Some(record) {
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

    /// Checks that going on with these arguments and that many samples continues the
    /// run, rather than starts another one in its middle.
    pub(super) fn check(&self, arguments: &TrainingArguments, samples: usize) -> Result<()> {
        let theirs = &self.state.arguments;
        let facts = [
            ("samples", self.state.samples as u64, samples as u64),
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
        if theirs.batch_sampler != arguments.batch_sampler {
            return Err(self.mismatch(format!(
                "`batch_sampler` was {:?}, now it is {:?}",
                theirs.batch_sampler, arguments.batch_sampler
            )));
        }
        Ok(())
    }

    /// Puts the trained parameters into a model and gives AdamW's moments of them.
    ///
    /// # Errors
    /// [`TrainingError::CheckpointMismatch`] if the model does not train the same
    /// parameters.
    pub(super) fn restore<B: AutodiffBackend, L: TrainableLoss<B>>(
        &self,
        model: TrainingModel<B, L>,
        parameters: &[(String, ParamId)],
    ) -> Result<(TrainingModel<B, L>, Moments<B, L>)> {
        let path = self.path.join(TENSORS);
        let bytes = fs::read(&path).map_err(|e| io_error(&path, "read", e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| invalid(&path, e))?;

        let mut shapes = Shapes::default();
        Module::<B>::visit(&model, &mut shapes);
        let mut states = HashMap::new();
        for (name, id) in parameters {
            let shape = shapes.of.get(id).map_or(&[][..], Vec::as_slice);
            let read = |key: String, shape| self.read_tensor(&file, &key, shape);
            let value = read(name.clone(), shape)?;
            let step = format!("{name}{STEP}");
            let moments = match file.names().contains(&step.as_str()) {
                true => Some(ParameterMoments {
                    step: read(step, &[])?,
                    exp_avg: read(format!("{name}{EXP_AVG}"), shape)?,
                    exp_avg_sq: read(format!("{name}{EXP_AVG_SQ}"), shape)?,
                }),
                false => None,
            };
            states.insert(*id, ParameterState { value, moments });
        }
        let ours: HashSet<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        let is_moment = |key: &str| {
            [STEP, EXP_AVG, EXP_AVG_SQ]
                .iter()
                .any(|end| key.ends_with(end))
        };
        if let Some(other) = file
            .names()
            .into_iter()
            .find(|key| !is_moment(key) && !ours.contains(key))
        {
            return Err(self.mismatch(format!("it trained `{other}`, this model does not")));
        }
        let mut restoring = Restoring::<B, L> {
            states,
            moments: Moments::<B, L>::default(),
        };
        let model = model.map(&mut restoring);
        Ok((model, restoring.moments))
    }

    fn read_tensor(
        &self,
        file: &SafeTensors<'_>,
        key: &str,
        shape: &[usize],
    ) -> Result<TensorData> {
        let Ok(view) = file.tensor(key) else {
            return Err(self.mismatch(format!("it has no `{key}`")));
        };
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(self.mismatch(format!(
                "`{key}` is {:?} {:?}, this model's is F32 {shape:?}",
                view.dtype(),
                view.shape()
            )));
        }
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        Ok(TensorData::new(values, shape.to_vec()))
    }

    fn mismatch(&self, reason: String) -> crate::Error {
        TrainingError::CheckpointMismatch {
            path: self.path.clone(),
            reason,
        }
        .into()
    }
}

/// Writes a checkpoint into its place and gives that place.
pub(super) fn write<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &TrainingModel<B, L>,
    moments: &Moments<B, L>,
    parameters: &[(String, ParamId)],
    state: &TrainerState,
) -> Result<PathBuf> {
    let output_dir = &state.arguments.output_dir;
    let name = format!("{PREFIX}{}", state.record.step);
    let unfinished = output_dir.join(format!(".{name}{UNFINISHED}"));
    remove_dir(&unfinished)?;
    fs::create_dir_all(&unfinished).map_err(|e| io_error(&unfinished, "create", e))?;
    model.model.save(&unfinished)?;

    let mut collecting = Collecting::<B, L> {
        names: parameters
            .iter()
            .map(|(name, id)| (*id, name.as_str()))
            .collect(),
        moments,
        tensors: Vec::new(),
    };
    Module::<B>::visit(model, &mut collecting);
    let file = unfinished.join(TENSORS);
    let mut views = Vec::with_capacity(collecting.tensors.len());
    for (key, data) in &collecting.tensors {
        let view = TensorView::new(Dtype::F32, data.shape.to_vec(), data.as_bytes());
        views.push((key, view.map_err(|e| invalid(&file, e))?));
    }
    let bytes = safetensors::serialize(views, None).map_err(|e| invalid(&file, e))?;
    fs::write(&file, bytes).map_err(|e| io_error(&file, "write", e))?;

    let file = unfinished.join(STATE);
    let json = serde_json::to_string_pretty(state).map_err(|e| invalid(&file, e))?;
    fs::write(&file, json).map_err(|e| io_error(&file, "write", e))?;

    sync_tree(&unfinished)?;
    let place = output_dir.join(name);
    remove(&place)?;
    fs::rename(&unfinished, &place).map_err(|e| io_error(&place, "rename into place", e))?;
    sync(output_dir)?;
    Ok(place)
}

/// Removes a checkpoint, if it is there, so that no half of it is ever seen.
pub(super) fn remove(path: &Path) -> Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    if !path.exists() {
        return Ok(());
    }
    let removed = dir.join(format!(".{}{REMOVED}", name.to_string_lossy()));
    remove_dir(&removed)?;
    fs::rename(path, &removed).map_err(|e| io_error(path, "remove", e))?;
    remove_dir(&removed)
}

/// Removes what a run that was cut off left half written or half removed.
pub(super) fn clean(output_dir: &Path) -> Result<()> {
    for path in entries(output_dir)? {
        let name = file_name(&path);
        let ours = name.starts_with(&format!(".{PREFIX}"));
        if ours && (name.ends_with(UNFINISHED) || name.ends_with(REMOVED)) {
            remove_dir(&path)?;
        }
    }
    Ok(())
}

/// The checkpoints in a folder, oldest first.
fn list(output_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<(usize, PathBuf)> = entries(output_dir)?
        .into_iter()
        .filter_map(|path| Some((file_name(&path).strip_prefix(PREFIX)?.parse().ok()?, path)))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

const STEP: &str = ".step";
const EXP_AVG: &str = ".exp_avg";
const EXP_AVG_SQ: &str = ".exp_avg_sq";

/// A trained parameter; without moments if no gradient has reached it yet.
struct ParameterState {
    value: TensorData,
    moments: Option<ParameterMoments>,
}

/// AdamW's state of one parameter, by PyTorch's names.
struct ParameterMoments {
    step: TensorData,
    exp_avg: TensorData,
    exp_avg_sq: TensorData,
}

#[derive(Default)]
struct Shapes {
    of: HashMap<ParamId, Vec<usize>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Shapes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.of.insert(param.id, param.val().dims().to_vec());
    }
}

struct Collecting<'a, B: AutodiffBackend, L: TrainableLoss<B>> {
    names: HashMap<ParamId, &'a str>,
    moments: &'a Moments<B, L>,
    tensors: Vec<(String, TensorData)>,
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> ModuleVisitor<B> for Collecting<'_, B, L> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(name) = self.names.get(&param.id) else {
            return;
        };
        let data = |tensor: Tensor<B::InnerBackend, D>| tensor.into_data().convert::<f32>();
        self.tensors
            .push(((*name).to_owned(), data(param.val().inner())));
        let Some(moments) = self.moments.get(&param.id) else {
            return;
        };
        let state: AdamWState<B::InnerBackend, D> = moments.clone().into_state();
        let step = TensorData::new(vec![state.momentum.time as f32], Vec::<usize>::new());
        self.tensors.extend([
            (format!("{name}{STEP}"), step),
            (format!("{name}{EXP_AVG}"), data(state.momentum.moment_1)),
            (format!("{name}{EXP_AVG_SQ}"), data(state.momentum.moment_2)),
        ]);
    }
}

struct Restoring<B: AutodiffBackend, L: TrainableLoss<B>> {
    states: HashMap<ParamId, ParameterState>,
    moments: Moments<B, L>,
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> ModuleMapper<B> for Restoring<B, L> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(state) = self.states.remove(&param.id) else {
            return param;
        };
        let device = param.val().device();
        let tensor = |data: TensorData| {
            Tensor::<B::InnerBackend, D>::from_data(data.convert::<B::FloatElem>(), &device)
        };
        if let Some(moments) = state.moments {
            let step = moments.step.iter::<f32>().next().unwrap_or(0.0) as usize;
            let (exp_avg, exp_avg_sq) = (tensor(moments.exp_avg), tensor(moments.exp_avg_sq));
            let momentum = AdaptiveMomentumState::new(step, exp_avg, exp_avg_sq);
            let moments = AdaptorRecord::from_state(AdamWState::new(momentum));
            self.moments.insert(param.id, moments);
        }
        let value = Tensor::from_inner(tensor(state.value));
        param.map(|old| value.set_require_grad(old.is_require_grad()))
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| io_error(dir, "list", e);
    fs::read_dir(dir)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error(path, "remove", error))
        }
        _ => Ok(()),
    }
}

/// Makes a folder's files survive a power cut.
fn sync_tree(dir: &Path) -> Result<()> {
    for path in entries(dir)? {
        match path.is_dir() {
            true => sync_tree(&path)?,
            false => sync(&path)?,
        }
    }
    sync(dir)
}

#[cfg(unix)]
fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| io_error(path, "write", e))
}

/// Elsewhere a folder, or a file open for reading, cannot be synced.
#[cfg(not(unix))]
fn sync(_path: &Path) -> Result<()> {
    Ok(())
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> crate::Error {
    TrainingError::Io {
        path: path.to_owned(),
        action,
        source,
    }
    .into()
}

fn invalid(path: &Path, reason: impl ToString) -> crate::Error {
    TrainingError::InvalidFile {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
    .into()
}
