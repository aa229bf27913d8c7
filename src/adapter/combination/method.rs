use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{AdapterError, Error, Result};

/// How adapters become one: `combination_type` of PEFT's `add_weighted_adapter`.
///
/// The methods whose name ends in `_svd` work on the layers' updates `s · B · A` and
/// decompose the result; the others work on A and on B alone, which is quick and rough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combination {
    /// The best update of the new rank for the weighted sum of the updates.
    #[default]
    Svd,
    /// The sum of the As and the sum of the Bs, each weighted by the root.
    Linear,
    /// The As and the Bs side by side: exactly the weighted sum, of the ranks' sum.
    Cat,
    /// Prune the smallest, elect signs, average (<https://arxiv.org/abs/2306.01708>).
    Ties,
    /// [`Ties`](Self::Ties) on the updates.
    TiesSvd,
    /// Prune at random and rescale, add (<https://arxiv.org/abs/2311.03099>).
    DareLinear,
    /// Prune at random and rescale, elect signs, average.
    DareTies,
    /// [`DareLinear`](Self::DareLinear) on the updates.
    DareLinearSvd,
    /// [`DareTies`](Self::DareTies) on the updates.
    DareTiesSvd,
    /// Prune the smallest, add.
    MagnitudePrune,
    /// [`MagnitudePrune`](Self::MagnitudePrune) on the updates.
    MagnitudePruneSvd,
}

/// What a method does: its pruning, its merging and what they work on.
pub(super) struct Method {
    pub(super) space: Space,
    pub(super) pruning: Option<Pruning>,
    /// Whether signs are elected.
    pub(super) elects: bool,
}

/// What a method works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// A and B, each alone.
    Factors,
    /// A and B, side by side.
    Concatenation,
    /// The updates.
    Updates,
}

/// Which values a method drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pruning {
    Smallest,
    Random,
}

impl Combination {
    /// Every method.
    pub const ALL: [Self; 11] = [
        Self::Svd,
        Self::Linear,
        Self::Cat,
        Self::Ties,
        Self::TiesSvd,
        Self::DareLinear,
        Self::DareTies,
        Self::DareLinearSvd,
        Self::DareTiesSvd,
        Self::MagnitudePrune,
        Self::MagnitudePruneSvd,
    ];

    /// PEFT's name of the method.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svd => "svd",
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Ties => "ties",
            Self::TiesSvd => "ties_svd",
            Self::DareLinear => "dare_linear",
            Self::DareTies => "dare_ties",
            Self::DareLinearSvd => "dare_linear_svd",
            Self::DareTiesSvd => "dare_ties_svd",
            Self::MagnitudePrune => "magnitude_prune",
            Self::MagnitudePruneSvd => "magnitude_prune_svd",
        }
    }

    pub(super) fn method(self) -> Method {
        let space = match self {
            Self::Cat => Space::Concatenation,
            Self::Linear
            | Self::Ties
            | Self::DareLinear
            | Self::DareTies
            | Self::MagnitudePrune => Space::Factors,
            Self::Svd
            | Self::TiesSvd
            | Self::DareLinearSvd
            | Self::DareTiesSvd
            | Self::MagnitudePruneSvd => Space::Updates,
        };
        let pruning = match self {
            Self::Svd | Self::Linear | Self::Cat => None,
            Self::Ties | Self::TiesSvd | Self::MagnitudePrune | Self::MagnitudePruneSvd => {
                Some(Pruning::Smallest)
            }
            Self::DareLinear | Self::DareTies | Self::DareLinearSvd | Self::DareTiesSvd => {
                Some(Pruning::Random)
            }
        };
        let elects = matches!(
            self,
            Self::Ties | Self::TiesSvd | Self::DareTies | Self::DareTiesSvd
        );
        Method {
            space,
            pruning,
            elects,
        }
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Combination {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|method| method.name() == name);
        known.ok_or_else(|| {
            AdapterError::InvalidOption {
                option: "combination_type",
                expected: format!("one of {:?}", Self::ALL.map(Self::name)),
                found: format!("`{name}`"),
            }
            .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_peft_s_everywhere() {
        for method in Combination::ALL {
            assert_eq!(method.name().parse::<Combination>().unwrap(), method);
            let json = serde_json::to_string(&method).unwrap();
            assert_eq!(json, format!("\"{method}\""));
            let on_updates = method.method().space == Space::Updates;
            assert_eq!(on_updates, method.name().ends_with("svd"));
        }
        let error = "average".parse::<Combination>().unwrap_err().to_string();
        assert!(
            error.contains("`average`") && error.contains("dare_ties"),
            "{error}"
        );
    }
}
