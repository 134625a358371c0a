//! The types that options can have, and how text and JSON values become them.

use super::describe::{OptionKind, OptionType};
use super::error::OptionError;
use super::size::{NumberError, parse_i64, parse_size, parse_u64};
use super::value::{Dict, Value};

/// A size or offset in bytes; in text with an optional binary suffix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A child of a node, as the node's options give it.
#[derive(Clone, Debug, PartialEq)]
pub enum ChildRef {
    /// Explicitly no child (JSON `null`).
    Null,
    /// An existing node, by its name.
    Node(String),
    /// A new node, by its options.
    Options(Dict),
}

/// A valid node name: at most 31 bytes, a letter first, then letters, digits, `-`, `.` and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

/// Longest node name in bytes.
const MAX_NODE_NAME: usize = 31;

impl NodeName {
    /// Checks and wraps a name that a user gave.
    pub fn new(name: &str) -> Result<NodeName, OptionError> {
        let mut bytes = name.bytes();
        let valid = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
            && name.len() <= MAX_NODE_NAME;
        if valid {
            Ok(NodeName(name.to_owned()))
        } else {
            Err(OptionError::Invalid {
                name: "node-name".to_owned(),
                value: name.to_owned(),
                expected: format!(
                    "a node name (a letter, then letters, digits, '-', '.' or '_', {MAX_NODE_NAME} \
                     bytes at most)"
                ),
            })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}

impl OptionType for bool {
    const KIND: OptionKind = OptionKind::Bool;

    fn from_value(name: &str, value: Value) -> Result<bool, OptionError> {
        match &value {
            Value::Bool(flag) => Ok(*flag),
            Value::Str(text) => match text.as_str() {
                "on" | "yes" | "true" | "y" => Ok(true),
                "off" | "no" | "false" | "n" => Ok(false),
                _ => Err(OptionError::invalid(name, &value, "'on' or 'off'")),
            },
            _ => Err(OptionError::invalid(name, &value, "'on' or 'off'")),
        }
    }
}

impl OptionType for i64 {
    const KIND: OptionKind = OptionKind::Num;

    fn from_value(name: &str, value: Value) -> Result<i64, OptionError> {
        number(name, &value, i64::MIN, i64::MAX)
    }
}

impl OptionType for u32 {
    const KIND: OptionKind = OptionKind::Num;

    fn from_value(name: &str, value: Value) -> Result<u32, OptionError> {
        number(name, &value, u32::MIN, u32::MAX)
    }
}

impl OptionType for u64 {
    const KIND: OptionKind = OptionKind::Num;

    fn from_value(name: &str, value: Value) -> Result<u64, OptionError> {
        number(name, &value, u64::MIN, u64::MAX)
    }
}

impl OptionType for Size {
    const KIND: OptionKind = OptionKind::Size;

    fn from_value(name: &str, value: Value) -> Result<Size, OptionError> {
        let size = match &value {
            Value::Str(text) => parse_size(text),
            other => integer(other).and_then(in_range),
        };
        size.map(Size).map_err(|error| {
            let expected = match error {
                NumberError::NotANumber => "a size in bytes such as 4096, 64K or 1.5G",
                NumberError::OutOfRange => "a size from 0 to 2^64-1 bytes",
            };
            OptionError::invalid(name, &value, expected)
        })
    }
}

impl OptionType for String {
    const KIND: OptionKind = OptionKind::Str;

    fn from_value(name: &str, value: Value) -> Result<String, OptionError> {
        match value {
            Value::Str(text) => Ok(text),
            other => Err(OptionError::invalid(name, &other, "text")),
        }
    }
}

impl OptionType for NodeName {
    const KIND: OptionKind = OptionKind::Str;

    fn from_value(name: &str, value: Value) -> Result<NodeName, OptionError> {
        NodeName::new(&String::from_value(name, value)?)
    }
}

impl OptionType for ChildRef {
    const KIND: OptionKind = OptionKind::Child;

    fn from_value(name: &str, value: Value) -> Result<ChildRef, OptionError> {
        match value {
            Value::Null => Ok(ChildRef::Null),
            Value::Str(node) => Ok(ChildRef::Node(node)),
            Value::Dict(options) => Ok(ChildRef::Options(options)),
            other => Err(OptionError::invalid(name, &other, "a node name or a node's options")),
        }
    }
}

impl<T: OptionType> OptionType for Vec<T> {
    const KIND: OptionKind = OptionKind::List(&T::KIND);
    const REQUIRED: bool = false;

    fn from_value(name: &str, value: Value) -> Result<Vec<T>, OptionError> {
        match value {
            Value::List(list) => list
                .into_iter()
                .enumerate()
                .map(|(index, element)| T::from_value(&format!("{name}.{index}"), element))
                .collect(),
            other => Err(OptionError::invalid(name, &other, "a list")),
        }
    }

    fn absent(_: &str) -> Result<Vec<T>, OptionError> {
        Ok(Vec::new())
    }
}

/// Reads an integer of a type whose values lie between `min` and `max`.
fn number<T>(name: &str, value: &Value, min: T, max: T) -> Result<T, OptionError>
where
    T: TryFrom<i128> + std::fmt::Display,
{
    integer(value).and_then(in_range).map_err(|error| {
        let expected = match error {
            NumberError::NotANumber => "an integer".to_owned(),
            NumberError::OutOfRange => format!("an integer from {min} to {max}"),
        };
        OptionError::invalid(name, value, expected)
    })
}

fn in_range<T: TryFrom<i128>>(value: i128) -> Result<T, NumberError> {
    T::try_from(value).map_err(|_| NumberError::OutOfRange)
}

/// The whole number that a value is or, as text, spells.
fn integer(value: &Value) -> Result<i128, NumberError> {
    /// Up to here every whole number has a float of its own.
    const EXACT_FLOATS: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Int(number) => Ok(i128::from(*number)),
        Value::Uint(number) => Ok(i128::from(*number)),
        Value::Float(number) if number.fract() == 0.0 && number.abs() <= EXACT_FLOATS => {
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range, see above")]
            let whole = *number as i128;
            Ok(whole)
        }
        Value::Str(text) => {
            parse_i64(text).map(i128::from).or_else(|_| parse_u64(text).map(i128::from))
        }
        _ => Err(NumberError::NotANumber),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_follow_the_rules_of_the_reference() {
        for name in ["a", "a_b", "Node-1.2", "a123456789012345678901234567890"] {
            assert!(NodeName::new(name).is_ok(), "{name}");
        }
        for name in ["", "1", "-a", "#block1", "a b", "é", "a1234567890123456789012345678901"] {
            assert!(NodeName::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn booleans_have_four_spellings_each() {
        for (text, flag) in
            [("on", true), ("yes", true), ("true", true), ("y", true), ("off", false), ("n", false)]
        {
            assert_eq!(bool::from_value("x", text.into()), Ok(flag));
        }
        for value in ["ON".into(), "1".into(), "".into(), Value::Int(1), Value::Null] {
            assert!(bool::from_value("x", value).is_err());
        }
    }

    #[test]
    fn sizes_and_numbers_come_as_text_or_json() {
        assert_eq!(Size::from_value("x", "1k".into()), Ok(Size(1024)));
        assert_eq!(Size::from_value("x", 1024.into()), Ok(Size(1024)));
        assert_eq!(Size::from_value("x", 512.0.into()), Ok(Size(512)));
        assert_eq!(Size::from_value("x", u64::MAX.into()), Ok(Size(u64::MAX)));
        for value in [(-512).into(), true.into(), 0.5.into(), 1e300.into(), "".into(), Value::Null]
        {
            assert!(Size::from_value("x", value).is_err());
        }
        assert_eq!(u64::from_value("x", "18446744073709551615".into()), Ok(u64::MAX));
        assert_eq!(u64::from_value("x", "020".into()), Ok(16));
        assert_eq!(i64::from_value("x", "-1".into()), Ok(-1));
        assert!(u64::from_value("x", "-1".into()).is_err());
        assert!(u64::from_value("x", "16k".into()).is_err());
    }
}
