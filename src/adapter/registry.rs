use super::LoraConfig;
use crate::error::{AdapterError, Result};

/// The name of an adapter that is added or loaded without one.
pub const DEFAULT_ADAPTER: &str = "default";

/// One adapter of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterEntry {
    /// Its name.
    pub name: String,
    /// Its configuration, with the target modules it was resolved to.
    pub config: LoraConfig,
    /// Whether it trains while it is active.
    pub trainable: bool,
}

/// Which adapters a model has, which are active, and whether they are enabled.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterRegistry {
    entries: Vec<AdapterEntry>,
    active: Vec<String>,
    enabled: bool,
}

impl Default for AdapterRegistry {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            active: Vec::new(),
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

    /// Whether this adapter takes part in the forward pass.
    pub fn is_applied(&self, name: &str) -> bool {
        self.enabled && self.active.iter().any(|active| active == name)
    }

    /// Whether this adapter trains: it is trainable and takes part in the forward pass.
    pub fn is_trained(&self, name: &str) -> bool {
        let trainable = |entry: &AdapterEntry| entry.name == name && entry.trainable;
        self.is_applied(name) && self.entries.iter().any(trainable)
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
    pub fn add(&mut self, name: &str, config: LoraConfig, trainable: bool) -> Result<()> {
        self.require_free(name)?;
        self.entries.push(AdapterEntry {
            name: name.to_owned(),
            config,
            trainable,
        });
        self.active = vec![name.to_owned()];
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
        self.active = names.iter().map(|name| name.as_ref().to_owned()).collect();
        self.active.dedup();
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
    use crate::error::Error;

    fn registry(names: &[&str]) -> AdapterRegistry {
        let mut registry = AdapterRegistry::default();
        for name in names {
            registry.add(name, LoraConfig::default(), true).unwrap();
        }
        registry
    }

    #[test]
    fn the_last_one_added_is_the_only_active_one() {
        assert_eq!(registry(&["a", "b"]).active(), ["b"]);
    }

    #[test]
    fn only_active_trainable_adapters_train() {
        let mut r = registry(&["a"]);
        r.add("frozen", LoraConfig::default(), false).unwrap();
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
            r.add("a", LoraConfig::default(), true),
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
