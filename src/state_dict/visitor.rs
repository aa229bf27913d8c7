use std::fmt;

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
    loaded: Vec<String>,
    missing: Vec<String>,
    mismatched: Vec<ShapeMismatch>,
}

/// A tensor that has not the shape of the parameter it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Its key.
    pub key: String,
    /// The parameter's shape.
    pub expected: Vec<usize>,
    /// The tensor's shape.
    pub found: Vec<usize>,
}

/// What became of parameters that were to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadedKeys {
    /// Those that were.
    pub loaded: Vec<String>,
    /// Those that there were no tensors for.
    pub missing: Vec<String>,
    /// Those whose tensors have another shape.
    pub mismatched: Vec<ShapeMismatch>,
}

impl<'a, B: Backend> LoadTensors<'a, B> {
    /// A visitor that takes what it loads out of `tensors`.
    pub fn new(tensors: &'a mut StateDict, device: &'a B::Device) -> Self {
        Self {
            tensors,
            device,
            loaded: Vec::new(),
            missing: Vec::new(),
            mismatched: Vec::new(),
        }
    }

    /// Says whether all was there, and as it was expected.
    ///
    /// # Errors
    /// [`StateDictError::Missing`] with every key that was not, or
    /// [`StateDictError::ShapeMismatch`].
    pub fn finish(self) -> Result<LoadedKeys> {
        let owner = self.tensors.owner.clone();
        if !self.missing.is_empty() {
            let keys = self.missing;
            return Err(StateDictError::Missing { owner, keys }.into());
        }
        match self.mismatched.first().cloned() {
            None => Ok(self.into_keys()),
            Some(ShapeMismatch {
                key,
                expected,
                found,
            }) => Err(StateDictError::ShapeMismatch {
                owner,
                key,
                expected,
                found,
            }
            .into()),
        }
    }

    /// What became of the parameters; those that were not loaded are as they were.
    pub fn into_keys(self) -> LoadedKeys {
        LoadedKeys {
            loaded: self.loaded,
            missing: self.missing,
            mismatched: self.mismatched,
        }
    }
}

impl<B: Backend> ParamVisitor<B> for LoadTensors<'_, B> {
    fn visit<const D: usize>(
        &mut self,
        key: String,
        param: &mut Param<Tensor<B, D>>,
    ) -> Result<()> {
        // The lazy shape and id: looking at the value would draw it.
        let shape: [usize; D] = param.lazy_shape().dims();
        let Some(data) = self.tensors.get(&key) else {
            self.missing.push(key);
            return Ok(());
        };
        if data.shape[..] != shape {
            let found = data.shape.to_vec();
            let expected = shape.to_vec();
            // It is somebody's tensor, if not one that fits.
            self.tensors.remove(&key);
            self.mismatched.push(ShapeMismatch {
                key,
                expected,
                found,
            });
            return Ok(());
        }
        let tensor = self.tensors.take(&key, shape, self.device)?;
        *param = Param::initialized(param.id, tensor.require_grad());
        self.loaded.push(key);
        Ok(())
    }
}

/// Visits parameters under keys with something in front.
#[derive(Debug)]
pub struct WithPrefix<'a, V> {
    /// What stands in front.
    pub prefix: &'a str,
    /// Who visits.
    pub visitor: V,
}

impl<B: Backend, V: ParamVisitor<B>> ParamVisitor<B> for WithPrefix<'_, V> {
    fn visit<const D: usize>(
        &mut self,
        key: String,
        param: &mut Param<Tensor<B, D>>,
    ) -> Result<()> {
        self.visitor.visit(format!("{}{key}", self.prefix), param)
    }
}

/// Draws the parameters that are drawn only when they are first used.
#[derive(Debug)]
pub struct DrawParams;

impl<B: Backend> ParamVisitor<B> for DrawParams {
    fn visit<const D: usize>(&mut self, _: String, param: &mut Param<Tensor<B, D>>) -> Result<()> {
        param.val();
        Ok(())
    }
}

/// Finds a parameter that holds NaN or infinity.
#[derive(Debug, Default)]
pub struct FindNotFinite(pub Option<String>);

impl<B: Backend> ParamVisitor<B> for FindNotFinite {
    fn visit<const D: usize>(
        &mut self,
        key: String,
        param: &mut Param<Tensor<B, D>>,
    ) -> Result<()> {
        let is_finite = |values: Tensor<B, D>| {
            let all = values.is_finite().all().into_data();
            all.iter::<bool>().all(|is_finite| is_finite)
        };
        if self.0.is_none() && !is_finite(param.val()) {
            self.0 = Some(key);
        }
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

impl TrainableNames {
    /// The share of the trained values in all, in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.trainable as f64 / self.all.max(1) as f64
    }
}

/// As PEFT prints it: `trainable params: 589,824 || all params: 23,303,040 || trainable%: 2.5311`.
impl fmt::Display for TrainableNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "trainable params: {} || all params: {} || trainable%: {:.4}",
            in_thousands(self.trainable),
            in_thousands(self.all),
            self.percent()
        )
    }
}

/// A count with its thousands set apart.
fn in_thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_as_peft_writes_them() {
        let names = TrainableNames {
            names: Vec::new(),
            trainable: 589_824,
            all: 23_303_040,
        };
        assert_eq!(
            names.to_string(),
            "trainable params: 589,824 || all params: 23,303,040 || trainable%: 2.5311"
        );
        assert_eq!(in_thousands(1_000), "1,000");
        assert_eq!(TrainableNames::default().percent(), 0.0);
    }
}
