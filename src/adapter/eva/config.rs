use serde::{Deserialize, Serialize};

use crate::error::{AdapterError, Result};

/// Above this `rho` no layer's rank is limited by it, but by the layer.
const RHO_THRESHOLD: f64 = 1000.0;

/// `eva_config`: how [`EvaPass`](super::EvaPass) finds a fresh adapter's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaConfig {
    /// The largest rank of a layer, in parts of its rank without redistribution; 1 keeps
    /// all ranks.
    pub rho: f64,
    /// The cosine similarity of a singular vector with the one a batch before from which
    /// on it counts as found.
    pub tau: f64,
    /// Kept for PEFT: texts to embed have no labels.
    pub use_label_mask: bool,
    /// Kept for PEFT: texts to embed have no labels.
    pub label_mask_value: i64,
    /// Whether the singular vectors are divided by the roots of their singular values.
    pub whiten: bool,
    /// Whether a layer's alpha changes as its rank does, so that its scale stays.
    pub adjust_scaling_factors: bool,
}

impl Default for EvaConfig {
    fn default() -> Self {
        Self {
            rho: 2.0,
            tau: 0.99,
            use_label_mask: true,
            label_mask_value: -100,
            whiten: false,
            adjust_scaling_factors: true,
        }
    }
}

impl EvaConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`], naming the field.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field: &str, expected: &str, found: f64| {
            Err(AdapterError::InvalidField {
                field: format!("eva_config.{field}"),
                expected: expected.to_owned(),
                found: found.to_string(),
            }
            .into())
        };
        if !(self.rho.is_finite() && self.rho >= 1.0) {
            return invalid("rho", "a number of at least 1", self.rho);
        }
        if !(0.0..=1.0).contains(&self.tau) {
            return invalid("tau", "a number in [0, 1]", self.tau);
        }
        Ok(())
    }

    /// The singular vectors to look for in a layer of rank `layer_r`, where `r` is the
    /// adapter's rank and `largest_dim` the longest side of any of the encoder's tensors.
    pub fn n_components(&self, layer_r: usize, r: usize, largest_dim: usize) -> usize {
        let rho = if self.rho > RHO_THRESHOLD {
            self.rho.min((largest_dim / r) as f64)
        } else {
            self.rho
        };
        (layer_r as f64 * rho).round_ties_even() as usize
    }

    /// A layer's alpha after its rank became `new_r`.
    pub fn adjusted_alpha(&self, alpha: f64, r: usize, new_r: usize) -> f64 {
        if self.adjust_scaling_factors && new_r != r {
            alpha * (new_r as f64 / r as f64)
        } else {
            alpha
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn missing_fields_have_peft_s_defaults() {
        let config: EvaConfig = serde_json::from_str(r#"{ "rho": 1.5, "whiten": true }"#).unwrap();
        let expected = EvaConfig {
            rho: 1.5,
            whiten: true,
            ..EvaConfig::default()
        };
        assert_eq!(config, expected);
        config.validate().unwrap();
    }

    #[test]
    fn fields_out_of_range_are_named() {
        for (field, json) in [
            ("eva_config.rho", r#"{ "rho": 0.5 }"#),
            ("eva_config.tau", r#"{ "tau": 1.5 }"#),
            ("eva_config.tau", r#"{ "tau": -0.1 }"#),
        ] {
            let error = serde_json::from_str::<EvaConfig>(json).unwrap().validate();
            assert!(
                matches!(&error, Err(Error::Adapter(AdapterError::InvalidField { field: f, .. })) if f == field),
                "{field}: {error:?}"
            );
        }
    }

    #[test]
    fn components_round_as_python_does_and_have_a_ceiling() {
        let config = |rho| EvaConfig {
            rho,
            ..EvaConfig::default()
        };
        assert_eq!(config(1.5).n_components(3, 8, 768), 4);
        assert_eq!(config(2.5).n_components(3, 8, 768), 8);
        assert_eq!(config(2.5).n_components(1, 8, 768), 2);
        assert_eq!(config(1001.0).n_components(4, 8, 768), 384);
        assert_eq!(config(1000.0).n_components(4, 8, 768), 4000);
    }

    #[test]
    fn the_alpha_follows_the_rank_unless_told_not_to() {
        let config = EvaConfig::default();
        assert_eq!(config.adjusted_alpha(16.0, 8, 12), 24.0);
        let fixed = EvaConfig {
            adjust_scaling_factors: false,
            ..config
        };
        assert_eq!(fixed.adjusted_alpha(16.0, 8, 12), 16.0);
    }
}
