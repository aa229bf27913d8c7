use std::fmt::Write;

/// A Markdown table, padded so that it reads well as plain text too.
///
/// Rows that are shorter than the header end in empty cells.
pub(super) fn table<H: AsRef<str>, C: AsRef<str>>(header: &[H], rows: &[Vec<C>]) -> String {
    let header: Vec<String> = header.iter().map(|cell| escape(cell.as_ref())).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cell = |column: usize| {
                row.get(column)
                    .map_or(String::new(), |c| escape(c.as_ref()))
            };
            (0..header.len()).map(cell).collect()
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| &row[column]);
        let widths = cells.chain([&header[column]]).map(|c| c.chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        text.push('|');
        for (cell, width) in cells.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(text, " {cell:width$} |");
        }
        text.push('\n');
    };
    line(&header);
    let rule: Vec<String> = widths
        .iter()
        .map(|width| format!(":{}", "-".repeat(*width)))
        .collect();
    let rule = format!(
        "|{}|\n",
        rule.iter()
            .map(|r| format!("{r}-"))
            .collect::<Vec<_>>()
            .join("|")
    );
    for row in &rows {
        line(row);
    }
    let end = text.find('\n').map_or(0, |place| place + 1);
    text.insert_str(end, &rule);
    text
}

/// A text that stays in its cell.
fn escape(text: &str) -> String {
    text.replace("\r\n", "<br>")
        .replace(['\n', '\r'], "<br>")
        .replace('|', "\\|")
}

/// Text with two spaces before each line, as it stands below an item of a list.
pub(super) fn indented(text: &str) -> String {
    let line = |line: &str| match line.is_empty() {
        true => "\n".to_owned(),
        false => format!("  {line}\n"),
    };
    text.lines().map(line).collect()
}

/// A number with at most four decimals, as Python prints it.
pub(super) fn rounded(value: f64) -> String {
    let rounded = (value * 1e4).round_ties_even() / 1e4;
    match rounded.is_finite() && rounded.abs() < 1e15 {
        true => format!("{rounded:?}"),
        false => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_padded_and_its_cells_stay_whole() {
        let rows = vec![
            vec!["a", "1"],
            vec!["long|er\nname"],
            vec!["ä", "2", "left out"],
        ];
        let expected = "| Metric           | Value |\n\
                        |:-----------------|:------|\n\
                        | a                | 1     |\n\
                        | long\\|er<br>name |       |\n\
                        | ä                | 2     |\n";
        assert_eq!(table(&["Metric", "Value"], &rows), expected);
    }

    #[test]
    fn numbers_are_rounded_as_python_prints_them() {
        let cases = [
            (0.0, "0.0"),
            (0.26776302985996653, "0.2678"),
            (-0.15394937804856892, "-0.1539"),
            (1.0, "1.0"),
            (12.5, "12.5"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in cases {
            assert_eq!(rounded(value), expected);
        }
    }
}
