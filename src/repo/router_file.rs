use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::file::read_json;
use super::named_path::path_inside;
use super::names;
use super::pipeline::{Pipeline, type_name};
use crate::error::{ModuleError, RepoError, Result};
use crate::model::Layout;
use crate::modules::{Route, RouteMapping, Router, Step};

/// How deep routers may lie in routers.
const DEEPEST: usize = 8;

/// `router_config.json`, or an Asym's `config.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RouterFile {
    /// The Python path of each part, by its folder.
    types: IndexMap<String, String>,
    /// The folders of each route's parts, by its name.
    structure: IndexMap<String, Vec<String>>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Parameters {
    default_route: Option<String>,
    #[serde(deserialize_with = "yes_if_none")]
    allow_empty_key: AllowEmptyKey,
    route_mappings: Option<Map<String, Value>>,
}

/// Python's default is true.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
struct AllowEmptyKey(bool);

impl Default for AllowEmptyKey {
    fn default() -> Self {
        Self(true)
    }
}

fn yes_if_none<'de, D: serde::Deserializer<'de>>(value: D) -> Result<AllowEmptyKey, D::Error> {
    let value: Option<bool> = Option::deserialize(value)?;
    Ok(value.map_or_else(AllowEmptyKey::default, AllowEmptyKey))
}

impl RouterFile {
    /// Reads the configuration of a Router's folder.
    ///
    /// # Errors
    /// [`RepoError`] naming the file.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(names::ROUTER);
        let of_old = folder.join(names::CONFIG);
        let needed_for = "it lists the Router's routes";
        match !file.exists() && of_old.exists() {
            true => read_json(&of_old, needed_for),
            false => read_json(&file, needed_for),
        }
    }

    /// The router; its parts go into `pipeline`, those that several routes share once.
    ///
    /// # Errors
    /// [`ModuleError`] or [`RepoError`] naming what is wrong.
    pub(super) fn into_router(self, folder: &Path, pipeline: &mut Pipeline) -> Result<Router> {
        let file = folder.join(names::ROUTER);
        // A router that is a part of itself has no end.
        pipeline.depth += 1;
        if pipeline.depth > DEEPEST {
            return Err(ModuleError::InvalidRouter {
                reason: format!("routers lie more than {DEEPEST} deep in routers"),
            }
            .into());
        }
        let mut steps: IndexMap<&String, Step> = IndexMap::new();
        for (id, python_path) in &self.types {
            let part = path_inside(&file, id)?;
            let step = pipeline.add(type_name(python_path)?, part)?;
            steps.insert(id, step);
        }
        pipeline.depth -= 1;
        let mut routes = Vec::new();
        for (name, ids) in &self.structure {
            let parts = ids.iter().map(|id| {
                let found = steps.get(id).cloned();
                found.ok_or_else(|| ModuleError::InvalidRouter {
                    reason: format!("route `{name}` names `{id}`, which `types` does not have"),
                })
            });
            routes.push(Route {
                name: name.clone(),
                steps: parts.collect::<Result<_, _>>()?,
            });
        }
        let mut mappings = Vec::new();
        for (key, route) in self.parameters.route_mappings.iter().flatten() {
            let Some(route) = route.as_str() else {
                return Err(RepoError::InvalidField {
                    path: file,
                    field: format!("route_mappings.{key}"),
                    expected: "a route's name".to_owned(),
                    found: route.to_string(),
                }
                .into());
            };
            match RouteMapping::parse(key, route) {
                Some(mapping) => mappings.push(mapping),
                // As Python does.
                None => log::warn!("{}: `{key}` is no route mapping", file.display()),
            }
        }
        let AllowEmptyKey(allow_empty_key) = self.parameters.allow_empty_key;
        let default_route = self.parameters.default_route;
        Router::new(routes, default_route, allow_empty_key, mappings)
    }

    /// The configuration of a router, whose parts have these types.
    pub(super) fn of(router: &Router, type_name: &dyn Fn(&Step) -> &'static str) -> Self {
        let mut types = IndexMap::new();
        let mut structure = IndexMap::new();
        let mut known: Vec<(&Step, String)> = Vec::new();
        for route in router.routes() {
            let mut ids = Vec::new();
            for (index, step) in route.steps.iter().enumerate() {
                let seen = known.iter().find(|(known, _)| *known == step);
                let id = match seen {
                    Some((_, id)) => id.clone(),
                    None => {
                        let name = type_name(step);
                        let id = Layout::of_route(&route.name, index, name);
                        let python_path = format!("sentence_transformers.models.{name}");
                        types.insert(id.clone(), python_path);
                        known.push((step, id.clone()));
                        id
                    }
                };
                ids.push(id);
            }
            structure.insert(route.name.clone(), ids);
        }
        let mappings = router.mappings().iter();
        let mappings: Map<String, Value> = mappings
            .map(|mapping| (mapping.key(), mapping.route.clone().into()))
            .collect();
        Self {
            types,
            structure,
            parameters: Parameters {
                default_route: router.default_route().map(str::to_owned),
                allow_empty_key: AllowEmptyKey(router.allow_empty_key()),
                route_mappings: Some(mappings),
            },
        }
    }

    /// The content of `router_config.json`; route mappings, which readers of 5.x do not know,
    /// only where there are any.
    pub(super) fn to_json(&self) -> Value {
        let mut parameters = json!({
            "default_route": self.parameters.default_route,
            "allow_empty_key": self.parameters.allow_empty_key.0,
        });
        if let Some(mappings) = self
            .parameters
            .route_mappings
            .as_ref()
            .filter(|m| !m.is_empty())
        {
            parameters["route_mappings"] = Value::Object(mappings.clone());
        }
        json!({ "types": self.types, "structure": self.structure, "parameters": parameters })
    }
}
