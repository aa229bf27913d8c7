use std::fmt::{self, Display, Write};

use burn::tensor::backend::Backend;

use super::base_model;
use super::table::table;
use crate::adapter::{AdapterEntry, ModuleNames, PeftConfig};
use crate::model::SentenceTransformer;

/// Writes what the adapter is, which Python's own card leaves out.
pub(super) fn describe<B: Backend>(
    text: &mut String,
    model: &SentenceTransformer<B>,
    adapter: &AdapterEntry,
) -> fmt::Result {
    let config = &adapter.config;
    let mut rows = Vec::new();
    let mut row =
        |name: &str, value: &dyn Display| rows.push(vec![name.to_owned(), value.to_string()]);
    match config {
        PeftConfig::Lora(config) => {
            let kind = match config.use_dora {
                true => "LoRA (DoRA)",
                false => "LoRA",
            };
            row("Type", &kind);
            row("Rank", &config.r);
            row("Alpha", &config.lora_alpha);
            let scale = match config.use_rslora {
                true => config.lora_alpha / (config.r as f64).sqrt(),
                false => config.lora_alpha / config.r as f64,
            };
            row("Scale", &scale);
            row("Dropout", &config.lora_dropout);
        }
        PeftConfig::AdaLora(config) => {
            row("Type", &"AdaLoRA");
            row("First rank", &config.init_r);
            row("Alpha", &config.lora_alpha);
            row("Dropout", &config.lora_dropout);
        }
        PeftConfig::Ia3(_) => row("Type", &"IA³"),
        PeftConfig::Loha(config) => {
            row("Type", &"LoHa");
            row("Rank", &config.r);
            row("Alpha", &config.alpha);
        }
        PeftConfig::Lokr(config) => {
            row("Type", &"LoKr");
            row("Rank", &config.r);
            row("Alpha", &config.alpha);
        }
    }
    let targets = match config.target_modules() {
        Some(ModuleNames::List(names)) => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        }
        Some(ModuleNames::Pattern(pattern)) => format!("`{pattern}`"),
        None => "the architecture's default ones".to_owned(),
    };
    row("Target modules", &targets);
    let tensors = model.get_adapter_state_dict(Some(&adapter.name));
    let parameters = tensors.map_or(0, |tensors| {
        tensors.iter().map(|(_, data)| data.num_elements()).sum()
    });
    let all = model.trainable_parameters().all;
    if parameters > 0 && all > 0 {
        let share = 100.0 * parameters as f64 / all as f64;
        row(
            "Parameters",
            &format!("{} ({share:.2}% of all)", grouped(parameters)),
        );
    }
    if let Some(base) = base_model(model, Some(adapter)) {
        row("Base model", &format!("`{base}`"));
        let revision = config.revision().unwrap_or("main");
        row("Base revision", &format!("`{revision}`"));
    }
    let rows = table(&["Adapter", ""], &rows);
    writeln!(text, "### Adapter\n\n{rows}")
}

/// A number with its digits in groups of three.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let found = [0, 999, 1000, 80_000, 1_234_567].map(grouped);
        assert_eq!(found, ["0", "999", "1,000", "80,000", "1,234,567"]);
    }
}
