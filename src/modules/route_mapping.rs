use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// The modality of every text.
pub(super) const TEXT: &str = "text";

/// One entry of a Router's `route_mappings`: which route inputs of a task and a modality take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMapping {
    /// The task; `None` means any.
    pub task: Option<String>,
    /// The modality, or several that come together; `None` means any.
    pub modality: Option<Modality>,
    /// The route's name.
    pub route: String,
}

/// What an input is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modality {
    /// One kind.
    One(String),
    /// Several kinds together.
    Many(Vec<String>),
}

impl RouteMapping {
    /// Reads an entry, whose key is written as Python writes a pair: `('query', 'text')`,
    /// `(None, ('image', 'text'))`; `None` where it is no such pair.
    pub fn parse(key: &str, route: &str) -> Option<Self> {
        let mut chars = key.chars().peekable();
        let value = Value::parse(&mut chars, DEEPEST)?;
        skip_spaces(&mut chars);
        let Value::Tuple(parts) = value else {
            return None;
        };
        let (None, [task, modality]) = (chars.next(), <[Value; 2]>::try_from(parts).ok()?) else {
            return None;
        };
        Some(Self {
            task: match task {
                Value::None => None,
                Value::Text(task) => Some(task),
                Value::Tuple(_) => return None,
            },
            modality: match modality {
                Value::None => None,
                Value::Text(modality) => Some(Modality::One(modality)),
                Value::Tuple(parts) => {
                    let names = parts.into_iter().map(|part| match part {
                        Value::Text(name) => Some(name),
                        _ => None,
                    });
                    Some(Modality::Many(names.collect::<Option<_>>()?))
                }
            },
            route: route.to_owned(),
        })
    }

    /// The entry's key, as Python writes it.
    pub fn key(&self) -> String {
        let text = |text: &Option<String>| match text {
            Some(text) => Value::Text(text.clone()),
            None => Value::None,
        };
        let modality = match &self.modality {
            None => Value::None,
            Some(Modality::One(name)) => Value::Text(name.clone()),
            Some(Modality::Many(names)) => {
                Value::Tuple(names.iter().cloned().map(Value::Text).collect())
            }
        };
        Value::Tuple(vec![text(&self.task), modality]).to_string()
    }

    /// Whether this is the entry of that task, or of any, for texts, or for anything.
    pub(super) fn is_for(&self, task: Option<&str>, modality: Option<&str>) -> bool {
        let own = match &self.modality {
            None => None,
            Some(Modality::One(name)) => Some(name.as_str()),
            Some(Modality::Many(_)) => return false,
        };
        self.task.as_deref() == task && own == modality
    }
}

/// A tuple of modalities lies in the pair, and nothing lies in that.
const DEEPEST: usize = 2;

/// The part of Python's values that such keys are made of.
#[derive(Debug)]
enum Value {
    None,
    Text(String),
    Tuple(Vec<Value>),
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
}

impl Value {
    /// Reads a value, in which tuples lie at most `depth` deep.
    fn parse(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Self> {
        skip_spaces(chars);
        match chars.next()? {
            '(' => Self::parse_tuple(chars, depth.checked_sub(1)?),
            quote @ ('\'' | '"') => Self::parse_text(chars, quote),
            'N' => {
                let rest: String = chars.take(3).collect();
                (rest == "one").then_some(Self::None)
            }
            _ => None,
        }
    }

    fn parse_tuple(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Self> {
        let mut parts = Vec::new();
        loop {
            skip_spaces(chars);
            if chars.next_if_eq(&')').is_some() {
                return Some(Self::Tuple(parts));
            }
            parts.push(Self::parse(chars, depth)?);
            skip_spaces(chars);
            if chars.next_if_eq(&',').is_none() && chars.peek() != Some(&')') {
                return None;
            }
        }
    }

    fn parse_text(chars: &mut Peekable<Chars<'_>>, quote: char) -> Option<Self> {
        let mut text = String::new();
        loop {
            match chars.next()? {
                end if end == quote => return Some(Self::Text(text)),
                '\\' => text.push(match chars.next()? {
                    same @ ('\\' | '\'' | '"') => same,
                    'n' => '\n',
                    't' => '\t',
                    _ => return None,
                }),
                plain => text.push(plain),
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Text(text) => {
                let text = text.replace('\\', "\\\\").replace('\'', "\\'");
                write!(f, "'{}'", text.replace('\n', "\\n").replace('\t', "\\t"))
            }
            Self::Tuple(parts) => {
                f.write_str("(")?;
                for (index, part) in parts.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{part}")?;
                }
                f.write_str(if parts.len() == 1 { ",)" } else { ")" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_s_keys_are_read_and_written_back() {
        for key in [
            "('query', 'text')",
            "('query', None)",
            "(None, 'text')",
            "(None, None)",
            "(None, ('image', 'text'))",
            "('a', ('text',))",
            r"('it\'s \\ a\n', None)",
        ] {
            let mapping = RouteMapping::parse(key, "route").unwrap();
            assert_eq!(mapping.key(), key);
        }
        let mapping = RouteMapping::parse("( \"query\",None , )", "route").unwrap();
        assert_eq!(mapping.key(), "('query', None)");
    }

    #[test]
    fn what_is_no_pair_is_none() {
        for key in [
            "",
            "query",
            "'query'",
            "('query')",
            "('query', 'text', 'x')",
            "('query', 'text'",
            "('query' 'text')",
            "(('a',), 'text')",
            "(None, ('a', ('b',)))",
            "('query', 'text') + 1",
            "(Nope, None)",
            r"('\x41', None)",
            &"(".repeat(5000),
        ] {
            assert_eq!(RouteMapping::parse(key, "route"), None, "{key}");
        }
    }
}
