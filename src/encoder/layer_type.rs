use serde::{Deserialize, Serialize};

use super::fields::invalid;
use crate::error::Result;

/// Which tokens a layer's attention reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// All of the text.
    FullAttention,
    /// Those within a window around each token.
    SlidingAttention,
}

impl LayerType {
    /// The types of a model's layers: those its configuration lists, or by the
    /// architecture's rule, which says of a layer whether it slides.
    ///
    /// # Errors
    /// [`EncoderError::InvalidField`](crate::error::EncoderError) where the list is of
    /// another length.
    pub(super) fn of_layers(
        listed: Option<&[Self]>,
        layers: usize,
        slides: impl Fn(usize) -> bool,
    ) -> Result<Vec<Self>> {
        match listed {
            Some(listed) if listed.len() == layers => Ok(listed.to_vec()),
            Some(listed) => Err(invalid(
                "layer_types",
                format!("one for each of {layers} layers"),
                format!("{} long", listed.len()),
            )),
            None => Ok((0..layers)
                .map(|layer| match slides(layer) {
                    true => Self::SlidingAttention,
                    false => Self::FullAttention,
                })
                .collect()),
        }
    }
}
