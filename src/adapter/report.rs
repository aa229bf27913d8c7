use crate::state_dict::ShapeMismatch;

/// What became of the tensors of an adapter's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdapterLoadReport {
    /// The layers that the adapter is on.
    pub adapted_layers: Vec<String>,
    /// The keys that were loaded.
    pub loaded: Vec<String>,
    /// The keys that the file lacks; those weights are fresh.
    pub missing: Vec<String>,
    /// The keys of tensors that belong to no adapted layer; they are not used.
    pub unexpected: Vec<String>,
    /// The tensors that have another shape than their layers; those weights are fresh.
    pub mismatched: Vec<ShapeMismatch>,
}

impl AdapterLoadReport {
    /// Whether every weight of the adapter was loaded.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty()
    }
}
