//! Checking option values against their descriptions, without a driver.

use super::describe::{OptionDesc, OptionKind};
use super::error::OptionError;
use super::size::{parse_i64, parse_size, parse_u64};
use super::value::{Dict, Value};

/// Fails if `options`, as a comma list gives them, has an option that is in none of `tables`, or a value
/// that is not of the described type. `owner` is what the options are for.
pub fn validate(options: &Dict, owner: &str, tables: &[&[OptionDesc]]) -> Result<(), OptionError> {
    let described: Vec<&OptionDesc> = tables.iter().copied().flatten().collect();
    for (name, value) in options.iter() {
        let Some(desc) = described.iter().find(|desc| desc.name == name) else {
            return Err(OptionError::unknown(name, owner, tables));
        };
        if let Value::Str(text) = value {
            check(desc, text)?;
        }
    }
    Ok(())
}

fn check(desc: &OptionDesc, text: &str) -> Result<(), OptionError> {
    let expected = match desc.kind {
        OptionKind::Bool if !matches!(text, "on" | "off" | "yes" | "no" | "true" | "false") => {
            "on or off".to_owned()
        }
        OptionKind::Enum(words) if !words.contains(&text) => words.join(", "),
        OptionKind::Num if parse_i64(text).is_err() && parse_u64(text).is_err() => {
            "a whole number".to_owned()
        }
        OptionKind::Size if parse_size(text).is_err() => "a size".to_owned(),
        _ => return Ok(()),
    };
    let (name, value) = (desc.name.to_owned(), text.to_owned());
    Err(OptionError::Invalid { name, value, expected })
}

#[cfg(test)]
mod tests {
    use super::super::list::parse_list;
    use super::super::types::Size;
    use super::*;

    crate::option_words! {
        enum Mode {
            Off = "off",
            Full = "full",
        }
    }

    crate::options! {
        /// Options.
        struct Options {
            /// A size.
            "size" => size: Option<Size>,
            /// A number.
            "bits" => bits: Option<u64>,
            /// A word.
            "mode" => mode: Option<Mode>,
            /// A switch.
            "lazy" => lazy: Option<bool>,
        }
    }

    #[test]
    fn values_are_checked_by_their_kind() {
        let check = |text: &str| validate(&parse_list(text, None), "x", &[Options::TABLE]);
        check("size=1G,bits=0x10,mode=full,lazy=on").expect("valid");
        for text in ["size=1x", "bits=many", "mode=half", "lazy=maybe", "unknown=1"] {
            let error = check(text).expect_err(text).to_string();
            let (name, value) = text.split_once('=').expect("a pair");
            assert!(error.contains(name) || error.contains(value), "{error}");
        }
    }
}
