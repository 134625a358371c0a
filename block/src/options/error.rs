//! What can be wrong with options.

use std::fmt;

use super::describe::OptionDesc;
use super::json::JsonError;
use super::value::Value;

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// Two options, or two ways to give one, that exclude each other.
    Conflict {
        /// One option.
        name: String,
        /// What it conflicts with and why, as a clause that follows the name.
        problem: String,
    },
    /// A value that does not fit.
    Invalid {
        /// The option.
        name: String,
        /// The value as written.
        value: String,
        /// What would fit.
        expected: String,
    },
    /// Text that should be JSON and is not.
    Json(JsonError),
    /// An option that must be given is absent.
    Missing {
        /// The option.
        name: String,
    },
    /// Text that does not follow the syntax of option lists.
    Syntax {
        /// The whole text, or the part that is wrong.
        text: String,
        /// What is wrong with it, as a clause that follows the text.
        problem: &'static str,
    },
    /// Not known here.
    Unknown {
        /// The option.
        name: String,
        /// Who was asked.
        owner: String,
        /// A known option with a similar name.
        similar: Option<String>,
    },
}

impl OptionError {
    /// `value` does not fit the option `name`.
    pub fn invalid(name: &str, value: &Value, expected: impl Into<String>) -> OptionError {
        let value = match value {
            Value::Str(text) => text.clone(),
            other => super::json::compact(other),
        };
        OptionError::Invalid { name: name.to_owned(), value, expected: expected.into() }
    }

    /// `owner`, whose options `known` describes, has no option `name`.
    pub fn unknown(name: &str, owner: &str, known: &[&[OptionDesc]]) -> OptionError {
        let names = known.iter().copied().flatten().map(|desc| desc.name);
        OptionError::Unknown {
            name: name.to_owned(),
            owner: owner.to_owned(),
            similar: most_similar(name, names).map(str::to_owned),
        }
    }

    /// The same error for an option inside the group (or list element) `group`.
    pub fn within(mut self, group: &str) -> OptionError {
        match &mut self {
            OptionError::Conflict { name, .. }
            | OptionError::Invalid { name, .. }
            | OptionError::Missing { name }
            | OptionError::Unknown { name, .. } => *name = format!("{group}.{name}"),
            OptionError::Json(_) | OptionError::Syntax { .. } => {}
        }
        self
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionError::Conflict { name, problem } => write!(f, "option '{name}' {problem}"),
            OptionError::Invalid { name, value, expected } => {
                write!(f, "option '{name}': '{value}' is not {expected}")
            }
            OptionError::Json(error) => error.fmt(f),
            OptionError::Missing { name } => write!(f, "option '{name}' is required"),
            OptionError::Syntax { text, problem } => write!(f, "'{text}' {problem}"),
            OptionError::Unknown { name, owner, similar } => {
                write!(f, "{owner} has no option '{name}'")?;
                match similar {
                    Some(similar) => write!(f, " (did you mean '{similar}'?)"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for OptionError {}

impl From<JsonError> for OptionError {
    fn from(error: JsonError) -> OptionError {
        OptionError::Json(error)
    }
}

/// Names longer than this are not compared, so that the cost stays small.
const LONGEST_COMPARED: usize = 64;

/// The name nearest to `name`, if at most a third of it must change.
fn most_similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST_COMPARED {
        return None;
    }
    let spelling = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let wanted = spelling(name);
    known
        .map(|candidate| (edit_distance(&wanted, &spelling(candidate)), candidate))
        .filter(|(distance, _)| *distance <= name.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements of one byte that lead from `a` to `b` (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised() {
        let known = ["lazy-refcounts", "offset", "size", "cluster_size"];
        let similar = |name| most_similar(name, known.into_iter());
        assert_eq!(similar("lazy_refcounts"), Some("lazy-refcounts"));
        assert_eq!(similar("ofset"), Some("offset"));
        assert_eq!(similar("clustersize"), Some("cluster_size"));
        assert_eq!(similar("backing"), None);
        assert_eq!(similar("x"), None);
    }

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
