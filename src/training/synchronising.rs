//! The gradients of several devices, added up by Burn.
//!
//! Burn adds the gradients of distributed leaves up inside a backward pass, and expects as
//! many passes of every device. A step has as many as it has batches, and a cached loss more.
//! So a step's own passes start from leaves that are not distributed, and one more pass
//! follows: over a sum whose gradients are those that the step has found.

use std::collections::HashSet;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::leaves::with_distributed_leaves;
use super::session::Session;

/// The sums of the gradients that all workers found, once all have come here; none if one of
/// them does not come. In a run without such workers, the gradients as they are.
pub(super) fn added_up<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    gradients: GradientsParams,
    session: &Session,
) -> GradientsParams {
    if !session.has_workers() {
        return gradients;
    }
    session.report_gradients(found(module, &gradients));
    // Burn waits for the gradients of all devices, without end for one that has failed.
    if !session.meet() {
        return GradientsParams::new();
    }
    let own = with_distributed_leaves(module);
    let mut products = Products::<B> {
        gradients,
        of: session.with_gradients(),
        sum: None,
    };
    own.visit(&mut products);
    match products.sum {
        Some(sum) => GradientsParams::from_grads(sum.backward(), &own),
        None => GradientsParams::new(),
    }
}

/// The parameters that there are gradients of.
fn found<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    gradients: &GradientsParams,
) -> HashSet<ParamId> {
    let mut found = Found {
        gradients,
        parameters: HashSet::new(),
    };
    module.visit(&mut found);
    found.parameters
}

struct Found<'a> {
    gradients: &'a GradientsParams,
    parameters: HashSet<ParamId>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Found<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.gradients.get::<B::InnerBackend, D>(param.id).is_some() {
            self.parameters.insert(param.id);
        }
    }
}

/// The sum of parameters, each times its gradient.
struct Products<B: AutodiffBackend> {
    gradients: GradientsParams,
    of: HashSet<ParamId>,
    sum: Option<Tensor<B, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Products<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !self.of.contains(&param.id) {
            return;
        }
        let leaf = param.val();
        // Every device takes part with each of them, with nothing where it found none.
        let product = match self.gradients.remove::<B::InnerBackend, D>(param.id) {
            Some(gradient) => (leaf * Tensor::from_inner(gradient)).sum(),
            None => leaf.mul_scalar(0.0).sum(),
        };
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + product,
            None => product,
        });
    }
}
