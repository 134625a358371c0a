//! Options: values, their text syntaxes and their typed descriptions.

mod convert;

use std::fmt;

/// A value as options, JSON and QMP carry it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// Text; in key=value syntax every leaf is text.
    Str(String),
    /// A list.
    List(Vec<Value>),
    /// A nested object.
    Dict(Dict),
}

/// A map from names to values that keeps insertion order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dict {
    entries: Vec<(String, Value)>,
}

impl Dict {
    /// Sets `key`, replacing an earlier value.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let key = key.into();
        self.remove(&key);
        self.entries.push((key, value.into()));
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(at).1)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values in insertion order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }
}

/// Type of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// `on` or `off`.
    Bool,
    /// An integer.
    Num,
    /// Bytes, with an optional binary suffix.
    Size,
    /// Text.
    Str,
}

/// Description of one option.
#[derive(Clone, Copy, Debug)]
pub struct OptionDesc {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: OptionKind,
    /// One line for people.
    pub help: &'static str,
    /// Default, as the user would write it.
    pub default: Option<&'static str>,
}

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// Not known here.
    Unknown {
        /// The option.
        name: String,
        /// Who was asked.
        owner: String,
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
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionError::Unknown { name, owner } => {
                write!(f, "{owner} has no option '{name}'")
            }
            OptionError::Invalid { name, value, expected } => {
                write!(f, "option '{name}': '{value}' is not {expected}")
            }
        }
    }
}

impl std::error::Error for OptionError {}
