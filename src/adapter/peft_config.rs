use std::collections::BTreeMap;
use std::fmt::Display;

use indexmap::IndexMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    AdaLoraConfig, Ia3Config, InitLoraWeights, InitScheme, LohaConfig, LokrConfig, LoraConfig,
    ModuleNames, Targeting,
};
use crate::error::{AdapterError, Error, Result};

/// The version of PEFT whose file format is written.
pub(super) const PEFT_VERSION: &str = "0.21.2";

/// The adapter types this crate has, as `peft_type` names them.
const PEFT_TYPES: [&str; 5] = ["LORA", "ADALORA", "IA3", "LOHA", "LOKR"];

/// An adapter's configuration: `adapter_config.json`, by its `peft_type`.
#[derive(Debug, Clone, PartialEq)]
pub enum PeftConfig {
    /// LoRA and its variants.
    Lora(LoraConfig),
    /// AdaLoRA, as it was trained.
    AdaLora(AdaLoraConfig),
    /// IA³.
    Ia3(Ia3Config),
    /// LoHa.
    Loha(LohaConfig),
    /// LoKr.
    Lokr(LokrConfig),
}

/// Does the same with every type's configuration.
macro_rules! each {
    ($config:expr, $inner:ident => $result:expr) => {
        match $config {
            PeftConfig::Lora($inner) => $result,
            PeftConfig::AdaLora($inner) => $result,
            PeftConfig::Ia3($inner) => $result,
            PeftConfig::Loha($inner) => $result,
            PeftConfig::Lokr($inner) => $result,
        }
    };
}

impl PeftConfig {
    /// Reads the fields of an `adapter_config.json`; missing ones have PEFT's defaults, and
    /// unknown ones are kept.
    ///
    /// # Errors
    /// [`AdapterError::UnknownType`] or [`AdapterError::Malformed`].
    pub fn from_json(fields: Map<String, Value>) -> Result<Self> {
        fn read<C: DeserializeOwned>(fields: Map<String, Value>) -> Result<C> {
            let config = serde_json::from_value(Value::Object(fields));
            Ok(config.map_err(|source| AdapterError::Malformed { source })?)
        }
        let peft_type = fields.get("peft_type").cloned();
        match peft_type.as_ref().map(Value::as_str) {
            None | Some(Some("LORA")) => read(fields).map(Self::Lora),
            Some(Some("ADALORA")) => read(fields).map(Self::AdaLora),
            Some(Some("IA3")) => read(fields).map(Self::Ia3),
            Some(Some("LOHA")) => read(fields).map(Self::Loha),
            Some(Some("LOKR")) => read(fields).map(Self::Lokr),
            Some(_) => Err(AdapterError::UnknownType {
                found: peft_type.map_or_else(String::new, |found| found.to_string()),
                known: &PEFT_TYPES,
            }
            .into()),
        }
    }

    /// The content of `adapter_config.json`: every field of peft 0.21.2, sorted.
    ///
    /// # Errors
    /// What the serialiser says.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        each!(self, config => config.to_json())
    }

    /// Checks every field that changes the output.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`] or [`AdapterError::Unsupported`], naming the field.
    pub fn validate(&self) -> Result<()> {
        each!(self, config => config.validate())
    }

    /// `peft_type`, as PEFT writes it.
    pub fn peft_type(&self) -> &'static str {
        match self {
            Self::Lora(_) => PEFT_TYPES[0],
            Self::AdaLora(_) => PEFT_TYPES[1],
            Self::Ia3(_) => PEFT_TYPES[2],
            Self::Loha(_) => PEFT_TYPES[3],
            Self::Lokr(_) => PEFT_TYPES[4],
        }
    }

    /// The configuration, if it is LoRA's.
    pub fn as_lora(&self) -> Option<&LoraConfig> {
        match self {
            Self::Lora(config) => Some(config),
            _ => None,
        }
    }

    /// Whether anyone finds the weights that a fresh adapter begins with, from the base alone.
    pub fn is_reproducible(&self) -> bool {
        let init = self.as_lora().map(|config| &config.init_lora_weights);
        !matches!(
            init,
            Some(InitLoraWeights::Scheme(InitScheme::PissaNiter(_)))
        )
    }

    /// The layers that are adapted; `None` means the architecture's default ones.
    pub fn target_modules(&self) -> Option<&ModuleNames> {
        each!(self, config => config.target_modules.as_ref())
    }

    /// The base model: a folder, or a hub id.
    pub fn base_model_name_or_path(&self) -> Option<&str> {
        each!(self, config => config.base_model_name_or_path.as_deref())
    }

    /// The base model's revision on the hub.
    pub fn revision(&self) -> Option<&str> {
        each!(self, config => config.revision.as_deref())
    }

    /// Names the base model and its revision.
    pub fn set_base(&mut self, name_or_path: Option<String>, revision: Option<String>) {
        each!(self, config => {
            config.base_model_name_or_path = name_or_path;
            config.revision = revision;
        });
    }

    /// Names the layers to adapt.
    pub fn set_target_modules(&mut self, names: ModuleNames) {
        each!(self, config => config.target_modules = Some(names));
    }

    pub(super) fn targeting(&self) -> Targeting<'_> {
        each!(self, config => config.targeting())
    }
}

impl From<LoraConfig> for PeftConfig {
    fn from(config: LoraConfig) -> Self {
        Self::Lora(config)
    }
}

impl From<Ia3Config> for PeftConfig {
    fn from(config: Ia3Config) -> Self {
        Self::Ia3(config)
    }
}

impl From<LohaConfig> for PeftConfig {
    fn from(config: LohaConfig) -> Self {
        Self::Loha(config)
    }
}

impl From<LokrConfig> for PeftConfig {
    fn from(config: LokrConfig) -> Self {
        Self::Lokr(config)
    }
}

/// The fields that every type's file has beside those of its structure.
pub(super) fn common_fields(peft_type: &str) -> Value {
    serde_json::json!({
        "auto_mapping": null, "peft_type": peft_type, "peft_version": PEFT_VERSION,
    })
}

/// A configuration with further fields, in the order of the fields' names.
pub(super) fn sorted_json<C: Serialize>(
    further: Value,
    config: &C,
) -> Result<String, serde_json::Error> {
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    for part in [further, serde_json::to_value(config)?] {
        if let Value::Object(part) = part {
            fields.extend(part);
        }
    }
    serde_json::to_string_pretty(&fields)
}

/// The error of a field that holds what no adapter can have.
pub(super) fn invalid(field: &str, expected: &str, found: impl Display) -> Error {
    AdapterError::InvalidField {
        field: field.to_owned(),
        expected: expected.to_owned(),
        found: found.to_string(),
    }
    .into()
}

/// The error of a field that holds what this version does not compute.
pub(super) fn unsupported(field: &str, found: impl Display) -> Error {
    AdapterError::Unsupported {
        field: field.to_owned(),
        found: found.to_string(),
    }
    .into()
}

/// More than any rank is, also that which LyCORIS takes for "as large as the layer", and little
/// enough that no product with a layer's size overflows.
const LARGEST_RANK: usize = 1 << 24;

/// Checks ranks, alphas and the fields that choose layers; `alpha_field` is what the type
/// calls its alpha.
pub(super) fn check_targeting(targeting: &Targeting<'_>, alpha_field: &str) -> Result<()> {
    let patterns = targeting.rank_pattern.into_iter().flat_map(|p| p.values());
    let patterns = patterns.map(|&r| ("rank_pattern", r));
    for (field, r) in [("r", targeting.r)].into_iter().chain(patterns) {
        if !(1..=LARGEST_RANK).contains(&r) {
            let expected = format!("a rank from 1 to {LARGEST_RANK}");
            return Err(invalid(field, &expected, r));
        }
    }
    let patterns = targeting.alpha_pattern.into_iter().flat_map(|p| p.values());
    let patterns = patterns.map(|&alpha| ("alpha_pattern", alpha));
    for (field, alpha) in [(alpha_field, targeting.alpha)].into_iter().chain(patterns) {
        // PEFT takes any: one below 0 subtracts the update, and with 0 there is none.
        if !alpha.is_finite() {
            return Err(invalid(field, "a finite number", alpha));
        }
    }
    let pattern_targets = matches!(targeting.target_modules, Some(ModuleNames::Pattern(_)));
    if targeting.layers_to_transform.is_some() && pattern_targets {
        let expected = "null where target_modules is a pattern";
        return Err(invalid("layers_to_transform", expected, "set"));
    }
    if targeting.layers_pattern.is_some() && targeting.layers_to_transform.is_none() {
        let expected = "null where layers_to_transform is null";
        return Err(invalid("layers_pattern", expected, "set"));
    }
    Ok(())
}

/// Whole numbers as Python writes its integers: `128`, not `128.0`.
fn python_number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}

pub(super) fn as_python_number<S: serde::Serializer>(
    value: &f64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    python_number(*value).serialize(serializer)
}

pub(super) fn as_python_numbers<S: serde::Serializer>(
    values: &IndexMap<String, f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        values
            .iter()
            .map(|(key, &value)| (key, python_number(value))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(json: Value) -> Result<PeftConfig> {
        let Value::Object(fields) = json else {
            panic!("no object")
        };
        PeftConfig::from_json(fields)
    }

    #[test]
    fn the_type_decides_and_others_are_named() {
        for peft_type in PEFT_TYPES {
            let config = parse(json!({ "peft_type": peft_type, "total_step": 3 })).unwrap();
            assert_eq!(config.peft_type(), peft_type);
            let written: Value = serde_json::from_str(&config.to_json().unwrap()).unwrap();
            assert_eq!(written["peft_type"], peft_type);
            assert_eq!(written["total_step"], 3);
            assert_eq!(parse(written).unwrap().peft_type(), peft_type);
        }
        for found in [json!("PREFIX_TUNING"), json!(3)] {
            let error = parse(json!({ "peft_type": found })).unwrap_err();
            let found = found.to_string();
            assert!(
                matches!(&error, Error::Adapter(AdapterError::UnknownType { found: f, .. }) if *f == found),
                "{error}"
            );
        }
    }

    #[test]
    fn a_field_of_another_kind_is_an_error() {
        let error = parse(json!({ "peft_type": "LOHA", "r": "four" })).unwrap_err();
        assert!(matches!(
            error,
            Error::Adapter(AdapterError::Malformed { .. })
        ));
    }
}
