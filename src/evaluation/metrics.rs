use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::prefixed;

/// Named measurements, in the order they were taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// No measurement yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a measurement, or replaces the one of that name.
    pub fn insert(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The measurement of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter()
            .find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The measurements, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The number of measurements.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no measurement.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A JSON object of the measurements, in order; one that is undefined (NaN) is `null`.
    pub fn to_json(&self) -> Value {
        let object: Map<String, Value> = self
            .iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        Value::Object(object)
    }

    /// The same measurements with an evaluator's name before each one's own.
    pub(super) fn named(self, evaluator: &str) -> Self {
        self.0
            .into_iter()
            .map(|(name, value)| (prefixed(evaluator, &name), value))
            .collect()
    }
}

/// As [`Metrics::to_json`].
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = IndexMap::<String, Option<f64>>::deserialize(deserializer)?;
        let measurement = |(name, value): (String, Option<f64>)| (name, value.unwrap_or(f64::NAN));
        Ok(object.into_iter().map(measurement).collect())
    }
}

impl<S: Into<String>> FromIterator<(S, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (S, f64)>>(measurements: I) -> Self {
        let mut metrics = Self::new();
        metrics.extend(measurements);
        metrics
    }
}

impl<S: Into<String>> Extend<(S, f64)> for Metrics {
    fn extend<I: IntoIterator<Item = (S, f64)>>(&mut self, measurements: I) {
        for (name, value) in measurements {
            self.insert(name, value);
        }
    }
}

impl IntoIterator for Metrics {
    type Item = (String, f64);
    type IntoIter = std::vec::IntoIter<(String, f64)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_and_replaces_by_name() {
        let mut metrics: Metrics = [("b", 1.0), ("a", 2.0)].into_iter().collect();
        metrics.insert("b", 3.0);
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("b", 3.0), ("a", 2.0)]);
        assert_eq!(metrics.get("a"), Some(2.0));
        assert_eq!(metrics.get("c"), None);
    }

    #[test]
    fn writes_json_in_order_and_nan_as_null() {
        let metrics: Metrics = [("z", 0.5), ("a", f64::NAN)].into_iter().collect();
        assert_eq!(metrics.to_json().to_string(), r#"{"z":0.5,"a":null}"#);
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let metrics: Metrics = [("z", 0.5), ("a", f64::NAN)].into_iter().collect();
        let json = serde_json::to_string(&metrics).unwrap_or_default();
        let read: Metrics = serde_json::from_str(&json).unwrap_or_default();
        assert_eq!(read.get("z"), Some(0.5));
        assert!(read.get("a").is_some_and(f64::is_nan));
        assert_eq!(
            read.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["z", "a"]
        );
    }

    #[test]
    fn an_evaluator_s_name_goes_in_front() {
        let metrics: Metrics = [("map", 0.5)].into_iter().collect();
        assert_eq!(metrics.clone().named("dev").get("dev_map"), Some(0.5));
        assert_eq!(metrics.named("").get("map"), Some(0.5));
    }
}
