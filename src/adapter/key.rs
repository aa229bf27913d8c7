/// What PEFT puts in front of every tensor it saves.
const SAVED_PREFIX: &str = "base_model.model.";

/// A layer's key as PEFT saves it.
pub fn saved_key(key: &str) -> String {
    format!("{SAVED_PREFIX}{key}")
}

/// A saved key as the encoder names it: without PEFT's prefix, without that of the model with
/// a head that the adapter was trained on, such as `bert.`, and in the newer of two spellings
/// of DoRA's magnitudes.
///
/// `head_prefixes` are the encoder's own.
pub fn normalize_key(key: &str, head_prefixes: &[&str]) -> String {
    let key = key.strip_prefix(SAVED_PREFIX).unwrap_or(key);
    let stripped = head_prefixes
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix));
    let key = stripped.unwrap_or(key);
    match key.strip_suffix(".lora_magnitude_vector.weight") {
        Some(path) => format!("{path}.lora_magnitude_vector"),
        None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_spellings_name_the_same_layer() {
        let name = "encoder.layer.0.attention.self.query.lora_A.weight";
        for key in [
            saved_key(name),
            format!("base_model.model.bert.{name}"),
            name.to_owned(),
        ] {
            assert_eq!(normalize_key(&key, &["bert."]), name);
        }
        let magnitude = normalize_key("a.lora_magnitude_vector.weight", &[]);
        assert_eq!(magnitude, "a.lora_magnitude_vector");
        assert_ne!(normalize_key(&format!("other.{name}"), &["bert."]), name);
    }
}
