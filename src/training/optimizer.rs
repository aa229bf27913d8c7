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
use super::parameter_groups::ParameterGroup;
use super::session::{Session, lock};

/// The moments of all parameters, by parameter.
pub(super) type Moments<B, L> =
    <OptimizerAdaptor<AdamW, TrainingModel<B, L>, B> as Optimizer<TrainingModel<B, L>, B>>::Record;

/// One optimiser step after the gradients are there: clip them, update the weights, and
/// tell the monitor.
pub(super) struct StepOptimizer<B: AutodiffBackend, L: TrainableLoss<B>> {
    groups: Vec<OptimizedGroup<B, L>>,
    max_grad_norm: f64,
    monitor: Arc<Mutex<Monitor<B>>>,
    session: Arc<Session>,
    /// The device of the worker that tells the monitor, where each updates weights of its own.
    main: Option<B::Device>,
}

/// A group of parameters and its optimiser.
struct OptimizedGroup<B: AutodiffBackend, L: TrainableLoss<B>> {
    members: HashSet<ParamId>,
    learning_rate: f64,
    adamw: OptimizerAdaptor<AdamW, TrainingModel<B, L>, B>,
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> StepOptimizer<B, L> {
    /// An optimiser of these parameters; `monitor` hears of each step.
    pub(super) fn new(
        arguments: &TrainingArguments,
        groups: Vec<ParameterGroup>,
        monitor: Arc<Mutex<Monitor<B>>>,
    ) -> Self {
        let group = |group: ParameterGroup| OptimizedGroup {
            members: group.members,
            learning_rate: group.learning_rate,
            adamw: AdamWConfig::new()
                .with_beta_1(arguments.adam_beta1 as f32)
                .with_beta_2(arguments.adam_beta2 as f32)
                .with_epsilon(arguments.adam_epsilon as f32)
                .with_weight_decay(group.weight_decay as f32)
                .init(),
        };
        let session = lock(&monitor).session.clone();
        Self {
            groups: groups.into_iter().map(group).collect(),
            max_grad_norm: arguments.max_grad_norm,
            monitor,
            session,
            main: None,
        }
    }

    /// The same for workers that each update weights of their own, by the same gradients:
    /// the one on this device tells the monitor.
    pub(super) fn with_main(mut self, main: Option<B::Device>) -> Self {
        self.main = main;
        self
    }

    fn update(
        &mut self,
        learning_rate: f64,
        mut module: TrainingModel<B, L>,
        mut gradients: GradientsParams,
    ) -> TrainingModel<B, L> {
        let session = self.session.clone();
        let _present = session.present();
        let main = self.main.as_ref();
        let tells = main.is_none_or(|main| *main == module.device());
        let norm = grad_norm(&module, &gradients);
        let rates = self.begin(tells, norm);
        // The step counts once every worker has its rates: the next step's are others.
        if !session.meet() {
            return module;
        }
        // PyTorch's `clip_grad_norm_`.
        let factor = self.max_grad_norm / (norm + 1e-6);
        if self.max_grad_norm > 0.0 && factor < 1.0 {
            gradients = scaled(&module, gradients, factor);
        }
        for (group, rate) in self.groups.iter_mut().zip(rates) {
            let of_group = taken(&module, &mut gradients, &group.members);
            module = group.adamw.step(rate, module, of_group);
        }
        if tells {
            let mut monitor = lock(&self.monitor);
            monitor.finish_update(&module, &|| self.to_record(), learning_rate, norm);
        }
        // Whether the run goes on is known to all workers, or to none.
        session.meet();
        module
    }

    /// The rates of the groups at this step, whose gradients have that norm.
    fn begin(&self, tells: bool, norm: f64) -> Vec<f64> {
        let mut monitor = lock(&self.monitor);
        if tells {
            monitor.begin_update(norm);
        }
        let groups = self.groups.iter();
        groups
            .map(|group| monitor.rate(group.learning_rate))
            .collect()
    }
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> Clone for StepOptimizer<B, L> {
    fn clone(&self) -> Self {
        let groups = self.groups.iter().map(|group| OptimizedGroup {
            members: group.members.clone(),
            learning_rate: group.learning_rate,
            adamw: group.adamw.clone(),
        });
        Self {
            groups: groups.collect(),
            max_grad_norm: self.max_grad_norm,
            monitor: self.monitor.clone(),
            session: self.session.clone(),
            main: self.main.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::backend::DeviceOps;

    type Layer = Linear<TestAutodiffBackend>;

    fn layer() -> Layer {
        LinearConfig::new(2, 1).init(&device())
    }

    /// The gradients of a layer's weight, `[2, 1]`, and bias, `[1]`.
    fn gradients(layer: &Layer, weight: [f32; 2], bias: f32) -> GradientsParams {
        let mut gradients = GradientsParams::new();
        let weight = Tensor::<TestBackend, 2>::from_floats([[weight[0]], [weight[1]]], &device());
        gradients.register(layer.weight.id, weight);
        let bias = Tensor::<TestBackend, 1>::from_floats([bias], &device());
        gradients.register(bias_id(layer), bias);
        gradients
    }

    fn bias_id(layer: &Layer) -> ParamId {
        layer.bias.as_ref().unwrap().id
    }

    fn values(layer: &Layer, gradients: &GradientsParams) -> (Vec<f32>, Vec<f32>) {
        let weight = gradients.get::<TestBackend, 2>(layer.weight.id).unwrap();
        let bias = gradients.get::<TestBackend, 1>(bias_id(layer)).unwrap();
        (
            weight.into_data().to_vec().unwrap(),
            bias.into_data().to_vec().unwrap(),
        )
    }

    #[test]
    fn the_norm_is_that_of_all_gradients_together() {
        let layer = layer();
        let norm = grad_norm::<TestAutodiffBackend, _>(&layer, &gradients(&layer, [2.0, 3.0], 6.0));
        assert!((norm - 7.0).abs() < 1e-6);
        let none = grad_norm::<TestAutodiffBackend, _>(&layer, &GradientsParams::new());
        assert_eq!(none, 0.0);
    }

    #[test]
    fn scaling_scales_every_gradient() {
        let layer = layer();
        let gradients = gradients(&layer, [2.0, 3.0], 6.0);
        let scaled = scaled::<TestAutodiffBackend, _>(&layer, gradients, 0.5);
        assert_eq!(values(&layer, &scaled), (vec![1.0, 1.5], vec![3.0]));
    }

    #[test]
    fn a_group_takes_its_gradients_and_leaves_the_rest() {
        let layer = layer();
        let mut all = gradients(&layer, [2.0, 3.0], 6.0);
        let members = HashSet::from([layer.weight.id]);
        let of_group = taken::<TestAutodiffBackend, _>(&layer, &mut all, &members);
        assert_eq!((of_group.len(), all.len()), (1, 1));
        assert!(of_group.get::<TestBackend, 2>(layer.weight.id).is_some());
        assert!(all.get::<TestBackend, 1>(bias_id(&layer)).is_some());
    }

    #[test]
    fn gradients_of_several_devices_are_added_up() {
        let layer = layer();
        let id = device().id();
        let from = MultiGradientsParams {
            grads: vec![
                (gradients(&layer, [2.0, 3.0], 6.0), id),
                (gradients(&layer, [0.5, 0.0], -6.0), id),
            ],
        };
        let mut gathering = Gathering {
            from,
            to: GradientsParams::new(),
        };
        Module::<TestAutodiffBackend>::visit(&layer, &mut gathering);
        assert_eq!(values(&layer, &gathering.to), (vec![2.5, 3.0], vec![0.0]));
    }
}
