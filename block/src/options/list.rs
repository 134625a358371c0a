//! Comma lists of `key=value`, as `-o` and `--image-opts` take them.
//!
//! A comma inside a value is written twice. A part without `=` switches something on (`flag`) or
//! off (`noflag`), or, at the very front, is the value of the list's implied key. Later parts
//! override earlier ones with the same key. Keys stay as written, dots included; see
//! [`super::tree`] for what dots mean.

use super::error::OptionError;
use super::value::Dict;

/// Parses a comma list. `implied_key` names a first part that has no `=`.
pub fn parse_list(text: &str, implied_key: Option<&str>) -> Dict {
    let mut dict = Dict::new();
    let mut rest = text;
    if let Some(key) = implied_key
        && !rest.is_empty()
        && !starts_with_pair(rest)
    {
        let (value, next) = split_value(rest);
        dict.insert(key.to_owned(), value);
        rest = next;
    }
    for (name, value) in (Parts { rest }) {
        match (value, name.strip_prefix("no")) {
            (Some(value), _) => dict.insert(name.to_owned(), value),
            (None, Some(name)) => dict.insert(name.to_owned(), "off"),
            (None, None) => dict.insert(name.to_owned(), "on"),
        }
    }
    dict
}

/// The parts of a comma list: names, and values where there is a `=`. Names end at the first comma,
/// paired or not; only values can hold commas.
struct Parts<'t> {
    rest: &'t str,
}

impl<'t> Iterator for Parts<'t> {
    type Item = (&'t str, Option<String>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name_end = self.rest.find(['=', ',']).unwrap_or(self.rest.len());
        let (name, behind) = self.rest.split_at(name_end);
        if let Some(behind) = behind.strip_prefix('=') {
            let (value, next) = split_value(behind);
            self.rest = next;
            Some((name, Some(value)))
        } else {
            self.rest = behind.strip_prefix(',').unwrap_or(behind);
            Some((name, None))
        }
    }
}

fn starts_with_pair(text: &str) -> bool {
    text.find(['=', ',']).is_some_and(|at| text[at..].starts_with('='))
}

/// Joins the arguments of a repeated `-o` into one list, after checking that joining them gives a
/// comma no new meaning.
pub fn join_lists<S: AsRef<str>>(parts: &[S]) -> Result<String, OptionError> {
    let mut joined = String::new();
    for part in parts {
        let part = part.as_ref();
        let commas_at_end = part.len() - part.trim_end_matches(',').len();
        let problem = if part.is_empty() {
            "is empty: options have the form key=value"
        } else if part.starts_with(',') {
            "starts with a comma"
        } else if commas_at_end % 2 == 1 {
            "ends with a comma (a comma inside a value is written ',,')"
        } else {
            ""
        };
        if !problem.is_empty() {
            return Err(OptionError::Syntax { text: part.to_owned(), problem });
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(part);
    }
    Ok(joined)
}

/// Whether any part of a comma list asks for help: `help` or `?`.
pub fn wants_help(text: &str) -> bool {
    Parts { rest: text }.any(|(name, value)| value.is_none() && matches!(name, "help" | "?"))
}

/// Writes `value` so that it survives in a comma list.
pub fn escape_commas(value: &str) -> String {
    value.replace(',', ",,")
}

/// Cuts a value off the front, up to the first single comma; pairs of commas become one. Returns
/// the value and what follows the comma.
pub(super) fn split_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(',') {
        let (head, tail) = rest.split_at(at);
        value.push_str(head);
        if let Some(behind_pair) = tail.strip_prefix(",,") {
            value.push(',');
            rest = behind_pair;
        } else {
            return (value, tail.strip_prefix(',').unwrap_or(tail));
        }
    }
    value.push_str(rest);
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Vec<(String, String)> {
        parse_list(text, None)
            .into_iter()
            .map(|(k, v)| (k, v.as_str().unwrap_or_default().to_owned()))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn lists_as_the_reference_reads_them() {
        for (text, expected) in [
            ("", &[] as &[_]),
            ("size=1M,nocow=on", &[("size", "1M"), ("nocow", "on")]),
            (
                "backing_file=a,,b=c,backing_fmt=raw",
                &[("backing_file", "a,b=c"), ("backing_fmt", "raw")],
            ),
            ("size=1,,", &[("size", "1,")]),
            ("lazy_refcounts", &[("lazy_refcounts", "on")]),
            ("nolazy_refcounts", &[("lazy_refcounts", "off")]),
            ("nocow", &[("cow", "off")]),
            ("a=1,b=2,a=3", &[("a", "3"), ("b", "2")]),
            ("a,,b=1", &[("a", "on"), ("", "on"), ("b", "1")]),
            ("=1", &[("", "1")]),
            ("a=", &[("a", "")]),
            ("a= b , c=d", &[("a", " b "), (" c", "d")]),
            ("file.filename=x=y", &[("file.filename", "x=y")]),
        ] {
            assert_eq!(list(text), pairs(expected), "{text}");
        }
    }

    #[test]
    fn an_implied_key_takes_the_first_part_only() {
        let dict = parse_list("a,,b,driver=raw,flag", Some("file"));
        assert_eq!(dict, Dict::from([("file", "a,b"), ("driver", "raw"), ("flag", "on")]));
        let dict = parse_list("driver=raw,flag", Some("file"));
        assert_eq!(dict, Dict::from([("driver", "raw"), ("flag", "on")]));
    }

    #[test]
    fn joining_refuses_ambiguous_commas() {
        assert_eq!(join_lists(&["a=1", "b=2,,"]).unwrap(), "a=1,b=2,,");
        for part in ["", ",a=1", ",,a", "a=1,", "a=1,,,"] {
            assert!(join_lists(&["a=1", part]).is_err(), "{part}");
        }
    }

    #[test]
    fn help_is_found_anywhere() {
        for text in ["help", "?", "size=1,?", "a,,help", "x=a,,,help", "help,size=1"] {
            assert!(wants_help(text), "{text}");
        }
        for text in ["", "a=help", "a=b,,help", "help=on", "helpx"] {
            assert!(!wants_help(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in any::<String>()) {
            let _ = (parse_list(&text, None), parse_list(&text, Some("file")), wants_help(&text));
        }

        #[test]
        fn escaped_values_come_back(value in any::<String>()) {
            let text = format!("a={},b=1", escape_commas(&value));
            prop_assert_eq!(parse_list(&text, None), Dict::from([("a", value), ("b", "1".into())]));
        }
    }
}
