use fancy_regex::Regex;
use indexmap::IndexMap;

use super::{LayerIndices, ModuleNames};
use crate::error::{AdapterError, Result};

/// The fields of a configuration that say which layers are adapted, and how strongly.
#[derive(Debug, Clone, Default)]
pub(super) struct Targeting<'a> {
    pub(super) target_modules: Option<&'a ModuleNames>,
    pub(super) exclude_modules: Option<&'a ModuleNames>,
    pub(super) layers_to_transform: Option<&'a LayerIndices>,
    pub(super) layers_pattern: Option<&'a ModuleNames>,
    pub(super) modules_to_save: &'a [String],
    pub(super) r: usize,
    pub(super) rank_pattern: Option<&'a IndexMap<String, usize>>,
    pub(super) alpha: f64,
    pub(super) alpha_pattern: Option<&'a IndexMap<String, f64>>,
}

/// A layer that an adapter adapts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// The layer's path in the encoder.
    pub(super) path: String,
    /// The rank there.
    pub(super) r: usize,
    /// The numerator of the scale there.
    pub(super) alpha: f64,
}

/// The layers that a configuration adapts, and the names they were found by: those that were
/// given, the default ones, or the paths that `all-linear` stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Targets {
    pub(super) layers: Vec<Target>,
    pub(super) names: ModuleNames,
}

/// Finds the layers that a configuration adapts, by PEFT's rules
/// (`check_target_module_exists`).
///
/// `layers` are the paths of the encoder's linear layers, `others` those of its other layers,
/// and `defaults` the name endings adapted where the configuration names none, if the
/// architecture has such.
///
/// # Errors
/// [`AdapterError::NoDefaultTargets`], [`AdapterError::InvalidPattern`] or
/// [`AdapterError::NoMatchingTarget`].
pub(super) fn resolve_targets(
    targeting: &Targeting<'_>,
    layers: &[String],
    others: &[String],
    defaults: Option<&[&str]>,
    model_type: &str,
) -> Result<Targets> {
    let names = match targeting.target_modules {
        Some(ModuleNames::Pattern(all)) if all.eq_ignore_ascii_case("all-linear") => {
            ModuleNames::List(layers.to_vec())
        }
        Some(given) => given.clone(),
        None => match defaults {
            Some(defaults) => ModuleNames::list(defaults.iter().copied()),
            None => {
                let model_type = model_type.to_owned();
                return Err(AdapterError::NoDefaultTargets { model_type }.into());
            }
        },
    };
    let included = NameMatcher::new("target_modules", &names)?;
    let excluded = match targeting.exclude_modules {
        Some(names) => Some(NameMatcher::new("exclude_modules", names)?),
        None => None,
    };
    let indices = match targeting.layers_to_transform {
        // An empty list is no list, to PEFT.
        Some(LayerIndices::Many(wanted)) if wanted.is_empty() => None,
        Some(wanted) => Some(IndexMatcher::new(wanted, targeting.layers_pattern)?),
        None => None,
    };
    let saved = targeting.modules_to_save;
    let saved = saved
        .iter()
        .map(|name| {
            compile(
                "modules_to_save",
                name,
                &format!(r"^(?:.*\.)?(?:{name})(?:$|\.)"),
            )
        })
        .collect::<Result<Vec<_>>>()?;
    let ranks = suffix_patterns("rank_pattern", targeting.rank_pattern)?;
    let alphas = suffix_patterns("alpha_pattern", targeting.alpha_pattern)?;
    let is_target = |path: &&String| {
        // A whole path is meant as it stands, whatever its index.
        let by_index = || indices.as_ref().is_none_or(|indices| indices.matches(path));
        let is_included = included.equals(path) || included.matches(path) && by_index();
        is_included
            && !excluded.as_ref().is_some_and(|names| names.matches(path))
            && !saved.iter().any(|saved| is_match(saved, path))
    };
    let found: Vec<Target> = layers
        .iter()
        .chain(others)
        .filter(is_target)
        .map(|path| Target {
            path: path.clone(),
            r: first_match(&ranks, path).unwrap_or(targeting.r),
            alpha: first_match(&alphas, path).unwrap_or(targeting.alpha),
        })
        .collect();
    if found.is_empty() {
        let mut available: Vec<String> = layers
            .iter()
            .map(|path| path.rsplit('.').next().unwrap_or(path).to_owned())
            .collect();
        available.sort();
        available.dedup();
        let targets = match names {
            ModuleNames::List(names) => format!("{names:?}"),
            ModuleNames::Pattern(pattern) => format!("`{pattern}`"),
        };
        return Err(AdapterError::NoMatchingTarget { targets, available }.into());
    }
    Ok(Targets {
        layers: found,
        names,
    })
}

/// Whether a module's name ends with one of these, as PEFT looks for modules to save and for
/// feed-forward modules: anywhere in a name's part, or a pattern for the whole name.
pub(super) fn names_module(field: &'static str, names: &ModuleNames, path: &str) -> Result<bool> {
    Ok(match names {
        ModuleNames::List(endings) => endings.iter().any(|ending| path.ends_with(ending)),
        ModuleNames::Pattern(_) => NameMatcher::new(field, names)?.matches(path),
    })
}

/// A pattern as Python's `re` takes it, as far as the syntaxes agree.
fn compile(field: &'static str, pattern: &str, anchored: &str) -> Result<Regex> {
    Ok(
        Regex::new(anchored).map_err(|e| AdapterError::InvalidPattern {
            field,
            pattern: pattern.to_owned(),
            reason: e.to_string(),
        })?,
    )
}

/// A regular expression that gives up, as catastrophic ones do, matches nothing.
fn is_match(regex: &Regex, name: &str) -> bool {
    regex.is_match(name).unwrap_or(false)
}

enum NameMatcher {
    Endings(Vec<String>),
    Whole(Regex),
}

impl NameMatcher {
    fn new(field: &'static str, names: &ModuleNames) -> Result<Self> {
        Ok(match names {
            ModuleNames::List(endings) => Self::Endings(endings.clone()),
            ModuleNames::Pattern(pattern) => {
                Self::Whole(compile(field, pattern, &format!("^(?:{pattern})$"))?)
            }
        })
    }

    fn equals(&self, path: &str) -> bool {
        matches!(self, Self::Endings(endings) if endings.iter().any(|ending| ending == path))
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Endings(endings) => endings.iter().any(|ending| {
                let before = path.strip_suffix(ending.as_str());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }),
            Self::Whole(regex) => is_match(regex, path),
        }
    }
}

struct IndexMatcher<'a> {
    wanted: &'a LayerIndices,
    patterns: Vec<Regex>,
}

impl<'a> IndexMatcher<'a> {
    fn new(wanted: &'a LayerIndices, layers_pattern: Option<&ModuleNames>) -> Result<Self> {
        let names: Vec<&str> = match layers_pattern {
            None => Vec::new(),
            Some(ModuleNames::Pattern(name)) => vec![name],
            Some(ModuleNames::List(names)) => names.iter().map(String::as_str).collect(),
        };
        let field = "layers_pattern";
        let patterns = if names.is_empty() {
            vec![compile(field, "", r"^.*?\.[^.]*\.(\d+)\.")?]
        } else {
            names
                .iter()
                .map(|name| compile(field, name, &format!(r"^(?:.*?\.)?(?:{name})\.(\d+)\.")))
                .collect::<Result<_>>()?
        };
        Ok(Self { wanted, patterns })
    }

    fn matches(&self, path: &str) -> bool {
        let index = self.patterns.iter().find_map(|pattern| {
            let captures = pattern.captures(path).ok()??;
            captures.get(1)?.as_str().parse().ok()
        });
        index.is_some_and(|index| self.wanted.contains(index))
    }
}

fn suffix_patterns<V: Copy>(
    field: &'static str,
    patterns: Option<&IndexMap<String, V>>,
) -> Result<Vec<(Regex, V)>> {
    patterns
        .into_iter()
        .flatten()
        .map(|(key, &value)| {
            Ok((
                compile(field, key, &format!(r"^(?:.*\.)?(?:{key})$"))?,
                value,
            ))
        })
        .collect()
}

fn first_match<V: Copy>(patterns: &[(Regex, V)], path: &str) -> Option<V> {
    let found = patterns.iter().find(|(regex, _)| is_match(regex, path));
    found.map(|&(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::LoraConfig;
    use crate::error::Error;

    fn bert_layers() -> Vec<String> {
        let mut layers = Vec::new();
        for i in 0..3 {
            for name in [
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            ] {
                layers.push(format!("encoder.layer.{i}.{name}"));
            }
        }
        layers.push("pooler.dense".to_owned());
        layers
    }

    fn others() -> Vec<String> {
        vec!["embeddings.word_embeddings".to_owned()]
    }

    fn resolve(config: LoraConfig) -> Result<Targets> {
        let defaults: &[&str] = &["query", "value"];
        let layers = bert_layers();
        resolve_targets(
            &config.targeting(),
            &layers,
            &others(),
            Some(defaults),
            "bert",
        )
    }

    fn with_targets(target_modules: ModuleNames) -> LoraConfig {
        LoraConfig {
            target_modules: Some(target_modules),
            ..LoraConfig::default()
        }
    }

    fn count(config: LoraConfig) -> usize {
        resolve(config).map_or(0, |targets| targets.layers.len())
    }

    #[test]
    fn defaults_are_the_architecture_s_and_are_written_back() {
        let targets = resolve(LoraConfig::default()).unwrap();
        assert_eq!(targets.layers.len(), 6);
        assert_eq!(targets.names, ModuleNames::list(["query", "value"]));
    }

    #[test]
    fn endings_match_whole_name_parts_only() {
        assert_eq!(count(with_targets(ModuleNames::list(["query"]))), 3);
        assert_eq!(count(with_targets(ModuleNames::list(["uery"]))), 0);
        // `dense` hits both outputs, the intermediate layer and the pooler.
        assert_eq!(count(with_targets(ModuleNames::list(["dense"]))), 10);
        assert_eq!(count(with_targets(ModuleNames::list(["output.dense"]))), 6);
    }

    #[test]
    fn a_pattern_matches_whole_paths_only() {
        let pattern = |p: &str| with_targets(ModuleNames::Pattern(p.to_owned()));
        assert_eq!(count(pattern(r".*\.1\.attention\.self\.(query|value)")), 2);
        assert_eq!(count(pattern("query")), 0);
        assert_eq!(count(pattern(r"(?!.*\.0\.).*query")), 2);
        assert_eq!(count(pattern("a|.*query")), 3);
    }

    #[test]
    fn all_linear_means_every_layer_and_is_written_back_as_paths() {
        let targets = resolve(with_targets(ModuleNames::all_linear())).unwrap();
        assert_eq!(targets.layers.len(), 19);
        assert_eq!(targets.names, ModuleNames::List(bert_layers()));
    }

    #[test]
    fn exclusions_win() {
        let config = LoraConfig {
            exclude_modules: Some(ModuleNames::list(["pooler.dense", "output.dense"])),
            ..with_targets(ModuleNames::list(["dense"]))
        };
        assert_eq!(count(config), 3);
        let config = LoraConfig {
            exclude_modules: Some(ModuleNames::Pattern(r".*\.[01]\..*".to_owned())),
            ..LoraConfig::default()
        };
        assert_eq!(count(config), 2);
    }

    #[test]
    fn layer_indices_choose_among_endings_but_not_among_whole_paths() {
        let config = LoraConfig {
            layers_to_transform: Some(LayerIndices::Many(vec![0, 2])),
            ..LoraConfig::default()
        };
        assert_eq!(count(config.clone()), 4);
        let whole = ModuleNames::list(["encoder.layer.1.attention.self.query", "value"]);
        assert_eq!(
            count(LoraConfig {
                target_modules: Some(whole),
                ..config.clone()
            }),
            3
        );
        let config = LoraConfig {
            layers_pattern: Some(ModuleNames::Pattern("layer".to_owned())),
            ..config
        };
        assert_eq!(count(config), 4);
    }

    #[test]
    fn patterns_give_ranks_and_alphas() {
        let config = LoraConfig {
            r: 4,
            lora_alpha: 8.0,
            rank_pattern: [("layer.1.attention.self.query".to_owned(), 2)].into(),
            alpha_pattern: [("value".to_owned(), 16.0)].into(),
            ..LoraConfig::default()
        };
        let targets = resolve(config).unwrap().layers;
        let found: Vec<_> = targets.iter().map(|t| (t.r, t.alpha)).collect();
        let (query, value) = ((4, 8.0), (4, 16.0));
        assert_eq!(found, [query, value, (2, 8.0), value, query, value]);
    }

    #[test]
    fn other_layers_are_found_by_name_but_are_not_linear() {
        let targets = ModuleNames::list(["query", "word_embeddings"]);
        assert_eq!(count(with_targets(targets.clone())), 4);
        let config = LoraConfig {
            exclude_modules: Some(ModuleNames::list(["word_embeddings"])),
            ..with_targets(targets)
        };
        assert_eq!(count(config), 3);
    }

    #[test]
    fn modules_to_save_are_not_adapted_with_all_that_lies_in_them() {
        let config = |saved: &[&str]| LoraConfig {
            modules_to_save: Some(saved.iter().map(|&s| s.to_owned()).collect()),
            ..with_targets(ModuleNames::list(["dense"]))
        };
        assert_eq!(count(config(&["pooler"])), 9);
        assert_eq!(count(config(&["encoder.layer.1"])), 7);
        // A whole part of a name, here; PEFT's wrapping itself is less strict.
        assert_eq!(count(config(&["ooler"])), 10);
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let error = resolve(with_targets(ModuleNames::list(["q_proj"]))).unwrap_err();
        assert!(
            matches!(&error, Error::Adapter(AdapterError::NoMatchingTarget { available, .. })
            if available == &["dense", "key", "query", "value"])
        );
        let error = resolve(with_targets(ModuleNames::Pattern("(".to_owned()))).unwrap_err();
        assert!(matches!(
            error,
            Error::Adapter(AdapterError::InvalidPattern {
                field: "target_modules",
                ..
            })
        ));
        let config = LoraConfig::default();
        let error =
            resolve_targets(&config.targeting(), &bert_layers(), &[], None, "x").unwrap_err();
        assert!(matches!(
            error,
            Error::Adapter(AdapterError::NoDefaultTargets { .. })
        ));
    }
}
