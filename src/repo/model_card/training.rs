use std::fmt::{self, Write};
use std::time::Duration;

use super::adapter::grouped;
use super::description::{named, python};
use super::table::{indented, rounded, table};
use crate::model::{CardDataset, CardLogLine, CardLoss, CardTraining, ModelCardData};

/// How many samples a column's statistics are of.
const STATISTICS: usize = 100;

/// The longest log that is shown at once.
const LOG_LINES: usize = 100;

/// Writes what the model was trained on, how, and what came of it.
pub(super) fn describe(text: &mut String, card: &ModelCardData) -> fmt::Result {
    writeln!(text, "## Training Details\n")?;
    datasets(text, "Training", &card.train_datasets)?;
    datasets(text, "Evaluation", &card.eval_datasets)?;
    match &card.training {
        Some(training) => run(text, training),
        None => Ok(()),
    }
}

fn datasets(text: &mut String, kind: &str, datasets: &[CardDataset]) -> fmt::Result {
    // One that only has a name, given by whoever loaded the model, says nothing here.
    let datasets: Vec<&CardDataset> = datasets.iter().filter(|set| set.size > 0).collect();
    if datasets.is_empty() {
        return Ok(());
    }
    let plural = if datasets.len() > 1 { "s" } else { "" };
    writeln!(text, "### {kind} Dataset{plural}\n")?;
    for dataset in &datasets {
        let name = dataset.name.as_ref().or(dataset.id.as_ref());
        let name = name.map_or("Unnamed Dataset", String::as_str);
        let is_folded = datasets.len() > 3;
        if is_folded {
            writeln!(text, "<details><summary>{name}</summary>\n")?;
        }
        writeln!(text, "#### {name}\n")?;
        one_dataset(text, kind, dataset)?;
        if is_folded {
            writeln!(text, "</details>\n")?;
        }
    }
    Ok(())
}

fn one_dataset(text: &mut String, kind: &str, dataset: &CardDataset) -> fmt::Result {
    if let Some(named) = named(dataset) {
        write!(text, "* Dataset: {named}")?;
        if let (Some(id), Some(revision)) = (&dataset.id, &dataset.revision) {
            let short: String = revision.chars().take(7).collect();
            let tree = format!("https://huggingface.co/datasets/{id}/tree/{revision}");
            write!(text, " at [{short}]({tree})")?;
        }
        writeln!(text)?;
    }
    let size = grouped(dataset.size);
    writeln!(text, "* Size: {size} {} samples", kind.to_lowercase())?;
    let columns: Vec<String> = dataset
        .columns
        .iter()
        .map(|column| format!("<code>{}</code>", column.name))
        .collect();
    let columns = match columns.as_slice() {
        [.., _, _, _] => {
            let (last, others) = (&columns[columns.len() - 1], &columns[..columns.len() - 1]);
            format!("{}, and {last}", others.join(", "))
        }
        few => few.join(" and "),
    };
    writeln!(text, "* Columns: {columns}")?;
    let names = dataset.columns.iter().map(|column| column.name.clone());
    let names: Vec<String> = names.collect();
    let header: Vec<String> = [String::new()].into_iter().chain(names.clone()).collect();
    let row = |name: &str, cell: &dyn Fn(usize) -> String| -> Vec<String> {
        let cells = (0..names.len()).map(cell);
        [name.to_owned()].into_iter().chain(cells).collect()
    };
    let rows = [
        row("type", &|at| dataset.columns[at].kind.to_owned()),
        row("modality", &|at| match dataset.columns[at].kind {
            "string" => "text".to_owned(),
            _ => String::new(),
        }),
        row("details", &|at| details(&dataset.columns[at].details)),
    ];
    writeln!(
        text,
        "* Approximate statistics based on the first {} samples:\n{}* Samples:",
        dataset.size.min(STATISTICS),
        indented(&table(&header, &rows))
    )?;
    let samples: Vec<Vec<String>> = dataset
        .samples
        .iter()
        .map(|sample| sample.iter().map(|value| code(value)).collect())
        .collect();
    write!(text, "{}", indented(&table(&names, &samples)))?;
    match &dataset.loss {
        Some(loss) => writeln!(text, "{}", described(loss)),
        None => writeln!(text),
    }
}

fn details(details: &[(String, String)]) -> String {
    if details.is_empty() {
        return String::new();
    }
    let items: Vec<String> = details
        .iter()
        .map(|(name, value)| format!("<li>{name}: {value}</li>"))
        .collect();
    format!("<ul>{}</ul>", items.concat())
}

/// A sample's value, cut where it would fill the page.
fn code(value: &str) -> String {
    let mut cut: String = value.chars().take(1000).collect();
    if cut.len() < value.len() {
        cut.push_str("...");
    }
    format!("<code>{cut}</code>")
}

fn described(loss: &CardLoss) -> String {
    let name = &loss.name;
    let page = "https://sbert.net/docs/package_reference/sentence_transformer/losses.html";
    let mut text = format!(
        "* Loss: [<code>{name}</code>]({page}#{})",
        name.to_lowercase()
    );
    if !loss.parameters.is_empty() {
        let json = serde_json::Value::Object(loss.parameters.clone());
        let mut lines = String::new();
        for line in format!("{json:#}").lines() {
            // Four spaces a level, as Python indents it.
            let level = (line.len() - line.trim_start().len()) * 2;
            lines.push_str(&format!("{}{}\n", " ".repeat(level), line.trim_start()));
        }
        let block = indented(&format!("```json\n{lines}```"));
        text = format!("{text} with these parameters:\n{block}");
    } else {
        text.push('\n');
    }
    text
}

fn run(text: &mut String, training: &CardTraining) -> fmt::Result {
    let changed = training
        .arguments
        .iter()
        .filter(|argument| !argument.is_default);
    writeln!(text, "### Training Hyperparameters\n")?;
    if changed.clone().count() > 0 {
        writeln!(text, "#### Non-Default Hyperparameters\n")?;
        for argument in changed {
            writeln!(text, "- `{}`: {}", argument.name, shown(&argument.value))?;
        }
        writeln!(text)?;
    }
    writeln!(
        text,
        "#### All Hyperparameters\n\n<details><summary>Click to expand</summary>\n"
    )?;
    for argument in &training.arguments {
        writeln!(text, "- `{}`: {}", argument.name, shown(&argument.value))?;
    }
    writeln!(text, "\n</details>\n")?;
    if !training.log.is_empty() {
        log(text, training)?;
    }
    writeln!(
        text,
        "### Training Time\n- **Training**: {}",
        duration(training.training_time)
    )?;
    if !training.evaluation_time.is_zero() {
        let all = training.training_time + training.evaluation_time;
        writeln!(
            text,
            "- **Evaluation**: {}\n- **Total**: {}",
            duration(training.evaluation_time),
            duration(all)
        )?;
    }
    writeln!(text)
}

/// An argument's value: text without quotes, anything else as Python prints it.
fn shown(value: &serde_json::Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => python(value),
    }
}

fn log(text: &mut String, training: &CardTraining) -> fmt::Result {
    let mut columns: Vec<&str> = Vec::new();
    let measured = training.log.iter().flat_map(|line| &line.values);
    for (name, _) in measured {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    // Losses come first, in the order that Python has them in.
    columns.sort_by_key(|name| match *name {
        "Training Loss" => 0,
        "Validation Loss" => 1,
        name if name.ends_with("loss") => 2,
        _ => 3,
    });
    let header: Vec<&str> = ["Epoch", "Step"]
        .into_iter()
        .chain(columns.clone())
        .collect();
    let row = |line: &CardLogLine| -> Vec<String> {
        let value = |name: &&str| {
            let found = line.values.iter().find(|(measured, _)| measured == name);
            found.map_or("-".to_owned(), |(_, value)| rounded(*value))
        };
        let cells = [rounded(line.epoch), line.step.to_string()];
        let cells = cells.into_iter().chain(columns.iter().map(value));
        match training.best_step == Some(line.step) {
            true => cells.map(|cell| format!("**{cell}**")).collect(),
            false => cells.collect(),
        }
    };
    let rows: Vec<Vec<String>> = training.log.iter().map(row).collect();
    let is_long = rows.len() > LOG_LINES;
    writeln!(text, "### Training Logs\n")?;
    if is_long {
        writeln!(text, "<details><summary>Click to expand</summary>\n")?;
    }
    writeln!(text, "{}", table(&header, &rows))?;
    if training.best_step.is_some() {
        writeln!(text, "* The bold row denotes the saved checkpoint.\n")?;
    }
    if is_long {
        writeln!(text, "</details>\n")?;
    }
    Ok(())
}

/// A time as people say it.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..60.0 => format!("{seconds:.1} seconds"),
        ..3600.0 => format!("{:.1} minutes", seconds / 60.0),
        ..86_400.0 => format!("{:.1} hours", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        let times = [3.0, 90.0, 5400.0, 129_600.0].map(Duration::from_secs_f64);
        let expected = ["3.0 seconds", "1.5 minutes", "1.5 hours", "1.5 days"];
        assert_eq!(times.map(duration), expected);
    }

    #[test]
    fn the_kept_step_is_bold_and_long_logs_are_folded() {
        let line = |step| CardLogLine {
            epoch: 0.5,
            step,
            values: vec![
                ("score".to_owned(), 0.25),
                ("Training Loss".to_owned(), 2.0),
            ],
        };
        let mut training = CardTraining {
            log: (1..4).map(line).collect(),
            best_step: Some(2),
            ..CardTraining::default()
        };
        let mut text = String::new();
        log(&mut text, &training).unwrap();
        assert!(
            text.contains("| Epoch   | Step  | Training Loss | score    |"),
            "{text}"
        );
        assert!(
            text.contains("| **0.5** | **2** | **2.0**       | **0.25** |"),
            "{text}"
        );
        assert!(
            text.contains("| 0.5     | 3     | 2.0           | 0.25     |"),
            "{text}"
        );
        assert!(text.contains("The bold row") && !text.contains("<details>"));
        training.log = (0..101).map(line).collect();
        let mut text = String::new();
        log(&mut text, &training).unwrap();
        assert!(text.contains("<details>") && text.contains("</details>"));
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = "ä".repeat(1001);
        assert_eq!(code(&long), format!("<code>{}...</code>", "ä".repeat(1000)));
        assert_eq!(code("short"), "<code>short</code>");
    }
}
