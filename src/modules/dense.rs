use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::activation::ACTIVATION_NAMES;
use super::{DenseActivation, SENTENCE_EMBEDDING};
use crate::error::{ModuleError, Result};
use crate::kernel::{Activation, LinearParams, Mode, PackedWeight, linear};
use crate::state_dict::{LoadTensors, ParamVisitor, StateDict};

/// `2_Dense/config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DenseConfig {
    /// The size of the input embedding.
    pub in_features: usize,
    /// The size of the output embedding.
    pub out_features: usize,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub bias: bool,
    /// The activation's Python path.
    #[serde(default = "tanh")]
    pub activation_function: String,
    /// What the module reads.
    #[serde(
        default = "sentence_embedding",
        skip_serializing_if = "is_sentence_embedding"
    )]
    pub module_input_name: String,
    /// What the module writes; by default what it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_output_name: Option<String>,
    /// Whether the input is added to the output: as it is, or through a layer of its own where
    /// the sizes differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_residual: bool,
}

fn yes() -> bool {
    true
}

fn tanh() -> String {
    DenseActivation::Fused(Activation::Tanh).path()
}

fn sentence_embedding() -> String {
    SENTENCE_EMBEDDING.to_owned()
}

fn is_sentence_embedding(name: &str) -> bool {
    name == SENTENCE_EMBEDDING
}

impl DenseConfig {
    /// A layer with bias and tanh, as Python's default.
    pub fn new(in_features: usize, out_features: usize) -> Self {
        Self {
            in_features,
            out_features,
            bias: true,
            activation_function: tanh(),
            module_input_name: sentence_embedding(),
            module_output_name: None,
            use_residual: false,
        }
    }

    /// The same layer with another activation.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation_function = DenseActivation::Fused(activation).path();
        self
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`ModuleError::Malformed`], [`ModuleError::UnknownActivation`] or
    /// [`ModuleError::UnsupportedField`].
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let mut config: Self =
            serde_json::from_value(Value::Object(fields.clone())).map_err(|source| {
                ModuleError::Malformed {
                    module: "Dense",
                    source,
                }
            })?;
        // Written without what it need not say, it loads in releases that do not know the field.
        config
            .module_output_name
            .take_if(|name| *name == config.module_input_name);
        if config.activation()? == DenseActivation::Glu
            && (config.use_residual || !config.out_features.is_multiple_of(2))
        {
            // Half of the output is no sum with the input, and of an odd size there is no half.
            return Err(ModuleError::UnsupportedField {
                module: "Dense",
                field: "activation_function",
                found: format!(
                    "{} with out_features {} and use_residual {}",
                    config.activation_function, config.out_features, config.use_residual
                ),
            }
            .into());
        }
        Ok(config)
    }

    /// What the module writes.
    pub fn output_name(&self) -> &str {
        let output = self.module_output_name.as_deref();
        output.unwrap_or(&self.module_input_name)
    }

    /// The activation.
    ///
    /// # Errors
    /// [`ModuleError::UnknownActivation`].
    pub fn activation(&self) -> Result<DenseActivation> {
        let known = DenseActivation::from_path(&self.activation_function);
        Ok(known.ok_or_else(|| ModuleError::UnknownActivation {
            found: self.activation_function.clone(),
            known: ACTIVATION_NAMES,
        })?)
    }

    /// The size of what comes out.
    pub fn output_dim(&self) -> usize {
        match self.activation() {
            Ok(DenseActivation::Glu) => self.out_features / 2,
            _ => self.out_features,
        }
    }

    /// A layer with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Dense<B> {
        let bound = (self.in_features as f64).sqrt().recip();
        let uniform = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        // `from_json` has checked the name; one set by hand falls back to Python's.
        let tanh = DenseActivation::Fused(Activation::Tanh);
        let activation = self.activation().unwrap_or(tanh);
        let has_residual = self.use_residual && self.in_features != self.out_features;
        let slope = Initializer::Constant { value: 0.25 };
        Dense {
            weight: uniform.init([self.out_features, self.in_features], device),
            bias: self.bias.then(|| uniform.init([self.out_features], device)),
            residual: has_residual
                .then(|| uniform.init([self.out_features, self.in_features], device)),
            slope: (activation == DenseActivation::PRelu).then(|| slope.init([1], device)),
            activation,
            packed: PackedWeight::default(),
            packed_residual: PackedWeight::default(),
            config: self.clone(),
        }
    }

    /// A layer with the weights of a state dict.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(
        &self,
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<Dense<B>> {
        let mut dense = self.init(device);
        let mut visitor = LoadTensors::new(tensors, device);
        dense.visit_params("", &mut visitor)?;
        visitor.finish()?;
        Ok(dense)
    }
}

/// A linear layer with an activation, on sentence or token embeddings.
#[derive(Module, Debug)]
pub struct Dense<B: Backend> {
    /// `[out_features, in_features]`
    weight: Param<Tensor<B, 2>>,
    /// `[out_features]`
    bias: Option<Param<Tensor<B, 1>>>,
    /// `[out_features, in_features]`, for a residual of another size.
    residual: Option<Param<Tensor<B, 2>>>,
    /// `[1]`, PReLU's.
    slope: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    activation: DenseActivation,
    #[module(skip)]
    packed: PackedWeight,
    #[module(skip)]
    packed_residual: PackedWeight,
    #[module(skip)]
    config: DenseConfig,
}

impl<B: Backend> Dense<B> {
    /// The configuration.
    pub fn config(&self) -> &DenseConfig {
        &self.config
    }

    /// Applies the layer and its activation, and adds the input where the layer says so.
    ///
    /// # Shapes
    /// - input: `[rows, in_features]`
    /// - output: `[rows, out_features]`
    pub fn forward(&self, input: Tensor<B, 2>, mode: Mode) -> Tensor<B, 2> {
        let params = LinearParams {
            weight: self.weight.val(),
            bias: self.bias.as_ref().map(|bias| bias.val()),
            packed: &self.packed,
        };
        let fused = self.activation.fused();
        let added = self.config.use_residual.then(|| input.clone());
        let output = linear(input, params, Vec::new(), fused, Mode::Inference);
        let slope = self.slope.as_ref().map(|slope| slope.val());
        let output = self.activation.forward(output, slope, mode);
        match (added, &self.residual) {
            (None, _) => output,
            (Some(input), None) => output + input,
            (Some(input), Some(residual)) => {
                let params = LinearParams {
                    weight: residual.val(),
                    bias: None,
                    packed: &self.packed_residual,
                };
                let identity = Activation::Identity;
                output + linear(input, params, Vec::new(), identity, Mode::Inference)
            }
        }
    }

    /// Visits the parameters, keyed behind `path`.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}linear.weight"), &mut self.weight)?;
        if let Some(bias) = &mut self.bias {
            visitor.visit(format!("{path}linear.bias"), bias)?;
        }
        if let Some(residual) = &mut self.residual {
            visitor.visit(format!("{path}residual.weight"), residual)?;
        }
        match &mut self.slope {
            Some(slope) => visitor.visit(format!("{path}activation_function.weight"), slope),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use serde_json::json;

    fn parse(json: Value) -> Result<DenseConfig> {
        match json {
            Value::Object(fields) => DenseConfig::from_json(&fields),
            _ => unreachable!(),
        }
    }

    #[test]
    fn python_s_defaults_apply() {
        let config = parse(json!({ "in_features": 4, "out_features": 2 })).unwrap();
        assert_eq!(config, DenseConfig::new(4, 2));
    }

    #[test]
    fn what_would_change_the_output_is_refused_by_name() {
        let with = |fields: Value| {
            let mut all = json!({ "in_features": 4, "out_features": 3 });
            for (field, value) in fields.as_object().unwrap() {
                all[field] = value.clone();
            }
            parse(all).unwrap_err()
        };
        for path in ["my.Mish", "torch.nn.modules.activation.Softmax2d"] {
            let error = with(json!({ "activation_function": path }));
            assert!(
                matches!(&error, Error::Module(ModuleError::UnknownActivation { found, .. }) if found == path)
            );
        }
        let glu = "torch.nn.modules.activation.GLU";
        for fields in [
            json!({ "activation_function": glu }),
            json!({ "activation_function": glu, "out_features": 4, "use_residual": true }),
        ] {
            let error = with(fields);
            assert!(matches!(
                error,
                Error::Module(ModuleError::UnsupportedField {
                    field: "activation_function",
                    ..
                })
            ));
        }
    }

    #[test]
    fn what_is_not_out_of_the_ordinary_is_not_written() {
        let json = serde_json::to_value(DenseConfig::new(4, 2)).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            ["in_features", "out_features", "bias", "activation_function"]
        );
        let config = DenseConfig {
            module_input_name: "token_embeddings".to_owned(),
            module_output_name: Some("x".to_owned()),
            use_residual: true,
            ..DenseConfig::new(4, 2)
        };
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(parse(json).unwrap(), config);
        assert_eq!(config.output_name(), "x");
    }
}
