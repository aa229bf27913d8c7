use std::collections::{HashMap, HashSet};

use burn::module::ParamId;
use fancy_regex::Regex;

use super::arguments::TrainingArguments;
use super::training_state::NamedParameter;
use crate::error::{Result, TrainingError};

/// Parameters that are updated with the same options.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ParameterGroup {
    pub members: HashSet<ParamId>,
    /// The group's rate where the schedule's factor is 1.
    pub learning_rate: f64,
    pub weight_decay: f64,
}

/// Divides the trained parameters up by rate and weight decay: by LoRA+ if it is asked
/// for (peft's `create_loraplus_optimizer`), and then by `learning_rate_mapping` (the
/// reference's `get_optimizer_cls_and_kwargs`).
///
/// # Errors
/// [`TrainingError::InvalidPattern`] for a pattern that cannot be read or matches no
/// parameter.
pub(super) fn divide(
    arguments: &TrainingArguments,
    parameters: &[NamedParameter],
    dimensions: &HashMap<ParamId, usize>,
) -> Result<Vec<ParameterGroup>> {
    let mut options: Vec<(f64, f64)> = parameters
        .iter()
        .map(|(name, id)| {
            let vector = dimensions.get(id) == Some(&1);
            (rate(arguments, name, vector), decay(arguments, name))
        })
        .collect();
    let names: Vec<String> = parameters.iter().map(|(name, _)| full_name(name)).collect();
    for (pattern, &learning_rate) in &arguments.learning_rate_mapping {
        let refuse = |reason: String| TrainingError::InvalidPattern {
            pattern: pattern.clone(),
            reason,
        };
        let regex = Regex::new(pattern).map_err(|error| refuse(error.to_string()))?;
        let mut matched = false;
        for (name, options) in names.iter().zip(&mut options) {
            if regex
                .is_match(name)
                .map_err(|error| refuse(error.to_string()))?
            {
                options.0 = learning_rate;
                matched = true;
            }
        }
        if !matched {
            let example = names.first().map_or("", String::as_str);
            let reason = format!("no trained parameter's name matches; one is `{example}`");
            return Err(refuse(reason).into());
        }
    }

    let mut groups: Vec<ParameterGroup> = Vec::new();
    for ((_, id), (learning_rate, weight_decay)) in parameters.iter().zip(options) {
        let same = |group: &&mut ParameterGroup| {
            (group.learning_rate, group.weight_decay) == (learning_rate, weight_decay)
        };
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.members.insert(*id);
            }
            None => groups.push(ParameterGroup {
                members: HashSet::from([*id]),
                learning_rate,
                weight_decay,
            }),
        }
    }
    Ok(groups)
}

/// The rate before `learning_rate_mapping`.
fn rate(arguments: &TrainingArguments, name: &str, vector: bool) -> f64 {
    match arguments.loraplus_lr_ratio {
        Some(_) if name.contains("lora_embedding_") => arguments.loraplus_lr_embedding,
        Some(ratio) if vector || name.contains("lora_B") => ratio * arguments.learning_rate,
        _ => arguments.learning_rate,
    }
}

fn decay(arguments: &TrainingArguments, name: &str) -> f64 {
    match is_decayed(name) {
        true => arguments.weight_decay,
        false => 0.0,
    }
}

/// Whether weight decay applies to a parameter: not to a bias nor to a norm, as the
/// reference's `get_decay_parameter_names` tells them by name.
fn is_decayed(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_norm = |part: &str| part == "norm" || part.ends_with("_norm");
    !["bias", "layernorm", "rmsnorm"]
        .iter()
        .any(|word| name.contains(word))
        && !name.split(['.', '/']).any(is_norm)
}

/// A parameter's name as the reference has it, seen from the loss: `model.0.model.` and
/// the encoder's name for it, with the adapter's name inside; `model.2.linear.weight` of a
/// module behind the encoder; `classifier.weight` of a loss's own.
fn full_name(name: &str) -> String {
    if let Some(of_loss) = name.strip_prefix("loss.") {
        return of_loss.to_owned();
    }
    let (path, adapter) = match name.split_once('/') {
        Some((adapter, path)) => (path, Some(adapter)),
        None => (name, None),
    };
    if adapter.is_none()
        && let Some((index, rest)) = path.split_once('_')
        && index.parse::<usize>().is_ok()
        && let Some((_, rest)) = rest.split_once('.')
    {
        return format!("model.{index}.{rest}");
    }
    let Some(adapter) = adapter else {
        return format!("model.0.model.{path}");
    };
    let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
    let inside = match last {
        "weight" | "bias" => match parent.rsplit('.').next() {
            Some(layer) if layer.starts_with("lora_") => format!("{parent}.{adapter}.{last}"),
            _ => format!("{parent}.modules_to_save.{adapter}.{last}"),
        },
        "lora_magnitude_vector" => format!("{path}.{adapter}.weight"),
        _ => format!("{path}.{adapter}"),
    };
    format!("model.0.model.{inside}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use serde_json::Value;

    fn expected() -> Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/training_arguments/expected.json"
        );
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn divided(
        arguments: &TrainingArguments,
        names: &[&str],
    ) -> Result<HashMap<String, (f64, f64)>> {
        let parameters: Vec<NamedParameter> = names
            .iter()
            .map(|name| ((*name).to_owned(), ParamId::new()))
            .collect();
        let vectors = parameters.iter().map(|(name, id)| {
            let vector = name.ends_with("bias") || name.contains("magnitude");
            (*id, if vector { 1 } else { 2 })
        });
        let groups = divide(arguments, &parameters, &vectors.collect())?;
        let of = |id| groups.iter().find(|group| group.members.contains(id));
        let options = parameters.iter().map(|(name, id)| {
            let group = of(id).unwrap();
            (name.clone(), (group.learning_rate, group.weight_decay))
        });
        Ok(options.collect())
    }

    fn pair(value: &Value) -> (f64, f64) {
        (value[0].as_f64().unwrap(), value[1].as_f64().unwrap())
    }

    #[test]
    fn weight_decay_applies_where_the_reference_applies_it() {
        let expected = expected();
        let mut kinds = HashSet::new();
        for (architecture, parameters) in expected["decayed"].as_object().unwrap() {
            for (name, decays) in parameters.as_object().unwrap() {
                let decays = decays.as_bool().unwrap();
                assert_eq!(is_decayed(name), decays, "{architecture}: {name}");
                kinds.insert(decays);
            }
        }
        assert_eq!(kinds.len(), 2);
        // An adapter's name does not count, a norm behind it does.
        assert!(is_decayed("default/encoder.layer.0.query.lora_A.weight"));
        assert!(!is_decayed("default/norm.weight"));
    }

    #[test]
    fn rates_by_pattern_are_the_references() {
        let expected = expected();
        let expected = &expected["groups"];
        let mapping = expected["mapping"].as_object().unwrap();
        let arguments = TrainingArguments {
            learning_rate: 2e-3,
            weight_decay: 0.01,
            learning_rate_mapping: mapping
                .iter()
                .map(|(pattern, rate)| (pattern.clone(), rate.as_f64().unwrap()))
                .collect(),
            ..Default::default()
        };
        let parameters = expected["parameters"].as_object().unwrap();
        // The names as this crate has them.
        let ours = |name: &str| match name.strip_prefix("model.0.model.") {
            Some(path) => path.to_owned(),
            None => format!("loss.{name}"),
        };
        let names: Vec<String> = parameters.keys().map(|name| ours(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = divided(&arguments, &names).unwrap();
        for (name, options) in parameters {
            assert_eq!(found[&ours(name)], pair(options), "{name}");
        }
        // Without the mapping some differ.
        let plain = TrainingArguments {
            learning_rate_mapping: Default::default(),
            ..arguments
        };
        let found = divided(&plain, &names).unwrap();
        assert!(
            parameters
                .iter()
                .any(|(name, options)| found[&ours(name)] != pair(options))
        );
    }

    #[test]
    fn lora_plus_is_pefts() {
        let expected = expected();
        let parameters = expected["loraplus"].as_object().unwrap();
        let names: Vec<&str> = parameters.keys().map(String::as_str).collect();
        let mut arguments = TrainingArguments {
            learning_rate: 2e-3,
            weight_decay: 0.01,
            loraplus_lr_ratio: Some(16.0),
            loraplus_lr_embedding: 5e-5,
            ..Default::default()
        };
        let found = divided(&arguments, &names).unwrap();
        for (name, options) in parameters {
            assert_eq!(found[name], pair(options), "{name}");
        }
        arguments.loraplus_lr_ratio = None;
        let found = divided(&arguments, &names).unwrap();
        assert!(found.values().all(|options| *options == (2e-3, 0.01)));
    }

    #[test]
    fn names_are_those_of_the_reference() {
        for (ours, theirs) in [
            (
                "encoder.layer.0.output.dense.bias",
                "model.0.model.encoder.layer.0.output.dense.bias",
            ),
            (
                "a.b/x.query.lora_A.weight",
                "model.0.model.x.query.lora_A.a.b.weight",
            ),
            (
                "q/x.query.lora_magnitude_vector",
                "model.0.model.x.query.lora_magnitude_vector.q.weight",
            ),
            ("q/x.lora_embedding_A", "model.0.model.x.lora_embedding_A.q"),
            (
                "q/x.LayerNorm.weight",
                "model.0.model.x.LayerNorm.modules_to_save.q.weight",
            ),
            ("2_Dense.linear.weight", "model.2.linear.weight"),
            ("loss.classifier.weight", "classifier.weight"),
        ] {
            assert_eq!(full_name(ours), theirs);
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_named() {
        for (pattern, reason) in [("no such thing", "matches"), ("(", "")] {
            let arguments = TrainingArguments {
                learning_rate_mapping: [(pattern.to_owned(), 1e-3)].into_iter().collect(),
                ..Default::default()
            };
            let Err(Error::Training(TrainingError::InvalidPattern {
                pattern: found,
                reason: why,
            })) = divided(&arguments, &["x.weight"])
            else {
                panic!("{pattern} passed");
            };
            assert_eq!(found, pattern);
            assert!(why.contains(reason), "{why}");
        }
    }
}
