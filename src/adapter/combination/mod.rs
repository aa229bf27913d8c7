//! Several adapters become one: PEFT's `add_weighted_adapter`.
//!
//! [`WeightedCombination`] checks the whole call first and then combines layer after
//! layer. The new adapter's alpha is its rank, and its scale one, so its configuration
//! has no `rank_pattern`, no `alpha_pattern` and no `use_rslora`.
//!
//! Source: `add_weighted_adapter` in `tuners/lora/model.py` and `utils/merge_utils.py` of
//! PEFT.

mod clamping;
mod merging;
mod method;
mod pruning;
mod weighted;

pub use merging::MajoritySignMethod;
pub use method::Combination;
pub use weighted::{CombinationOptions, LayerFactors, WeightedCombination};
