use std::ops::Range;
use std::sync::Arc;

use crate::kernel::Mode;

/// One forward pass through an encoder: what it is for, and which adapters its tokens go
/// through.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// Whether to drop out.
    pub mode: Mode,
    /// The tokens' adapters, without gaps from the first token to the last; `None` means
    /// the active adapters for all of them.
    pub routes: Option<&'a [AdapterRoute]>,
}

impl Pass<'_> {
    /// A pass through the active adapters.
    pub fn new(mode: Mode) -> Self {
        Self { mode, routes: None }
    }
}

/// Tokens that follow each other and go through the same adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterRoute {
    /// The tokens' places in the packed batch.
    pub tokens: Range<usize>,
    /// The adapters, which add up in this order; none is the base model.
    pub adapters: Arc<[String]>,
}

/// One named adapter of one layer.
pub(super) trait NamedAdapter {
    /// Its name.
    fn name(&self) -> &str;

    /// Its place among the active adapters; none where it does not take part.
    fn place(&self) -> Option<usize>;

    /// Sets its place among the active adapters.
    fn set_place(&mut self, place: Option<usize>);
}

/// Gives each adapter its place among the active ones.
pub(super) fn activate<A: NamedAdapter>(adapters: &mut [A], active: &[String]) {
    for adapter in adapters {
        let place = active.iter().position(|name| name == adapter.name());
        adapter.set_place(place);
    }
}

/// The active adapters in their order.
pub(super) fn active<A: NamedAdapter>(adapters: &[A]) -> Vec<&A> {
    let mut active: Vec<&A> = adapters.iter().filter(|a| a.place().is_some()).collect();
    active.sort_by_key(|adapter| adapter.place());
    active
}

/// The adapters of these names in the names' order; a layer need not have them all.
pub(super) fn named<'a, A: NamedAdapter>(adapters: &'a [A], names: &[String]) -> Vec<&'a A> {
    let find = |name: &String| adapters.iter().find(|adapter| adapter.name() == name);
    names.iter().filter_map(find).collect()
}

/// The adapters that a pass goes through, by tokens; one group of all tokens where all go
/// through the same.
pub(super) fn groups<'a, A: NamedAdapter>(
    adapters: &'a [A],
    pass: Pass<'_>,
    tokens: usize,
) -> Vec<(Range<usize>, Vec<&'a A>)> {
    match pass.routes {
        None => vec![(0..tokens, active(adapters))],
        // A layer that no adapter is on need not be cut up.
        Some(_) if adapters.is_empty() => vec![(0..tokens, Vec::new())],
        Some(routes) => routes
            .iter()
            .map(|route| (route.tokens.clone(), named(adapters, &route.adapters)))
            .collect(),
    }
}
