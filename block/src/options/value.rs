//! Values and ordered maps, as options, JSON documents and management commands carry them.
//!
//! A [`Dict`] keeps insertion order. [`Dict::reference_order`] is the order in which QEMU's hash
//! table yields the same keys; programs compare such output byte for byte, so everything printed
//! uses it.

use std::borrow::Cow;

/// A value as options, JSON and QMP carry it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`; smaller ones are always `Int`.
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

impl Value {
    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The map, if this is a map.
    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// The list, if this is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// Whether this is a list or map without elements.
    pub fn is_empty_container(&self) -> bool {
        match self {
            Value::List(list) => list.is_empty(),
            Value::Dict(dict) => dict.is_empty(),
            _ => false,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Value {
        Value::Int(i64::from(value))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Value {
        Value::Int(i64::from(value))
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        i64::try_from(value).map_or(Value::Uint(value), Value::Int)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Str(value)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(value: Vec<T>) -> Value {
        Value::List(value.into_iter().map(Into::into).collect())
    }
}

impl From<Dict> for Value {
    fn from(value: Dict) -> Value {
        Value::Dict(value)
    }
}

/// A map from names to values that keeps insertion order. Equality disregards the order.
#[derive(Clone, Debug, Default)]
pub struct Dict {
    /// Invariant: no two entries have the same name.
    /// Most names are literals, which need no memory of their own.
    entries: Vec<(Cow<'static, str>, Value)>,
}

/// Buckets of the reference's hash table.
const BUCKETS: u32 = 512;

impl Dict {
    /// An empty map.
    pub fn new() -> Dict {
        Dict::default()
    }

    /// Sets `key`. An earlier value is replaced and keeps its place.
    pub fn insert(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let key = key.into();
        let value = value.into();
        match self.entries.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The value of `key`, to be changed in place.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.entries.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Whether `key` has a value.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(at).1)
    }

    /// The value at a dotted path: `cache.direct` is the key of that very name or, failing that,
    /// `direct` in the nested map `cache`.
    pub fn get_path(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.get(path) {
            return Some(value);
        }
        let (first, rest) = path.split_once('.')?;
        self.get(first)?.as_dict()?.get_path(rest)
    }

    /// Takes the value at a dotted path out, and with it the nested maps that it leaves empty.
    pub fn take_path(&mut self, path: &str) -> Option<Value> {
        if let Some(value) = self.remove(path) {
            return Some(value);
        }
        let (first, rest) = path.split_once('.')?;
        let Some(Value::Dict(nested)) = self.get_mut(first) else { return None };
        let value = nested.take_path(rest);
        if nested.is_empty() {
            self.remove(first);
        }
        value
    }

    /// Adds what `defaults` has and this map has not; nested maps are merged likewise.
    pub fn merge_defaults(&mut self, defaults: Dict) {
        for (key, value) in defaults {
            match (self.get_mut(&key), value) {
                (Some(Value::Dict(own)), Value::Dict(other)) => own.merge_defaults(other),
                (Some(_), _) => {}
                (None, value) => self.entries.push((key.into(), value)),
            }
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Names and values in insertion order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (&**k, v))
    }

    /// Names and values in the order of QEMU's hash table: by bucket, and within one bucket the
    /// newest first.
    pub fn reference_order(&self) -> Vec<(&str, &Value)> {
        in_reference_order(self.iter().collect())
    }

    /// A map of entries whose names are known to differ.
    pub(super) fn from_distinct(entries: Vec<(String, Value)>) -> Dict {
        Dict { entries: entries.into_iter().map(|(k, v)| (k.into(), v)).collect() }
    }
}

/// Names and what belongs to them, given in insertion order, in that of [`Dict::reference_order`].
pub(super) fn in_reference_order<T>(mut entries: Vec<(&str, T)>) -> Vec<(&str, T)> {
    entries.reverse();
    entries.sort_by_key(|(key, _)| reference_hash(key) % BUCKETS);
    entries
}

/// The hash of the reference's string tables (the function of TDB, the trivial database).
fn reference_hash(key: &str) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "all arithmetic is modulo 2^32")]
    let mut hash = 0x238f_13af_u32.wrapping_mul(key.len() as u32);
    for (index, byte) in key.bytes().enumerate() {
        hash = hash.wrapping_add(u32::from(byte) << (index * 5 % 24));
    }
    hash.wrapping_mul(1_103_515_243).wrapping_add(12345)
}

impl PartialEq for Dict {
    fn eq(&self, other: &Dict) -> bool {
        self.len() == other.len()
            && self.entries.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl IntoIterator for Dict {
    type Item = (String, Value);
    type IntoIter = std::iter::Map<
        std::vec::IntoIter<(Cow<'static, str>, Value)>,
        fn((Cow<'static, str>, Value)) -> (String, Value),
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter().map(|(key, value)| (key.into_owned(), value))
    }
}

impl<K: Into<Cow<'static, str>>, V: Into<Value>> FromIterator<(K, V)> for Dict {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Dict {
        let mut dict = Dict::new();
        for (key, value) in entries {
            dict.insert(key, value);
        }
        dict
    }
}

impl<K: Into<Cow<'static, str>>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Dict {
    fn from(entries: [(K, V); N]) -> Dict {
        entries.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(keys: &[&'static str]) -> Vec<String> {
        let dict: Dict = keys.iter().map(|k| (*k, true)).collect();
        dict.reference_order().into_iter().map(|(k, _)| k.to_owned()).collect()
    }

    #[test]
    fn reference_order_is_that_of_stock_output() {
        // `qemu-img info --output=json` and the id echo of qemu-storage-daemon 10.0.2.
        assert_eq!(
            order(&["b", "a", "driver", "file", "l", "s", "n"]),
            ["n", "s", "a", "driver", "b", "l", "file"]
        );
        assert_eq!(
            order(&[
                "virtual-size",
                "filename",
                "cluster-size",
                "format",
                "actual-size",
                "format-specific",
                "dirty-flag",
                "children",
            ]),
            [
                "children",
                "virtual-size",
                "filename",
                "cluster-size",
                "format",
                "actual-size",
                "format-specific",
                "dirty-flag"
            ]
        );
        assert_eq!(
            order(&["driver", "size", "offset", "file"]),
            ["offset", "driver", "size", "file"]
        );
    }

    #[test]
    fn paths_reach_nested_and_dotted_keys() {
        let mut dict = Dict::from([(
            "cache",
            Value::from(Dict::from([("direct", true), ("no-flush", false)])),
        )]);
        dict.insert("encrypt.format", "luks");
        assert_eq!(dict.get_path("cache.direct"), Some(&Value::Bool(true)));
        assert_eq!(dict.take_path("cache.direct"), Some(Value::Bool(true)));
        assert_eq!(dict.take_path("cache.direct"), None);
        assert_eq!(dict.take_path("cache.no-flush"), Some(Value::Bool(false)));
        assert!(!dict.contains("cache"));
        assert_eq!(dict.take_path("encrypt.format"), Some("luks".into()));
        assert!(dict.is_empty());
    }

    #[test]
    fn defaults_fill_gaps_at_every_level() {
        let mut dict = Dict::from([("file", Value::from(Dict::from([("filename", "a")])))]);
        dict.merge_defaults(Dict::from([
            ("file", Value::from(Dict::from([("filename", "b"), ("driver", "file")]))),
            ("driver", "raw".into()),
        ]));
        let expected = Dict::from([
            ("file", Value::from(Dict::from([("driver", "file"), ("filename", "a")]))),
            ("driver", "raw".into()),
        ]);
        assert_eq!(dict, expected);
    }
}
