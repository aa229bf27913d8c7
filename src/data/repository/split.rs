use std::ops::Range;
use std::str::FromStr;

use crate::error::{DataError, Error};

/// A split, or a part of it: `train`, `train[:1000]`, `train[10%:20%]`, `train[-500:]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitPart {
    /// The split's name.
    pub name: String,
    /// Which of its rows.
    pub rows: SplitSlice,
}

/// Some rows of a split, all of them by default. Numbers below 0 count from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SplitSlice {
    from: Option<i64>,
    to: Option<i64>,
    percent: bool,
}

impl SplitSlice {
    /// The first rows.
    pub fn first(rows: usize) -> Self {
        Self {
            from: None,
            to: i64::try_from(rows).ok(),
            percent: false,
        }
    }

    /// The rows that are meant, where that does not depend on how many there are.
    pub fn absolute(self) -> Option<Range<usize>> {
        let from = self.from.unwrap_or(0);
        let place = |bound: i64| usize::try_from(bound).ok();
        match self.to {
            _ if self.percent && self != Self::default() => None,
            None => Some(place(from)?..usize::MAX),
            Some(to) => Some(place(from)?..place(to)?),
        }
    }

    /// The rows that are meant of a split with so many.
    pub fn of(self, rows: usize) -> Range<usize> {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let place = |bound: Option<i64>, default: i64| {
            let bound = match (bound, self.percent) {
                (None, _) => default,
                (Some(bound), false) => bound,
                (Some(bound), true) => {
                    (bound as f64 * rows as f64 / 100.0).round_ties_even() as i64
                }
            };
            let bound = if bound < 0 { rows + bound } else { bound };
            usize::try_from(bound.clamp(0, rows)).unwrap_or(0)
        };
        let from = place(self.from, 0);
        from..place(self.to, rows).max(from)
    }
}

impl FromStr for SplitPart {
    type Err = Error;

    /// Reads what `datasets.load_dataset` takes for a split.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| DataError::InvalidSplit {
            found: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (name, slice) = match text.split_once('[') {
            None => (text, None),
            Some((name, rest)) => {
                let slice = rest.strip_suffix(']');
                let slice =
                    slice.ok_or_else(|| invalid("`[` is not closed by a `]` at the end"))?;
                (name, Some(slice))
            }
        };
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(invalid("its name has letters, digits, `_`, `.` and `-`").into());
        }
        let Some(slice) = slice else {
            return Ok(Self {
                name: name.to_owned(),
                rows: SplitSlice::default(),
            });
        };
        let Some((from, to)) = slice.split_once(':') else {
            return Err(invalid("a part is two numbers with `:` between them").into());
        };
        let bound = |text: &str| match text.trim().trim_end_matches('%') {
            "" => Ok(None),
            number => match number.replace('_', "").parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(invalid("a part is two numbers with `:` between them")),
            },
        };
        Ok(Self {
            name: name.to_owned(),
            rows: SplitSlice {
                from: bound(from)?,
                to: bound(to)?,
                percent: slice.contains('%'),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, rows: usize) -> Range<usize> {
        text.parse::<SplitPart>().unwrap().rows.of(rows)
    }

    #[test]
    fn parts_are_those_of_python_s_datasets() {
        // ReadInstruction.from_spec(text).to_absolute({"train": rows}), of datasets 5.2.0.
        for (text, of, expected) in [
            ("train", 10, 0..10),
            ("train[:4]", 10, 0..4),
            ("train[4:]", 10, 4..10),
            ("train[2:99]", 10, 2..10),
            ("train[-3:]", 10, 7..10),
            ("train[:-3]", 10, 0..7),
            ("train[-99:3]", 10, 0..3),
            ("train[:10%]", 999, 0..100),
            ("train[10%:20%]", 25, 2..5),
            ("train[-10%:]", 25, 23..25),
            ("train[:1_0]", 25, 0..10),
        ] {
            assert_eq!(rows(text, of), expected, "{text}");
        }
        assert_eq!(rows("train[8:2]", 10), 8..8);
    }

    #[test]
    fn what_does_not_depend_on_the_number_of_rows_is_known_before() {
        let absolute = |text: &str| text.parse::<SplitPart>().unwrap().rows.absolute();
        assert_eq!(absolute("train"), Some(0..usize::MAX));
        assert_eq!(absolute("train[5:10]"), Some(5..10));
        assert_eq!(absolute("train[-5:]"), None);
        assert_eq!(absolute("train[:10%]"), None);
        assert_eq!(SplitSlice::first(3).absolute(), Some(0..3));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "",
            "[:3]",
            "train[",
            "train[3]",
            "train[a:b]",
            "train[1:2]x",
            "a+b",
        ] {
            let error = text.parse::<SplitPart>().unwrap_err();
            assert!(
                matches!(error, Error::Data(DataError::InvalidSplit { found, .. }) if found == text)
            );
        }
    }
}
