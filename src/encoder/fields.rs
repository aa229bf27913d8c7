//! Reading and checking the fields of a `config.json`.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{EncoderError, Error, Result};
use crate::kernel::Activation;

/// Reads the fields that an architecture knows; others are left alone.
pub(super) fn read_fields<T: DeserializeOwned>(fields: &Map<String, Value>) -> Result<T> {
    let config = serde_json::from_value(Value::Object(fields.clone()));
    Ok(config.map_err(|source| EncoderError::Malformed { source })?)
}

/// A field that holds what the architecture cannot have.
pub(super) fn invalid(
    field: &'static str,
    expected: impl Into<String>,
    found: impl Display,
) -> Error {
    EncoderError::InvalidField {
        field,
        expected: expected.into(),
        found: found.to_string(),
    }
    .into()
}

/// More than any size is, and little enough that no product of two sizes overflows.
const LARGEST: usize = 1 << 24;

/// Checks that each of these is the size of something.
pub(super) fn require_sizes(fields: &[(&'static str, usize)]) -> Result<()> {
    let is_size = |value: &usize| (1..=LARGEST).contains(value);
    match fields.iter().find(|(_, value)| !is_size(value)) {
        Some((field, value)) => Err(invalid(field, format!("from 1 to {LARGEST}"), value)),
        None => Ok(()),
    }
}

/// More layers than any encoder has, and few enough that a made-up number of them does not fill
/// the memory before their weights turn out to be missing.
const MOST_LAYERS: usize = 1 << 10;

/// Checks that each of these is a number of layers.
pub(super) fn require_layers(fields: &[(&'static str, usize)]) -> Result<()> {
    match fields.iter().find(|(_, layers)| *layers > MOST_LAYERS) {
        Some((field, layers)) => Err(invalid(field, format!("at most {MOST_LAYERS}"), layers)),
        None => Ok(()),
    }
}

/// Checks that what a norm adds to a variance leaves it one whose root there is.
pub(super) fn require_epsilon(field: &'static str, value: f64) -> Result<()> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(invalid(field, "a finite number from 0", value)),
    }
}

/// Checks that each of these is a probability below 1.
pub(super) fn require_probabilities(fields: &[(&'static str, f64)]) -> Result<()> {
    let is_valid = |value: &f64| (0.0..1.0).contains(value);
    match fields.iter().find(|(_, value)| !is_valid(value)) {
        Some((field, value)) => Err(invalid(field, "a probability in [0, 1)", value)),
        None => Ok(()),
    }
}

/// Checks that a size can be shared out to that many heads.
pub(super) fn require_multiple(field: &'static str, value: usize, heads: usize) -> Result<()> {
    if value.is_multiple_of(heads) {
        return Ok(());
    }
    Err(invalid(
        field,
        format!("a multiple of {heads} heads"),
        value,
    ))
}

/// Checks a field that says what this crate does not compute otherwise.
pub(super) fn require_unset(field: &'static str, is_set: bool) -> Result<()> {
    match is_set {
        true => Err(invalid(field, "false", true)),
        false => Ok(()),
    }
}

/// Checks that positions are told by absolute embeddings, where a field says by what.
pub(super) fn require_absolute_positions(found: Option<&str>) -> Result<()> {
    match found {
        None | Some("absolute") => Ok(()),
        Some(other) => Err(invalid("position_embedding_type", "absolute", other)),
    }
}

/// The activation of that name in `transformers`.
pub(super) fn activation(field: &'static str, name: &str) -> Result<Activation> {
    match name {
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" => {
            Ok(Activation::GeluTanh)
        }
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        "sigmoid" => Ok(Activation::Sigmoid),
        "linear" => Ok(Activation::Identity),
        other => Err(invalid(
            field,
            "gelu, gelu_python, gelu_new, gelu_fast, gelu_pytorch_tanh, gelu_python_tanh, relu, \
             silu, swish, tanh, sigmoid or linear",
            other,
        )),
    }
}
