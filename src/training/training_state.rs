//! What training changes, by name: the trained parameters and AdamW's state of each.
//!
//! Burn tells parameters apart by ids that are drawn anew with every model; names stay
//! the same from one run to the next.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::record::AdaptorRecord;
use burn::optim::{AdamWState, AdaptiveMomentumState};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::learner::{TrainableLoss, TrainingModel};
use super::optimizer::Moments;

/// What follows a parameter's name in the name of AdamW's state of it, as PyTorch has it.
const STEP: &str = ".step";
const EXP_AVG: &str = ".exp_avg";
const EXP_AVG_SQ: &str = ".exp_avg_sq";

/// A parameter's name and id.
pub(super) type NamedParameter = (String, ParamId);

/// A model with its trained parameters, and their moments.
pub(super) type Restored<B, L> = (TrainingModel<B, L>, Moments<B, L>);

/// Every parameter that training updates: the model's, and the loss's own under `loss.`,
/// behind which comes the name of its data set where there are several losses.
pub(super) fn trained_parameters<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &TrainingModel<B, L>,
    names: &[Option<String>],
) -> Vec<NamedParameter> {
    let mut parameters = model.model.named_trainable();
    for (place, loss) in model.losses.iter().enumerate() {
        let mut of_loss = LossParameters::default();
        if model.losses.len() > 1 {
            let name = names.get(place).cloned().flatten();
            of_loss.path.push(name.unwrap_or_else(|| place.to_string()));
        }
        Module::<B>::visit(loss, &mut of_loss);
        parameters.extend(of_loss.found);
    }
    parameters
}

/// The number of dimensions of every parameter. It also draws the weights that are still to be
/// drawn: from here on, what is cloned is the same.
pub(super) fn dimensions<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &TrainingModel<B, L>,
) -> HashMap<ParamId, usize> {
    let mut shapes = Shapes::default();
    Module::<B>::visit(model, &mut shapes);
    let dimensions = shapes.of.into_iter().map(|(id, shape)| (id, shape.len()));
    dimensions.collect()
}

/// The parameters and their moments as a safetensors file.
pub(super) fn to_safetensors<B: AutodiffBackend, L: TrainableLoss<B>>(
    model: &TrainingModel<B, L>,
    moments: &Moments<B, L>,
    parameters: &[NamedParameter],
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let mut collecting = Collecting::<B, L> {
        names: parameters
            .iter()
            .map(|(name, id)| (*id, name.as_str()))
            .collect(),
        moments,
        tensors: Vec::new(),
    };
    Module::<B>::visit(model, &mut collecting);
    let mut views = Vec::with_capacity(collecting.tensors.len());
    for (key, data) in &collecting.tensors {
        views.push((
            key,
            TensorView::new(Dtype::F32, data.shape.to_vec(), data.as_bytes())?,
        ));
    }
    safetensors::serialize(views, None)
}

/// Puts the parameters of a safetensors file into a model and gives their moments, or
/// says why the file is not this model's after so many steps.
pub(super) fn restore<B: AutodiffBackend, L: TrainableLoss<B>>(
    bytes: &[u8],
    model: TrainingModel<B, L>,
    parameters: &[NamedParameter],
    steps: usize,
) -> Result<Restored<B, L>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let keys: HashSet<&str> = file.names().into_iter().collect();
    let mut shapes = Shapes::default();
    Module::<B>::visit(&model, &mut shapes);

    let mut states = HashMap::new();
    for (name, id) in parameters {
        let shape = shapes.of.get(id).map_or(&[][..], Vec::as_slice);
        let value = read(&file, name, shape)?;
        let step = format!("{name}{STEP}");
        let moments = match keys.contains(step.as_str()) {
            true => Some(ParameterMoments {
                step: read_step(&file, &step, steps)?,
                exp_avg: read(&file, &format!("{name}{EXP_AVG}"), shape)?,
                exp_avg_sq: read(&file, &format!("{name}{EXP_AVG_SQ}"), shape)?,
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
    if let Some(other) = keys
        .iter()
        .find(|key| !is_moment(key) && !ours.contains(*key))
    {
        return Err(format!("it trained `{other}`, this model does not"));
    }

    let mut restoring = Restoring::<B, L> {
        states,
        moments: Moments::<B, L>::default(),
    };
    let model = model.map(&mut restoring);
    Ok((model, restoring.moments))
}

fn read(file: &SafeTensors<'_>, key: &str, shape: &[usize]) -> Result<TensorData, String> {
    let view = file.tensor(key).map_err(|_| format!("it has no `{key}`"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        let (dtype, found) = (view.dtype(), view.shape());
        return Err(format!(
            "`{key}` is {dtype:?} {found:?}, this model's is F32 {shape:?}"
        ));
    }
    let bytes = view.data().chunks_exact(4);
    let values: Vec<f32> = bytes
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(format!("`{key}` holds {value}"));
    }
    Ok(TensorData::new(values, shape.to_vec()))
}

/// How many steps a parameter has had: one for each of the run's at the most.
fn read_step(file: &SafeTensors<'_>, key: &str, steps: usize) -> Result<usize, String> {
    let values = read(file, key, &[])?;
    let step = values.iter::<f32>().next().unwrap_or_default();
    match step.fract() == 0.0 && (0.0..=steps as f32).contains(&step) {
        true => Ok(step as usize),
        false => Err(format!("`{key}` is {step} after {steps} steps")),
    }
}

/// A trained parameter; without moments if no gradient has reached it yet.
struct ParameterState {
    value: TensorData,
    moments: Option<ParameterMoments>,
}

/// AdamW's state of one parameter.
struct ParameterMoments {
    step: usize,
    exp_avg: TensorData,
    exp_avg_sq: TensorData,
}

#[derive(Default)]
struct LossParameters {
    path: Vec<String>,
    found: Vec<NamedParameter>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for LossParameters {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if param.val().is_require_grad() {
            self.found
                .push((format!("loss.{}", self.path.join(".")), param.id));
        }
    }
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
            let (exp_avg, exp_avg_sq) = (tensor(moments.exp_avg), tensor(moments.exp_avg_sq));
            let momentum = AdaptiveMomentumState::new(moments.step, exp_avg, exp_avg_sq);
            let moments = AdaptorRecord::from_state(AdamWState::new(momentum));
            self.moments.insert(param.id, moments);
        }
        let value = Tensor::from_inner(tensor(state.value));
        param.map(|old| value.set_require_grad(old.is_require_grad()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, device};
    use crate::loss::{Columns, LabelColumn, Loss, LossInput, TextColumns};
    use crate::model::{Mode, SentenceTransformer};
    use burn::optim::{AdamW, AdamWConfig, GradientsParams, Optimizer, adaptor::OptimizerAdaptor};
    use burn::tensor::backend::Backend;

    type B = TestAutodiffBackend;
    type Model = TrainingModel<B, Weighted<B>>;

    /// A loss with a parameter of its own.
    #[derive(Module, Debug)]
    struct Weighted<B: Backend> {
        weight: Param<Tensor<B, 1>>,
    }

    impl<B: Backend> Loss<B> for Weighted<B> {
        fn name(&self) -> &'static str {
            "Weighted"
        }

        fn columns(&self) -> Columns {
            Columns {
                texts: TextColumns::Exactly(1),
                label: LabelColumn::Ignored,
            }
        }

        fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
            Tensor::cat(input.embeddings, 0).powi_scalar(2).mean() * self.weight.val()
        }
    }

    fn model(dim: usize) -> Model {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny_bert/v6");
        let model = SentenceTransformer::load(folder, &device()).unwrap();
        let weight = Param::from_tensor(Tensor::ones([dim], &device()));
        TrainingModel::new(
            model,
            vec![Weighted { weight }],
            0,
            Mode::Inference,
            Default::default(),
        )
    }

    /// A model after one step, and the optimiser's moments.
    fn trained() -> (Model, Moments<B, Weighted<B>>) {
        let model = model(1);
        let embeddings = model
            .embed(&model.model, &["the quick fox"], None, false, 0)
            .unwrap();
        let loss = model.losses[0].forward(LossInput::new(embeddings));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let mut adamw: OptimizerAdaptor<AdamW, Model, B> = AdamWConfig::new().init();
        (adamw.step(0.01, model, gradients), adamw.to_record())
    }

    fn bytes(model: &Model, moments: &Moments<B, Weighted<B>>) -> Vec<u8> {
        to_safetensors(model, moments, &trained_parameters(model, &[])).unwrap()
    }

    #[test]
    fn a_losss_own_parameters_are_trained_too() {
        let names: Vec<String> = trained_parameters(&model(1), &[])
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert!(names.contains(&"loss.weight".to_owned()), "{names:?}");
        assert!(names.contains(&"encoder.layer.0.attention.self.query.weight".to_owned()));
    }

    #[test]
    fn each_loss_has_its_data_sets_name() {
        let mut several = model(1);
        several.losses.push(model(2).losses.remove(0));
        let names = [Some("nli".to_owned()), Some("qa".to_owned())];
        let parameters = trained_parameters(&several, &names);
        let own: Vec<&str> = parameters
            .iter()
            .filter_map(|(name, _)| name.strip_prefix("loss."))
            .collect();
        assert_eq!(own, ["nli.weight", "qa.weight"]);
    }

    #[test]
    fn what_was_trained_comes_back_by_name() {
        let (trained, moments) = trained();
        let written = bytes(&trained, &moments);
        let fresh = model(1);
        assert_ne!(bytes(&fresh, &Default::default()), written);
        let parameters = trained_parameters(&fresh, &[]);
        let (restored, of_restored) = restore(&written, fresh, &parameters, 1).unwrap();
        assert_eq!(bytes(&restored, &of_restored), written);
        assert_eq!(trained_parameters(&restored, &[]).len(), parameters.len());
        let file = SafeTensors::deserialize(&written).unwrap();
        assert_eq!(
            file.tensor("loss.weight.step").unwrap().data(),
            1f32.to_le_bytes()
        );
    }

    #[test]
    fn a_parameter_that_no_gradient_has_reached_has_no_moments() {
        let written = bytes(&model(1), &Default::default());
        let file = SafeTensors::deserialize(&written).unwrap();
        assert_eq!(file.len(), trained_parameters(&model(1), &[]).len());
        let fresh = model(1);
        let parameters = trained_parameters(&fresh, &[]);
        assert!(
            restore(&written, fresh, &parameters, 1)
                .unwrap()
                .1
                .is_empty()
        );
    }

    #[test]
    fn a_file_of_another_model_is_told_apart() {
        let written = bytes(&model(1), &Default::default());
        let reason = |dim: usize, keep: fn(&NamedParameter) -> bool, bytes: &[u8]| {
            let model = model(dim);
            let mut parameters = trained_parameters(&model, &[]);
            parameters.retain(keep);
            restore(bytes, model, &parameters, 1)
                .map(|_| ())
                .unwrap_err()
        };
        assert!(reason(2, |_| true, &written).contains("`loss.weight` is F32 [1]"));
        let without = |(name, _): &NamedParameter| name != "loss.weight";
        assert!(reason(1, without, &written).contains("it trained `loss.weight`"));
        assert!(!reason(1, |_| true, &written[..written.len() - 1]).is_empty());
    }
    #[test]
    fn numbers_that_no_run_comes_to_are_refused() {
        let (trained, moments) = trained();
        let written = bytes(&trained, &moments);
        let file = SafeTensors::deserialize(&written).unwrap();
        let with = |key: &str, value: f32| {
            let changed: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = file
                .tensors()
                .into_iter()
                .map(|(name, view)| {
                    let mut data = view.data().to_vec();
                    if name == key {
                        data[..4].copy_from_slice(&value.to_le_bytes());
                    }
                    (name, view.dtype(), view.shape().to_vec(), data)
                })
                .collect();
            let views = changed.iter().map(|(name, dtype, shape, data)| {
                (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
            });
            let bytes = safetensors::serialize(views, None).unwrap();
            let fresh = model(1);
            let parameters = trained_parameters(&fresh, &[]);
            restore(&bytes, fresh, &parameters, 1).map(|_| ())
        };
        with("loss.weight.step", 1.0).unwrap();
        for step in [2.0, 0.5, -1.0, f32::MAX] {
            let reason = with("loss.weight.step", step).unwrap_err();
            assert!(reason.contains("after 1 steps"), "{reason}");
        }
        for end in ["", STEP, EXP_AVG, EXP_AVG_SQ] {
            for value in [f32::NAN, f32::INFINITY] {
                let key = format!("loss.weight{end}");
                let reason = with(&key, value).unwrap_err();
                assert!(reason.contains(&format!("`{key}` holds")), "{reason}");
            }
        }
    }
}
