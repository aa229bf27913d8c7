use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use burn::module::{AutodiffModule, Module, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{AdamW, AdamWConfig, GradientsParams, MultiGradientsParams, Optimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::arguments::TrainingArguments;
use super::learner::{TrainableLoss, TrainingModel, scalar};
use super::monitor::Monitor;
use super::session::lock;

/// The moments of all parameters, by parameter.
pub(super) type Moments<B, L> =
    <OptimizerAdaptor<AdamW, TrainingModel<B, L>, B> as Optimizer<TrainingModel<B, L>, B>>::Record;

/// One optimiser step after the gradients are there: clip them, update the weights, and
/// tell the monitor.
pub(super) struct StepOptimizer<B: AutodiffBackend, L: TrainableLoss<B>> {
    groups: Vec<ParameterGroup<B, L>>,
    max_grad_norm: f64,
    monitor: Arc<Mutex<Monitor<B>>>,
}

/// Parameters that are updated with the same options.
struct ParameterGroup<B: AutodiffBackend, L: TrainableLoss<B>> {
    members: HashSet<ParamId>,
    adamw: OptimizerAdaptor<AdamW, TrainingModel<B, L>, B>,
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> StepOptimizer<B, L> {
    /// An optimiser of the parameters named; `monitor` hears of each step.
    pub(super) fn new(
        arguments: &TrainingArguments,
        parameters: &[(String, ParamId)],
        monitor: Arc<Mutex<Monitor<B>>>,
    ) -> Self {
        let group = |weight_decay: f64, decayed: bool| ParameterGroup {
            members: parameters
                .iter()
                .filter(|(name, _)| is_decayed(name) == decayed)
                .map(|&(_, id)| id)
                .collect(),
            adamw: AdamWConfig::new()
                .with_beta_1(arguments.adam_beta1 as f32)
                .with_beta_2(arguments.adam_beta2 as f32)
                .with_epsilon(arguments.adam_epsilon as f32)
                .with_weight_decay(weight_decay as f32)
                .init(),
        };
        Self {
            groups: vec![group(arguments.weight_decay, true), group(0.0, false)],
            max_grad_norm: arguments.max_grad_norm,
            monitor,
        }
    }

    fn update(
        &mut self,
        learning_rate: f64,
        mut module: TrainingModel<B, L>,
        mut gradients: GradientsParams,
    ) -> TrainingModel<B, L> {
        let norm = grad_norm(&module, &gradients);
        let monitor = self.monitor.clone();
        let mut monitor = lock(&monitor);
        if !monitor.begin_update(norm) {
            return module;
        }
        // PyTorch's `clip_grad_norm_`.
        let factor = self.max_grad_norm / (norm + 1e-6);
        if self.max_grad_norm > 0.0 && factor < 1.0 {
            gradients = scaled(&module, gradients, factor);
        }
        for group in &mut self.groups {
            let of_group = taken(&module, &mut gradients, &group.members);
            module = group.adamw.step(learning_rate, module, of_group);
        }
        monitor.finish_update(&module, &|| self.to_record(), learning_rate, norm);
        module
    }
}

/// Whether weight decay applies to a parameter: not to a bias nor to a norm, as the
/// reference's `get_decay_parameter_names` has it.
fn is_decayed(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_norm = |part: &str| part.ends_with("norm") || part.ends_with("layer_norm");
    !name.ends_with("bias") && !name.split('.').any(is_norm)
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> Clone for StepOptimizer<B, L> {
    fn clone(&self) -> Self {
        let groups = self.groups.iter().map(|group| ParameterGroup {
            members: group.members.clone(),
            adamw: group.adamw.clone(),
        });
        Self {
            groups: groups.collect(),
            max_grad_norm: self.max_grad_norm,
            monitor: self.monitor.clone(),
        }
    }
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> Optimizer<TrainingModel<B, L>, B>
    for StepOptimizer<B, L>
{
    type Record = Moments<B, L>;

    fn step(
        &mut self,
        lr: f64,
        module: TrainingModel<B, L>,
        grads: GradientsParams,
    ) -> TrainingModel<B, L> {
        self.update(lr, module, grads)
    }

    fn step_multi(
        &mut self,
        lr: f64,
        module: TrainingModel<B, L>,
        grads: MultiGradientsParams,
    ) -> TrainingModel<B, L> {
        // The norm is that of all gradients: they have to meet on one device.
        let mut gathering = Gathering {
            from: grads,
            to: GradientsParams::new(),
        };
        module.visit(&mut gathering);
        self.update(lr, module, gathering.to)
    }

    fn to_record(&self) -> Self::Record {
        self.groups
            .iter()
            .flat_map(|group| group.adamw.to_record())
            .collect()
    }

    fn load_record(mut self, record: Self::Record) -> Self {
        for group in &mut self.groups {
            let of_group = record
                .iter()
                .filter(|(id, _)| group.members.contains(id))
                .map(|(&id, moments)| (id, moments.clone()))
                .collect();
            group.adamw = group.adamw.clone().load_record(of_group);
        }
        self
    }
}

/// The Euclidean norm of all gradients together.
fn grad_norm<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    gradients: &GradientsParams,
) -> f64 {
    let mut norm = SquaredNorm::<B> {
        gradients,
        sum: None,
    };
    module.visit(&mut norm);
    norm.sum.map_or(0.0, |sum| scalar(sum.sqrt()))
}

/// The gradients, each times a factor.
fn scaled<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    gradients: GradientsParams,
    factor: f64,
) -> GradientsParams {
    let mut scaling = Moving {
        from: gradients,
        to: GradientsParams::new(),
        members: None,
        factor,
    };
    module.visit(&mut scaling);
    scaling.to
}

/// Takes the gradients of these parameters out of all.
fn taken<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    gradients: &mut GradientsParams,
    members: &HashSet<ParamId>,
) -> GradientsParams {
    let mut moving = Moving {
        from: std::mem::take(gradients),
        to: GradientsParams::new(),
        members: Some(members),
        factor: 1.0,
    };
    module.visit(&mut moving);
    *gradients = moving.from;
    moving.to
}

struct SquaredNorm<'a, B: AutodiffBackend> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for SquaredNorm<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.get::<B::InnerBackend, D>(param.id) {
            let squares = (gradient.clone() * gradient).sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + squares,
                None => squares,
            });
        }
    }
}

struct Moving<'a> {
    from: GradientsParams,
    to: GradientsParams,
    members: Option<&'a HashSet<ParamId>>,
    factor: f64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Moving<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self
            .members
            .is_some_and(|members| !members.contains(&param.id))
        {
            return;
        }
        if let Some(gradient) = self.from.remove::<B::InnerBackend, D>(param.id) {
            let gradient = match self.factor {
                1.0 => gradient,
                factor => gradient.mul_scalar(factor),
            };
            self.to.register(param.id, gradient);
        }
    }
}

struct Gathering {
    from: MultiGradientsParams,
    to: GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Gathering {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some((gradient, _)) = self.from.remove::<B::InnerBackend, D>(param.id) {
            let device = param.val().device();
            self.to.register(param.id, gradient.to_device(&device));
        }
    }
}
