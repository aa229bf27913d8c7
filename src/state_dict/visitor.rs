use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, backend::Backend};

use super::StateDict;
use crate::error::{Result, StateDictError};

/// Something that is done to parameters under their Hugging Face keys: loading,
/// collecting, freezing.
///
/// A layer that holds parameters walks a visitor over them; what a layer is called is
/// thus written once, for reading and for writing.
pub trait ParamVisitor<B: Backend> {
    /// Visits one parameter.
    ///
    /// # Errors
    /// What the visitor cannot do with it.
    fn visit<const D: usize>(&mut self, key: String, param: &mut Param<Tensor<B, D>>)
    -> Result<()>;
}

impl<B: Backend, V: ParamVisitor<B>> ParamVisitor<B> for &mut V {
    fn visit<const D: usize>(
        &mut self,
        key: String,
        param: &mut Param<Tensor<B, D>>,
    ) -> Result<()> {
        (**self).visit(key, param)
    }
}

/// Fills parameters from a state dict.
///
/// Missing tensors are gathered, so that the error names them all.
#[derive(Debug)]
pub struct LoadTensors<'a, B: Backend> {
    tensors: &'a mut StateDict,
    device: &'a B::Device,
    missing: Vec<String>,
}

impl<'a, B: Backend> LoadTensors<'a, B> {
    /// A visitor that takes what it loads out of `tensors`.
    pub fn new(tensors: &'a mut StateDict, device: &'a B::Device) -> Self {
        Self {
            tensors,
            device,
            missing: Vec::new(),
        }
    }

    /// Says whether all was there.
    ///
    /// # Errors
    /// [`StateDictError::Missing`] with every key that was not.
    pub fn finish(self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        Err(StateDictError::Missing {
            owner: self.tensors.owner.clone(),
            keys: self.missing,
        }
        .into())
    }
}

impl<B: Backend> ParamVisitor<B> for LoadTensors<'_, B> {
    fn visit<const D: usize>(
        &mut self,
        key: String,
        param: &mut Param<Tensor<B, D>>,
    ) -> Result<()> {
        if !self.tensors.contains(&key) {
            self.missing.push(key);
            return Ok(());
        }
        // The lazy shape and id: looking at the value would draw it.
        let tensor = self
            .tensors
            .take(&key, param.lazy_shape().dims(), self.device)?;
        *param = Param::initialized(param.id, tensor.require_grad());
        Ok(())
    }
}

/// Copies parameters into a state dict.
#[derive(Debug)]
pub struct CollectTensors<'a>(pub &'a mut StateDict);

impl<B: Backend> ParamVisitor<B> for CollectTensors<'_> {
    fn visit<const D: usize>(
        &mut self,
        key: String,
        param: &mut Param<Tensor<B, D>>,
    ) -> Result<()> {
        self.0.insert_tensor(key, param.val());
        Ok(())
    }
}

/// Says of parameters whether they are trained.
#[derive(Debug)]
pub struct SetTrainable(pub bool);

impl<B: Backend> ParamVisitor<B> for SetTrainable {
    fn visit<const D: usize>(&mut self, _: String, param: &mut Param<Tensor<B, D>>) -> Result<()> {
        *param = param.clone().set_require_grad(self.0);
        Ok(())
    }
}

/// Gathers the parameters that are trained, by key, and counts all.
#[derive(Debug, Default)]
pub struct TrainableNames {
    /// The keys and ids of the trained parameters.
    pub names: Vec<(String, ParamId)>,
    /// The number of trained values.
    pub trainable: usize,
    /// The number of all values.
    pub all: usize,
}

impl<B: Backend> ParamVisitor<B> for TrainableNames {
    fn visit<const D: usize>(
        &mut self,
        key: String,
        param: &mut Param<Tensor<B, D>>,
    ) -> Result<()> {
        let values = param.val();
        let count = values.shape().num_elements();
        self.all += count;
        if values.is_require_grad() {
            self.trainable += count;
            self.names.push((key, param.id));
        }
        Ok(())
    }
}
