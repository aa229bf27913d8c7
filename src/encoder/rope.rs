use serde::{Deserialize, Serialize};

use super::LayerType;
use super::fields::invalid;
use crate::error::Result;

/// `rope_parameters`, or `rope_scaling` as it was called: how positions are turned into
/// angles, for all layers or for each type of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct RopeParameters {
    #[serde(alias = "type")]
    pub rope_type: Option<String>,
    pub rope_theta: Option<f64>,
    pub factor: Option<f64>,
    pub partial_rotary_factor: Option<f64>,
    pub full_attention: Option<Box<RopeParameters>>,
    pub sliding_attention: Option<Box<RopeParameters>>,
}

impl RopeParameters {
    /// The parameters of one type of layer.
    pub(super) fn of(&self, layer_type: LayerType) -> Option<&Self> {
        let nested = match layer_type {
            LayerType::FullAttention => &self.full_attention,
            LayerType::SlidingAttention => &self.sliding_attention,
        };
        nested.as_deref()
    }
}

/// How positions are turned into angles: rotary embedding's base, and what its
/// frequencies are divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rope {
    theta: f64,
    factor: f64,
}

impl Rope {
    /// The frequencies of the paper.
    pub(super) fn plain(theta: f64) -> Self {
        Self { theta, factor: 1.0 }
    }

    /// What the first of these that says something says, with `theta` where none has a
    /// base.
    ///
    /// # Errors
    /// [`EncoderError::InvalidField`](crate::error::EncoderError) for a type other than
    /// `default` and `linear`, and for embedding that leaves some dimensions unturned.
    pub(super) fn new(sources: &[Option<&RopeParameters>], theta: f64) -> Result<Self> {
        let mut found = RopeParameters::default();
        for source in sources.iter().flatten() {
            found.rope_type = found.rope_type.or_else(|| source.rope_type.clone());
            found.rope_theta = found.rope_theta.or(source.rope_theta);
            found.factor = found.factor.or(source.factor);
            found.partial_rotary_factor =
                found.partial_rotary_factor.or(source.partial_rotary_factor);
        }
        let theta = found.rope_theta.unwrap_or(theta);
        if theta <= 0.0 {
            return Err(invalid("rope_theta", "above 0", theta));
        }
        if let Some(share) = found.partial_rotary_factor.filter(|share| *share != 1.0) {
            return Err(invalid("partial_rotary_factor", "1", share));
        }
        let factor = match (found.rope_type.as_deref(), found.factor) {
            (None | Some("default"), _) => 1.0,
            (Some("linear"), Some(factor)) if factor > 0.0 => factor,
            (Some("linear"), found) => {
                return Err(invalid("factor", "above 0", found.unwrap_or_default()));
            }
            (Some(other), _) => return Err(invalid("rope_type", "default or linear", other)),
        };
        Ok(Self { theta, factor })
    }

    /// The frequency of each pair of a head's dimensions: `θ^(-2i / head_dim) / factor`.
    ///
    /// Rounded to single precision where the reference rounds: thousands of tokens on, the
    /// angles tell.
    pub(super) fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let theta = f64::from(self.theta as f32);
        (0..head_dim / 2)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / head_dim as f32;
                let power = theta.powf(exponent.into()) as f32;
                power.recip() / self.factor as f32
            })
            .collect()
    }
}

/// Checks that a head's dimensions go in pairs.
pub(super) fn require_even(field: &'static str, head_dim: usize) -> Result<()> {
    match head_dim.is_multiple_of(2) {
        true => Ok(()),
        false => Err(invalid(field, "such that heads are even", head_dim)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{EncoderError, Error};
    use serde_json::json;

    fn parameters(json: serde_json::Value) -> RopeParameters {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_first_that_says_something_counts() {
        let scaling = parameters(json!({ "type": "linear", "factor": 8.0 }));
        let nested = parameters(json!({
            "full_attention": { "rope_type": "default", "rope_theta": 1e6 },
            "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 },
        }));
        let full = nested.of(LayerType::FullAttention);
        let rope = Rope::new(&[Some(&scaling), full], 5.0).unwrap();
        assert_eq!((rope.theta, rope.factor), (1e6, 8.0));
        let rope = Rope::new(&[None, nested.of(LayerType::SlidingAttention)], 5.0).unwrap();
        assert_eq!((rope.theta, rope.factor), (1e4, 1.0));
        let rope = Rope::new(&[None], 5.0).unwrap();
        assert_eq!((rope.theta, rope.factor), (5.0, 1.0));
    }

    #[test]
    fn frequencies_are_powers_of_the_base() {
        let frequencies = |factor: f64| Rope { theta: 1e4, factor }.frequencies(6);
        assert_eq!(frequencies(1.0), [1.0, 0.046415884, 0.0021544343]);
        assert_eq!(frequencies(2.0), [0.5, 0.023207942, 0.0010772172]);
    }

    #[test]
    fn other_ways_to_turn_are_named() {
        for (json, named) in [
            (json!({ "rope_type": "yarn", "factor": 4.0 }), "rope_type"),
            (json!({ "rope_type": "linear" }), "factor"),
            (json!({ "rope_theta": 0.0 }), "rope_theta"),
            (
                json!({ "partial_rotary_factor": 0.5 }),
                "partial_rotary_factor",
            ),
        ] {
            let error = Rope::new(&[Some(&parameters(json))], 1e4).unwrap_err();
            assert!(
                matches!(&error, Error::Encoder(EncoderError::InvalidField { field, .. })
                    if *field == named),
                "{error}"
            );
        }
    }
}
