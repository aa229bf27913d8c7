use fancy_regex::Regex;

/// A pattern of paths, as `datasets` reads them: `*` and `?` stay within a name, `**` as a
/// whole name stands for any folders, `[…]` for one of some characters.
///
/// Hidden files, and files in folders that begin with `__`, are matched only by a pattern
/// that names as many of them.
#[derive(Debug)]
pub(super) struct Glob {
    pattern: String,
    regex: Regex,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let wrong = |reason: &str| format!("`{pattern}`: {reason}");
        let parts: Vec<&str> = pattern.split('/').collect();
        let mut regex = String::from("(?s)\\A");
        for (place, part) in parts.iter().enumerate() {
            let last = place + 1 == parts.len();
            match *part {
                "**" if last => regex.push_str(".*"),
                "**" => regex.push_str("(?:.+/)?"),
                "*" if last => regex.push_str("[^/]+"),
                "*" => regex.push_str("[^/]+/"),
                part if part.contains("**") => {
                    return Err(wrong("`**` can only be a whole name of a path"));
                }
                part => {
                    translate(part, &mut regex);
                    if !last {
                        regex.push('/');
                    }
                }
            }
        }
        regex.push_str("\\z");
        Ok(Self {
            regex: Regex::new(&regex).map_err(|e| wrong(&e.to_string()))?,
            pattern: pattern.to_owned(),
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let hidden = |part: &&str| part.starts_with('.') && part.chars().any(|c| c != '.');
        let special = |part: &&str| part.starts_with("__");
        let count = |path: &str| {
            let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
            (
                path.split('/').filter(hidden).count(),
                folders.split('/').filter(special).count(),
            )
        };
        self.regex.is_match(path).unwrap_or(false) && count(path) == count(&self.pattern)
    }
}

/// Whether a pattern may stand for several paths.
pub(super) fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// One name of a path, which is not `*` or `**`.
fn translate(part: &str, regex: &mut String) {
    let characters: Vec<char> = part.chars().collect();
    let mut place = 0;
    while place < characters.len() {
        let character = characters[place];
        place += 1;
        match character {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => match class_end(&characters, place) {
                Some(end) => {
                    push_class(&characters[place..end], regex);
                    place = end + 1;
                }
                None => regex.push_str("\\["),
            },
            other => regex.push_str(&fancy_regex::escape(&other.to_string())),
        }
    }
}

/// Where the bracket closes that opens before `start`: not right behind it.
fn class_end(characters: &[char], start: usize) -> Option<usize> {
    let mut first = start;
    if characters.get(first) == Some(&'!') {
        first += 1;
    }
    let from = first + 1;
    let closing = characters.get(from..)?.iter().position(|&c| c == ']')?;
    Some(from + closing)
}

fn push_class(class: &[char], regex: &mut String) {
    regex.push('[');
    let members = match class.first() {
        Some('!') => {
            regex.push('^');
            &class[1..]
        }
        _ => class,
    };
    for (place, &member) in members.iter().enumerate() {
        let range = member == '-' && place > 0 && place + 1 < members.len();
        if !range && !member.is_alphanumeric() {
            regex.push('\\');
        }
        regex.push(member);
    }
    regex.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stay_within_a_name_and_two_stars_do_not() {
        for (pattern, path, expected) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "b/a.csv", false),
            ("**/*.csv", "b/c/a.csv", true),
            ("**/*.csv", "a.csv", true),
            ("data/**", "data/x/y.csv", true),
            ("data/*", "data/x/y.csv", false),
            ("a?.csv", "ab.csv", true),
            ("a[0-9].csv", "a5.csv", true),
            ("a[!0-9].csv", "a5.csv", false),
            ("**/train[-._ 0-9]*", "x/train-1.csv", true),
            ("**/train[-._ 0-9]*", "x/trains.csv", false),
            ("a+(b).csv", "a+(b).csv", true),
            ("**", ".git/config.json", false),
            (".git/*", ".git/config.json", true),
            ("**", "__MACOSX/a.csv", false),
            ("__MACOSX/*", "__MACOSX/a.csv", true),
            ("a[.csv", "a[.csv", true),
        ] {
            assert_eq!(
                Glob::new(pattern).unwrap().matches(path),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn two_stars_beside_a_name_are_refused() {
        assert!(Glob::new("data/train**.csv").unwrap_err().contains("`**`"));
        assert!(has_wildcards("a*") && !has_wildcards("a/b.csv"));
    }
}
