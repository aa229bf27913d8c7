use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{ModuleError, Result};
use crate::kernel::{Activation, LinearParams, Mode, PackedWeight, linear};
use crate::state_dict::{LoadTensors, ParamVisitor, StateDict};

/// The activations a Dense module can have, by their Python path.
const ACTIVATIONS: [(&str, Activation); 6] = [
    ("torch.nn.modules.activation.Tanh", Activation::Tanh),
    ("torch.nn.modules.linear.Identity", Activation::Identity),
    ("torch.nn.modules.activation.GELU", Activation::Gelu),
    ("torch.nn.modules.activation.ReLU", Activation::Relu),
    ("torch.nn.modules.activation.SiLU", Activation::Silu),
    ("torch.nn.modules.activation.Sigmoid", Activation::Sigmoid),
];

const ACTIVATION_NAMES: &[&str] = &["Tanh", "Identity", "GELU", "ReLU", "SiLU", "Sigmoid"];

/// What a module reads and writes here: the sentence embedding.
const SENTENCE_EMBEDDING: &str = "sentence_embedding";

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
    #[serde(default = "sentence_embedding")]
    pub module_input_name: String,
    /// What the module writes; by default what it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_output_name: Option<String>,
    /// Whether the input is added to the output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_residual: bool,
}

fn yes() -> bool {
    true
}

fn tanh() -> String {
    ACTIVATIONS[0].0.to_owned()
}

fn sentence_embedding() -> String {
    SENTENCE_EMBEDDING.to_owned()
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
        if let Some((path, _)) = ACTIVATIONS.iter().find(|(_, known)| *known == activation) {
            self.activation_function = (*path).to_owned();
        }
        self
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`ModuleError::Malformed`], [`ModuleError::UnknownActivation`] or
    /// [`ModuleError::UnsupportedField`].
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config: Self =
            serde_json::from_value(Value::Object(fields.clone())).map_err(|source| {
                ModuleError::Malformed {
                    module: "Dense",
                    source,
                }
            })?;
        let unsupported = |field, found: &str| {
            Err(ModuleError::UnsupportedField {
                module: "Dense",
                field,
                found: found.to_owned(),
            }
            .into())
        };
        if config.module_input_name != SENTENCE_EMBEDDING {
            return unsupported("module_input_name", &config.module_input_name);
        }
        if let Some(output) = config.module_output_name.as_deref()
            && output != SENTENCE_EMBEDDING
        {
            return unsupported("module_output_name", output);
        }
        if config.use_residual {
            return unsupported("use_residual", "true");
        }
        config.activation().map(|_| config)
    }

    fn activation(&self) -> Result<Activation> {
        let known = ACTIVATIONS
            .iter()
            .find(|(path, _)| *path == self.activation_function);
        Ok(known.map(|&(_, activation)| activation).ok_or_else(|| {
            ModuleError::UnknownActivation {
                found: self.activation_function.clone(),
                known: ACTIVATION_NAMES,
            }
        })?)
    }

    /// A layer with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Dense<B> {
        let bound = (self.in_features as f64).sqrt().recip();
        let uniform = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        Dense {
            weight: uniform.init([self.out_features, self.in_features], device),
            bias: self.bias.then(|| uniform.init([self.out_features], device)),
            // `from_json` has checked the name; one set by hand falls back to Python's.
            activation: self.activation().unwrap_or(Activation::Tanh),
            packed: PackedWeight::default(),
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

/// A linear layer with an activation on the sentence embedding.
#[derive(Module, Debug)]
pub struct Dense<B: Backend> {
    /// `[out_features, in_features]`
    weight: Param<Tensor<B, 2>>,
    /// `[out_features]`
    bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    packed: PackedWeight,
    #[module(skip)]
    config: DenseConfig,
}

impl<B: Backend> Dense<B> {
    /// The configuration.
    pub fn config(&self) -> &DenseConfig {
        &self.config
    }

    /// Applies the layer and its activation.
    ///
    /// # Shapes
    /// - input: `[texts, in_features]`
    /// - output: `[texts, out_features]`
    pub fn forward(&self, sentences: Tensor<B, 2>) -> Tensor<B, 2> {
        let params = LinearParams {
            weight: self.weight.val(),
            bias: self.bias.as_ref().map(|bias| bias.val()),
            packed: &self.packed,
        };
        linear(
            sentences,
            params,
            Vec::new(),
            self.activation,
            Mode::Inference,
        )
    }

    /// Visits the parameters, keyed behind `path`.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}linear.weight"), &mut self.weight)?;
        match &mut self.bias {
            Some(bias) => visitor.visit(format!("{path}linear.bias"), bias),
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
        let with = |field: &str, value: Value| {
            let mut fields = json!({ "in_features": 4, "out_features": 2 });
            fields[field] = value;
            parse(fields).unwrap_err()
        };
        let error = with(
            "activation_function",
            json!("torch.nn.modules.activation.Mish"),
        );
        assert!(matches!(
            error,
            Error::Module(ModuleError::UnknownActivation { .. })
        ));
        for (field, value) in [
            ("module_input_name", json!("token_embeddings")),
            ("module_output_name", json!("projection")),
            ("use_residual", json!(true)),
        ] {
            let error = with(field, value);
            assert!(
                matches!(&error, Error::Module(ModuleError::UnsupportedField { field: f, .. }) if *f == field)
            );
        }
    }
}
