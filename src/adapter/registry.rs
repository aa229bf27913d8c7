use super::{AdapterLoadReport, PeftConfig};
use crate::error::{AdapterError, Result};

/// The name of an adapter that is added or loaded without one.
pub const DEFAULT_ADAPTER: &str = "default";

/// One adapter of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterEntry {
    /// Its name.
    pub name: String,
    /// Its configuration, with the target modules it was resolved to.
    pub config: PeftConfig,
    /// Whether it trains while it is active.
    pub trainable: bool,
    /// What became of the tensors that it was loaded from; `None` where it is fresh.
    pub report: Option<AdapterLoadReport>,
}

/// Which adapters a model has, which are active, and whether they are enabled.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterRegistry {
    entries: Vec<AdapterEntry>,
    active: Vec<String>,
    merged: Vec<String>,
    enabled: bool,
}

impl Default for AdapterRegistry {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            active: Vec::new(),
            merged: Vec::new(),
            enabled: true,
        }
    }
}

impl AdapterRegistry {
    /// The adapters in the order they came.
    pub fn entries(&self) -> &[AdapterEntry] {
        &self.entries
    }

    /// The adapters' names in the order they came.
    pub fn names(&self) -> Vec<String> {
        self.entries
            .iter()
            .map(|entry| entry.name.clone())
            .collect()
    }

    /// The active adapters in the order they were set.
    pub fn active(&self) -> &[String] {
        &self.active
    }

    /// Whether active adapters take part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The adapters that take part in the forward pass, in order.
    pub fn applied(&self) -> &[String] {
        match self.enabled {
            true => &self.active,
            false => &[],
        }
    }

    /// Whether this adapter trains: it is trainable, takes part in the forward pass and is
    /// not merged.
    pub fn is_trained(&self, name: &str) -> bool {
        let trainable = |entry: &AdapterEntry| entry.name == name && entry.trainable;
        let is_applied = self.applied().iter().any(|applied| applied == name);
        is_applied && self.merged.is_empty() && self.entries.iter().any(trainable)
    }

    /// The adapters that are merged into the weights.
    pub fn merged(&self) -> &[String] {
        &self.merged
    }

    /// Remembers which adapters are merged into the weights.
    pub fn set_merged(&mut self, merged: Vec<String>) {
        self.merged = merged;
    }

    /// Fails where adapters are merged into the weights.
    ///
    /// # Errors
    /// [`AdapterError::Merged`] for `method`.
    pub fn require_unmerged(&self, method: &'static str) -> Result<()> {
        if self.merged.is_empty() {
            return Ok(());
        }
        let merged = self.merged.clone();
        Err(AdapterError::Merged { method, merged }.into())
    }

    /// Whether there is no adapter.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The adapter of that name.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`] or [`AdapterError::UnknownName`].
    pub fn get(&self, name: &str) -> Result<&AdapterEntry> {
        self.require_any()?;
        let found = self.entries.iter().find(|entry| entry.name == name);
        Ok(found.ok_or_else(|| AdapterError::UnknownName {
            name: name.to_owned(),
            known: self.names(),
        })?)
    }

    /// The one active adapter.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`], or [`AdapterError::NotOneActive`] for `method`.
    pub fn only_active(&self, method: &'static str) -> Result<&AdapterEntry> {
        self.require_any()?;
        match self.active.as_slice() {
            [name] => self.get(name),
            active => Err(AdapterError::NotOneActive {
                method,
                active: active.to_vec(),
            }
            .into()),
        }
    }

    /// Fails where there is no adapter.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`].
    pub fn require_any(&self) -> Result<()> {
        if self.entries.is_empty() {
            return Err(AdapterError::NoAdapter.into());
        }
        Ok(())
    }

    /// Fails where the name is taken.
    ///
    /// # Errors
    /// [`AdapterError::NameTaken`].
    pub fn require_free(&self, name: &str) -> Result<()> {
        if self.entries.iter().any(|entry| entry.name == name) {
            return Err(AdapterError::NameTaken {
                name: name.to_owned(),
            }
            .into());
        }
        Ok(())
    }

    /// Adds an adapter, which becomes the only active one.
    ///
    /// # Errors
    /// [`AdapterError::NameTaken`].
    pub fn add(&mut self, entry: AdapterEntry) -> Result<()> {
        self.require_free(&entry.name)?;
        self.active = vec![entry.name.clone()];
        self.entries.push(entry);
        Ok(())
    }

    /// Puts an adapter in the place of the one of the same name, which stays active or not.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`] or [`AdapterError::UnknownName`].
    pub fn replace(&mut self, entry: AdapterEntry) -> Result<()> {
        self.get(&entry.name)?;
        let old = self.entries.iter_mut().find(|old| old.name == entry.name);
        if let Some(old) = old {
            *old = entry;
        }
        Ok(())
    }

    /// Gives an adapter another configuration.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`] or [`AdapterError::UnknownName`].
    pub fn set_config(&mut self, name: &str, config: PeftConfig) -> Result<()> {
        self.get(name)?;
        for entry in self.entries.iter_mut().filter(|entry| entry.name == name) {
            entry.config = config.clone();
        }
        Ok(())
    }

    /// Makes exactly these adapters active; none of them leaves the base model.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`] or [`AdapterError::UnknownName`]; nothing is changed.
    pub fn set_active<S: AsRef<str>>(&mut self, names: &[S]) -> Result<()> {
        self.require_any()?;
        for name in names {
            self.get(name.as_ref())?;
        }
        self.active.clear();
        for name in names.iter().map(AsRef::as_ref) {
            if !self.active.iter().any(|active| active == name) {
                self.active.push(name.to_owned());
            }
        }
        Ok(())
    }

    /// Lets active adapters take part in the forward pass, or not.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`].
    pub fn set_enabled(&mut self, enabled: bool) -> Result<()> {
        self.require_any()?;
        self.enabled = enabled;
        Ok(())
    }

    /// Removes adapters. Where no active one remains, the alphabetically first of the
    /// rest becomes active, as in PEFT.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`] or [`AdapterError::UnknownName`]; nothing is changed.
    pub fn remove<S: AsRef<str>>(&mut self, names: &[S]) -> Result<()> {
        self.require_any()?;
        for name in names {
            self.get(name.as_ref())?;
        }
        let removed = |name: &str| names.iter().any(|removed| removed.as_ref() == name);
        let was_active = self.active.iter().any(|name| removed(name));
        self.entries.retain(|entry| !removed(&entry.name));
        self.active.retain(|name| !removed(name));
        if was_active && self.active.is_empty() {
            self.active = self.names().into_iter().min().into_iter().collect();
        }
        if self.entries.is_empty() {
            *self = Self::default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::LoraConfig;
    use crate::error::Error;

    fn entry(name: &str, trainable: bool) -> AdapterEntry {
        AdapterEntry {
            name: name.to_owned(),
            config: LoraConfig::default().into(),
            trainable,
            report: None,
        }
    }

    fn registry(names: &[&str]) -> AdapterRegistry {
        let mut registry = AdapterRegistry::default();
        for name in names {
            registry.add(entry(name, true)).unwrap();
        }
        registry
    }

    #[test]
    fn a_name_counts_once_in_the_order_it_is_first_given() {
        let mut r = registry(&["a", "b"]);
        r.set_active(&["b", "a", "b"]).unwrap();
        assert_eq!(r.active(), ["b", "a"]);
    }

    #[test]
    fn merged_adapters_do_not_train_and_are_named() {
        let mut r = registry(&["a"]);
        r.set_merged(vec!["a".to_owned()]);
        assert!(!r.is_trained("a"));
        let error = r.require_unmerged("encode").unwrap_err();
        assert!(
            matches!(&error, Error::Adapter(AdapterError::Merged { merged, .. }) if merged == &["a"])
        );
    }

    #[test]
    fn a_replaced_adapter_stays_active() {
        let mut r = registry(&["a", "b"]);
        r.set_active(&["a"]).unwrap();
        r.replace(entry("a", false)).unwrap();
        assert!(r.active() == ["a"] && !r.is_trained("a"));
        assert!(r.replace(entry("c", true)).is_err());
    }

    #[test]
    fn the_last_one_added_is_the_only_active_one() {
        assert_eq!(registry(&["a", "b"]).active(), ["b"]);
    }

    #[test]
    fn only_active_trainable_adapters_train() {
        let mut r = registry(&["a"]);
        r.add(entry("frozen", false)).unwrap();
        assert!(!r.is_trained("frozen") && !r.is_trained("a"));
        r.set_active(&["a", "frozen"]).unwrap();
        assert!(!r.is_trained("frozen") && r.is_trained("a"));
        r.set_enabled(false).unwrap();
        assert!(!r.is_trained("a"));
    }

    #[test]
    fn any_name_is_legal() {
        let names = ["a.b", "train", "keys", "", "ä/../x"];
        assert_eq!(registry(&names).names(), names);
    }

    #[test]
    fn a_failed_change_leaves_the_registry_as_it_was() {
        let mut r = registry(&["a", "b"]);
        let before = r.clone();
        assert!(matches!(
            r.add(entry("a", true)),
            Err(Error::Adapter(AdapterError::NameTaken { .. }))
        ));
        assert!(matches!(
            r.set_active(&["a", "x"]),
            Err(Error::Adapter(AdapterError::UnknownName { .. }))
        ));
        assert!(matches!(
            r.remove(&["b", "x"]),
            Err(Error::Adapter(AdapterError::UnknownName { .. }))
        ));
        assert_eq!(r, before);
    }

    #[test]
    fn removing_the_active_one_activates_the_first_of_the_rest() {
        let mut r = registry(&["c", "b", "a"]);
        r.set_active(&["b"]).unwrap();
        r.remove(&["b"]).unwrap();
        assert_eq!(r.active(), ["a"]);
        r.set_active(&["a", "c"]).unwrap();
        r.remove(&["a"]).unwrap();
        assert_eq!(r.active(), ["c"]);
        r.remove(&["c"]).unwrap();
        assert_eq!(r, AdapterRegistry::default());
    }

    #[test]
    fn nothing_works_without_an_adapter() {
        let mut r = AdapterRegistry::default();
        let is_no_adapter = |result: Result<()>| {
            assert!(matches!(
                result,
                Err(Error::Adapter(AdapterError::NoAdapter))
            ));
        };
        is_no_adapter(r.set_active(&["a"]));
        is_no_adapter(r.set_enabled(false));
        is_no_adapter(r.remove(&["a"]));
        is_no_adapter(r.only_active("save").map(|_| ()));
    }
}
