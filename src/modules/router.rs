use super::RouteMapping;
use super::route_mapping::TEXT;
use crate::error::{ModuleError, Result};

/// A step of a model, as `modules.json` and `router_config.json` list them: the numbers are
/// places among what reads texts, and among the modules behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// What reads texts: a Transformer or a StaticEmbedding.
    Input(usize),
    /// A module behind.
    Module(usize),
    /// One of several routes.
    Router(Router),
}

impl Step {
    /// Numbers what reads texts anew.
    pub(crate) fn renumber_inputs(&mut self, number: &dyn Fn(usize) -> usize) {
        match self {
            Self::Input(input) => *input = number(*input),
            Self::Module(_) => {}
            Self::Router(router) => {
                let routes = router.routes.iter_mut();
                for step in routes.flat_map(|route| &mut route.steps) {
                    step.renumber_inputs(number);
                }
            }
        }
    }
}

/// One route of a Router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name, by which it is chosen: often `query` or `document`.
    pub name: String,
    /// Its steps; several routes can have the same ones.
    pub steps: Vec<Step>,
}

/// Chooses the modules that texts go through by what they are encoded for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    routes: Vec<Route>,
    default_route: Option<String>,
    allow_empty_key: bool,
    mappings: Vec<RouteMapping>,
}

impl Router {
    /// A router. Without a `default_route`, texts that are for no task take the first route if
    /// `allow_empty_key`, else none.
    ///
    /// # Errors
    /// [`ModuleError::InvalidRouter`] where there is no route, or none of the name that
    /// something leads to.
    pub fn new(
        routes: Vec<Route>,
        default_route: Option<String>,
        allow_empty_key: bool,
        mappings: Vec<RouteMapping>,
    ) -> Result<Self> {
        let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
        let invalid = |reason: String| Err(ModuleError::InvalidRouter { reason }.into());
        let Some(first) = names.first() else {
            return invalid("there is no route".to_owned());
        };
        if let Some(route) = routes.iter().find(|route| route.steps.is_empty()) {
            return invalid(format!("route `{}` has no modules", route.name));
        }
        let targets = mappings.iter().map(|mapping| &mapping.route);
        for target in default_route.iter().chain(targets) {
            if !names.contains(&target.as_str()) {
                return invalid(format!("no route `{target}`: there are {names:?}"));
            }
        }
        let default_route = default_route.or_else(|| allow_empty_key.then(|| (*first).to_owned()));
        Ok(Self {
            routes,
            default_route,
            allow_empty_key,
            mappings,
        })
    }

    /// A router of queries and documents; texts that are for neither are documents.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_query_document(query: Vec<Step>, document: Vec<Step>) -> Result<Self> {
        let route = |name: &str, steps| Route {
            name: name.to_owned(),
            steps,
        };
        let routes = vec![route("query", query), route("document", document)];
        Self::new(routes, Some("document".to_owned()), true, Vec::new())
    }

    /// The routes, in their order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route of texts that are for no task, if they have one.
    pub fn default_route(&self) -> Option<&str> {
        self.default_route.as_deref()
    }

    /// Whether the first route is the default one where none is named.
    pub fn allow_empty_key(&self) -> bool {
        self.allow_empty_key
    }

    /// Which tasks and modalities lead where, beside the routes' own names.
    pub fn mappings(&self) -> &[RouteMapping] {
        &self.mappings
    }

    /// The route of texts for that task (`Router._resolve_route` of Sentence Transformers).
    ///
    /// # Errors
    /// [`ModuleError::NoRoute`].
    pub fn resolve(&self, task: Option<&str>) -> Result<&Route> {
        let mapped = [
            (task, Some(TEXT)),
            (task, None),
            (None, Some(TEXT)),
            (None, None),
        ];
        let mapped = mapped.iter().find_map(|&(task, modality)| {
            let mut mappings = self.mappings.iter();
            mappings.find(|mapping| mapping.is_for(task, modality))
        });
        let named = |name: &str| self.routes.iter().find(|route| route.name == name);
        let found = match mapped {
            Some(mapping) => named(&mapping.route),
            None => task
                .filter(|task| !task.is_empty())
                .and_then(named)
                .or_else(|| named(TEXT)),
        };
        let default = || match task {
            Some(_) => None,
            None => self.default_route.as_deref().and_then(named),
        };
        Ok(found.or_else(default).ok_or_else(|| ModuleError::NoRoute {
            task: task.map(str::to_owned),
            routes: self.routes.iter().map(|route| route.name.clone()).collect(),
        })?)
    }

    /// The tasks that anything is named after.
    fn tasks(&self) -> Vec<&str> {
        let names = self.routes.iter().map(|route| route.name.as_str());
        let mapped = self.mappings.iter().flat_map(|m| m.task.as_deref());
        let inner = self.routes.iter().flat_map(|route| tasks(&route.steps));
        names.chain(mapped).chain(inner).collect()
    }
}

/// The tasks that the routers among these steps know.
fn tasks(steps: &[Step]) -> Vec<&str> {
    let routers = steps.iter().filter_map(|step| match step {
        Step::Router(router) => Some(router.tasks()),
        _ => None,
    });
    routers.flatten().collect()
}

/// The way that texts of a task take through a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What reads them.
    pub input: usize,
    /// The modules behind, in their order.
    pub modules: Vec<usize>,
}

impl Way {
    /// The way through these steps for that task.
    ///
    /// # Errors
    /// [`ModuleError::NoRoute`], or [`ModuleError::InvalidPipeline`] where it does not begin
    /// with the one module that reads texts.
    pub fn of(steps: &[Step], task: Option<&str>) -> Result<Self> {
        let mut flat = Vec::new();
        flatten(steps, task, &mut flat)?;
        let invalid = |reason: &str| ModuleError::InvalidPipeline {
            reason: reason.to_owned(),
        };
        let Some((Step::Input(input), rest)) = flat.split_first() else {
            let reason = "the first module must be one that reads texts: a Transformer or a \
                          StaticEmbedding";
            return Err(invalid(reason).into());
        };
        let modules = rest.iter().map(|step| match step {
            Step::Module(module) => Ok(*module),
            _ => Err(invalid("a second module that reads texts stands behind the first").into()),
        });
        Ok(Self {
            input: *input,
            modules: modules.collect::<Result<_>>()?,
        })
    }

    /// Every way through these steps: first that of no task, if there is one.
    ///
    /// # Errors
    /// As [`of`](Self::of), but for a task that has no route.
    pub fn all(steps: &[Step]) -> Result<Vec<Self>> {
        let mut ways: Vec<Self> = Vec::new();
        let mut missing = None;
        let known = tasks(steps).into_iter().map(Some);
        for task in [None].into_iter().chain(known) {
            match Self::of(steps, task) {
                Ok(way) if ways.contains(&way) => {}
                Ok(way) => ways.push(way),
                Err(error) => match error {
                    crate::Error::Module(ModuleError::NoRoute { .. }) => missing = Some(error),
                    other => return Err(other),
                },
            }
        }
        match missing {
            Some(error) if ways.is_empty() => Err(error),
            _ => Ok(ways),
        }
    }
}

fn flatten<'a>(steps: &'a [Step], task: Option<&str>, flat: &mut Vec<&'a Step>) -> Result<()> {
    for step in steps {
        match step {
            Step::Router(router) => flatten(&router.resolve(task)?.steps, task, flat)?,
            step => flat.push(step),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn route(name: &str, steps: &[Step]) -> Route {
        Route {
            name: name.to_owned(),
            steps: steps.to_vec(),
        }
    }

    fn router(names: &[&str], default: Option<&str>, mappings: &[(&str, &str)]) -> Router {
        let routes = names.iter().enumerate();
        let routes = routes.map(|(index, name)| route(name, &[Step::Input(index)]));
        let mappings = mappings
            .iter()
            .map(|(key, route)| RouteMapping::parse(key, route).unwrap());
        let default = default.map(str::to_owned);
        Router::new(routes.collect(), default, false, mappings.collect()).unwrap()
    }

    fn name<'a>(router: &'a Router, task: Option<&str>) -> Option<&'a str> {
        router.resolve(task).ok().map(|route| route.name.as_str())
    }

    #[test]
    fn tasks_choose_routes_in_the_reference_s_order() {
        let plain = router(&["query", "document"], Some("document"), &[]);
        assert_eq!(name(&plain, Some("query")), Some("query"));
        assert_eq!(name(&plain, None), Some("document"));
        assert!(matches!(
            plain.resolve(Some("sts")),
            Err(Error::Module(ModuleError::NoRoute { task: Some(task), .. })) if task == "sts"
        ));
        assert_eq!(name(&router(&["a", "b"], None, &[]), None), None);
        assert_eq!(
            name(&router(&["image", "text"], None, &[]), None),
            Some("text")
        );
        assert_eq!(
            name(&router(&["image", "text"], None, &[]), Some("x")),
            Some("text")
        );
        let all = ["exact", "task", "text_of_any", "any", "query"];
        let mapped = [
            ("('query', 'text')", "exact"),
            ("('query', None)", "task"),
            ("(None, 'text')", "text_of_any"),
            ("(None, None)", "any"),
        ];
        for (left_out, expected) in all.into_iter().enumerate() {
            let mapped = &mapped[left_out.min(4)..];
            let router = router(&all, None, mapped);
            assert_eq!(name(&router, Some("query")), Some(expected));
        }
        let images = router(&all, None, &[("(None, ('image', 'text'))", "any")]);
        assert_eq!(name(&images, Some("query")), Some("query"));
    }

    #[test]
    fn the_first_route_is_the_default_where_that_is_allowed() {
        let routes = || vec![route("a", &[Step::Input(0)]), route("b", &[Step::Input(1)])];
        let router = Router::new(routes(), None, true, Vec::new()).unwrap();
        assert_eq!(router.default_route(), Some("a"));
        let unknown = Some("c".to_owned());
        for (routes, default) in [
            (routes(), unknown),
            (Vec::new(), None),
            (vec![route("a", &[])], None),
        ] {
            assert!(matches!(
                Router::new(routes, default, true, Vec::new()),
                Err(Error::Module(ModuleError::InvalidRouter { .. }))
            ));
        }
    }

    #[test]
    fn ways_lead_through_every_router() {
        let heads = Router::for_query_document(vec![Step::Module(1)], vec![Step::Module(2)]);
        let steps = [
            Step::Input(0),
            Step::Module(0),
            Step::Router(heads.unwrap()),
            Step::Module(3),
        ];
        let way = |modules: [usize; 3]| Way {
            input: 0,
            modules: modules.to_vec(),
        };
        assert_eq!(Way::of(&steps, Some("query")).unwrap(), way([0, 1, 3]));
        assert_eq!(Way::all(&steps).unwrap(), [way([0, 2, 3]), way([0, 1, 3])]);
        for steps in [
            vec![],
            vec![Step::Module(0)],
            vec![Step::Input(0), Step::Input(1)],
        ] {
            assert!(matches!(
                Way::all(&steps),
                Err(Error::Module(ModuleError::InvalidPipeline { .. }))
            ));
        }
    }
}
