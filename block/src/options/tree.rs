//! Dotted keys and nested maps: `file.driver=x` is `driver` in the map `file`, and
//! `children.0.driver` belongs to the first element of the list `children`.

use super::error::OptionError;
use super::json::MAX_DEPTH;
use super::value::{Dict, Value};

/// Turns dotted keys, at any level of `dict`, into nested maps and lists.
///
/// A map whose keys are the numbers from 0 on becomes a list. Fails with
/// [`OptionError::Conflict`] when a key is both a value and a map (`a=1,a.b=2`), or is given both
/// dotted and nested, and when list indices leave a gap.
pub fn expand(dict: Dict) -> Result<Dict, OptionError> {
    let mut root = Dict::new();
    for (path, value) in flatten(dict) {
        if path.split('.').count() > MAX_DEPTH {
            return Err(conflict(&path, "is nested too deeply"));
        }
        insert(&mut root, &path, &path, value)?;
    }
    let mut expanded = Vec::new();
    for (key, value) in root {
        let value = lists_in(&key, value)?;
        expanded.push((key, value));
    }
    Ok(Dict::from_distinct(expanded))
}

/// Turns nested maps and lists into dotted keys; empty ones are kept as they are.
pub fn flatten(dict: Dict) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (key, value) in dict {
        flatten_into(key, value, &mut flat);
    }
    flat
}

fn flatten_into(path: String, value: Value, flat: &mut Vec<(String, Value)>) {
    match value {
        Value::Dict(dict) if !dict.is_empty() => {
            for (key, value) in dict {
                flatten_into(format!("{path}.{key}"), value, flat);
            }
        }
        Value::List(list) if !list.is_empty() => {
            for (index, value) in list.into_iter().enumerate() {
                flatten_into(format!("{path}.{index}"), value, flat);
            }
        }
        leaf => flat.push((path, leaf)),
    }
}

/// Sets the value at `path`, the end of `whole_path`, making the maps on the way.
fn insert(dict: &mut Dict, path: &str, whole_path: &str, value: Value) -> Result<(), OptionError> {
    let (key, rest) = match path.split_once('.') {
        Some((key, rest)) => (key, Some(rest)),
        None => (path, None),
    };
    if key.is_empty() && !whole_path.is_empty() {
        return Err(conflict(whole_path, "has an empty part before or after a dot"));
    }
    match (dict.get_mut(key), rest) {
        (None, None) => {
            dict.insert(key.to_owned(), value);
            Ok(())
        }
        (None, Some(rest)) => {
            let mut nested = Dict::new();
            insert(&mut nested, rest, whole_path, value)?;
            dict.insert(key.to_owned(), nested);
            Ok(())
        }
        (Some(Value::Dict(nested)), Some(rest)) => insert(nested, rest, whole_path, value),
        // An empty map adds nothing to the map that is there.
        (Some(Value::Dict(_)), None) if value == Value::Dict(Dict::new()) => Ok(()),
        (Some(_), None) => Err(conflict(whole_path, "is given more than once")),
        (Some(_), Some(_)) => Err(conflict(
            whole_path,
            "cannot be set because a part of its name already has a plain value",
        )),
    }
}

/// Replaces maps with the keys 0, 1, 2 … inside `value`, which stands at `path`, by lists.
fn lists_in(path: &str, value: Value) -> Result<Value, OptionError> {
    let Value::Dict(dict) = value else { return Ok(value) };
    let is_list = !dict.is_empty()
        && dict.iter().all(|(key, _)| !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit()));
    let mut entries = Vec::new();
    for (key, value) in dict {
        let value = lists_in(&format!("{path}.{key}"), value)?;
        entries.push((key, value));
    }
    if !is_list {
        return Ok(Value::Dict(Dict::from_distinct(entries)));
    }
    entries.sort_by_cached_key(|(key, _)| (key.len(), key.clone()));
    for (index, (key, _)) in entries.iter().enumerate() {
        if *key != index.to_string() {
            return Err(conflict(&format!("{path}.{key}"), "leaves a gap in the list"));
        }
    }
    Ok(Value::List(entries.into_iter().map(|(_, value)| value).collect()))
}

fn conflict(name: &str, problem: &str) -> OptionError {
    OptionError::Conflict { name: name.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::json::parse;
    use super::*;

    fn dict(json: &str) -> Dict {
        match parse(json) {
            Ok(Value::Dict(dict)) => dict,
            other => panic!("{json}: {other:?}"),
        }
    }

    #[test]
    fn dots_become_maps_and_lists() {
        for (flat, nested) in [
            ("{'driver':'raw','file.filename':'a'}", "{'driver':'raw','file':{'filename':'a'}}"),
            (
                "{'file.filename':'a','file':{'driver':'file'}}",
                "{'file':{'filename':'a','driver':'file'}}",
            ),
            ("{'c.1.d':'y','c.0.d':'x'}", "{'c':[{'d':'x'},{'d':'y'}]}"),
            ("{'c':[1,[],{}]}", "{'c':[1,[],{}]}"),
            (
                "{'c.10':10,'c.9':9,'c.8':8,'c.7':7,'c.6':6,'c.5':5,'c.4':4,'c.3':3,'c.2':2,'c.1':1,'c.0':0}",
                "{'c':[0,1,2,3,4,5,6,7,8,9,10]}",
            ),
            ("{'a':{},'a.b':1}", "{'a':{'b':1}}"),
            ("{'a.b':1,'a':{}}", "{'a':{'b':1}}"),
            ("{'':1}", "{'':1}"),
            ("{'0':1}", "{'0':1}"),
        ] {
            assert_eq!(expand(dict(flat)), Ok(dict(nested)), "{flat}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (flat, name) in [
            ("{'a':1,'a.b':2}", "a.b"),
            ("{'a.b':2,'a':1}", "a"),
            ("{'a.b':1,'a':{'b':1}}", "a.b"),
            ("{'a.0':1,'a.2':2}", "a.2"),
            ("{'a.1':1}", "a.1"),
            ("{'a.00':1}", "a.00"),
            ("{'a..b':1}", "a..b"),
            ("{'.a':1}", ".a"),
            ("{'a.':1}", "a."),
        ] {
            let Err(OptionError::Conflict { name: found, .. }) = expand(dict(flat)) else {
                panic!("{flat} must be refused");
            };
            assert_eq!(found, name, "{flat}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = ".a".repeat(MAX_DEPTH - 1);
        assert!(expand(Dict::from([(format!("a{deep}"), 1)])).is_ok());
        let deep = ".a".repeat(100_000);
        assert!(expand(Dict::from([(format!("a{deep}"), 1)])).is_err());
    }

    proptest! {
        #[test]
        fn flat_and_nested_forms_agree(
            entries in prop::collection::btree_map("[a-c]{1,2}(\\.[a-c]){0,3}", any::<i64>(), 0..8)
        ) {
            let dict: Dict = entries.into_iter().collect();
            if let Ok(nested) = expand(dict.clone()) {
                prop_assert_eq!(flatten(nested).into_iter().collect::<Dict>(), dict);
            }
        }

        #[test]
        fn any_keys_are_handled(keys in prop::collection::vec("[a0-2.]{0,6}", 0..8)) {
            let _ = expand(keys.into_iter().map(|key| (key, true)).collect());
        }
    }
}
