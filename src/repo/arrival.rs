use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, backend::Backend, s};

use crate::error::Result;
use crate::kernel::{finish, is_asynchronous};
use crate::model::SentenceTransformer;

/// Checks that a device has taken all of a model's weights.
///
/// A device that computes behind the calling thread is asked for a value of each, as it only
/// says of what it computes that it could not.
///
/// # Errors
/// [`DeviceError`](crate::error::DeviceError) if its memory does not suffice.
pub(super) fn check_arrival<B: Backend>(
    model: &SentenceTransformer<B>,
    device: &B::Device,
) -> Result<()> {
    if !is_asynchronous::<B>() {
        return Ok(());
    }
    let mut firsts = Firsts::<B>(Vec::new());
    model.visit(&mut firsts);
    if !firsts.0.is_empty() {
        // Held until then, as what nobody holds need not be computed.
        let values = Tensor::cat(firsts.0, 0);
        finish::<B>(device, "loading the model", || {
            "a smaller model takes less".to_owned()
        })?;
        drop(values);
    }
    Ok(())
}

/// The first value of each parameter.
struct Firsts<B: Backend>(Vec<Tensor<B, 1>>);

impl<B: Backend> ModuleVisitor<B> for Firsts<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let values = param.val().detach();
        if values.shape().num_elements() > 0 {
            self.0.push(values.reshape([-1]).slice(s![0..1]));
        }
    }
}
