//! The strict `key=value` syntax of `--blockdev`, `--export` and their like.
//!
//! Parts are separated by single commas, every part has a `=`, keys are dotted paths of names and
//! list indices, and the result is nested. The first part may be the value of an implied key.

use super::error::OptionError;
use super::json;
use super::list::split_value;
use super::tree;
use super::value::{Dict, Value};

/// Longest part of a dotted key in bytes.
const MAX_KEY_PART: usize = 127;

/// Parses the argument of an option that takes JSON (when it begins with `{`) or key=value text.
pub fn parse_json_or_keyval(text: &str, implied_key: &str) -> Result<Dict, OptionError> {
    if !text.starts_with('{') {
        return parse_keyval(text, Some(implied_key));
    }
    match json::parse(text)? {
        Value::Dict(dict) => Ok(dict),
        other => Err(OptionError::invalid(implied_key, &other, "a JSON object")),
    }
}

/// Parses strict key=value text into nested maps and lists. A key that occurs again overrides.
pub fn parse_keyval(text: &str, implied_key: Option<&str>) -> Result<Dict, OptionError> {
    let mut flat = Dict::new();
    let mut rest = text;
    let mut implied_key = implied_key;
    while !rest.is_empty() {
        let key_end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (part, behind) = rest.split_at(key_end);
        let (key, value, next) = match (behind.strip_prefix('='), implied_key) {
            (Some(behind), _) => {
                let (value, next) = split_value(behind);
                (part, value, next)
            }
            (None, Some(key)) => {
                let (value, next) = split_value(rest);
                (key, value, next)
            }
            (None, None) => return Err(syntax(part, "lacks a '=' and a value")),
        };
        check_key(key)?;
        flat.insert(key.to_owned(), value);
        rest = next;
        implied_key = None;
    }
    tree::expand(flat)
}

/// A key is a dotted path; each part is a list index or a name that begins with a letter (or, for
/// extensions, `__domain_name`).
fn check_key(key: &str) -> Result<(), OptionError> {
    for part in key.split('.') {
        let is_index = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let is_name = part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if !(is_index || is_name) || part.len() > MAX_KEY_PART {
            return Err(syntax(key, "is not a valid option name"));
        }
    }
    Ok(())
}

fn syntax(text: &str, problem: &'static str) -> OptionError {
    OptionError::Syntax { text: text.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nested_options_and_implied_keys() {
        let parsed =
            parse_keyval("qcow2,node-name=n,file.driver=file,file.filename=a,,b", Some("driver"));
        let by_json = parse_json_or_keyval(
            "{'driver':'qcow2','node-name':'n','file':{'driver':'file','filename':'a,b'}}",
            "driver",
        );
        assert!(parsed.is_ok());
        assert_eq!(parsed, by_json);
        let parsed = parse_keyval("children.1=b,children.0=a,children.0=c", None).unwrap();
        assert_eq!(parsed, Dict::from([("children", vec!["c", "b"])]));
        assert_eq!(parse_keyval("", Some("driver")), Ok(Dict::new()));
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in
            ["flag", "a=1,flag", "=1", "a b=1", "1a=1", "a.=1", "a=1,a.b=2", "a.1=x", ",", "-a=1"]
        {
            assert!(parse_keyval(text, None).is_err(), "{text}");
        }
        assert!(parse_keyval(&format!("{}=1", "a".repeat(128)), None).is_err());
        assert!(parse_json_or_keyval("{", "driver").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in any::<String>()) {
            let _ = parse_json_or_keyval(&text, "driver");
        }

        #[test]
        fn list_like_text_is_handled(text in "[a-c0-2=,.]{0,20}") {
            let _ = parse_keyval(&text, Some("driver"));
        }
    }
}
