//! The configuration file of a `blkdebug` node.
//!
//! Lines: `[inject-error]` or `[set-state]` begin a rule, `key = "value"` lines describe it, `#` begins
//! a comment, empty lines mean nothing.

use std::io::{self, Read as _};

use super::options::{InjectError, SetState};
use super::rules::Rule;
use crate::error::{Error, Result};
use crate::options::{Dict, OptionError};

/// Longest file in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Longest line that is shown in messages, in characters.
const MAX_SHOWN: usize = 80;

/// Reads the file at `path`.
pub(super) fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is above 1 MiB"));
    }
    Ok(text)
}

#[derive(Clone, Copy)]
enum Section {
    InjectError,
    SetState,
}

/// The rules that `text` describes, in order.
pub fn parse_config(text: &str) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    let mut current: Option<(Section, Dict)> = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            finish(current.take(), &mut rules)?;
            // A name in quotes may follow; it means nothing here.
            let section = match name.split_whitespace().next() {
                Some("inject-error") => Section::InjectError,
                Some("set-state") => Section::SetState,
                _ => return Err(malformed(line, "is not [inject-error] or [set-state]")),
            };
            current = Some((section, Dict::new()));
            continue;
        }
        let Some((_, options)) = &mut current else {
            return Err(malformed(line, "stands before the first [inject-error] or [set-state]"));
        };
        let (key, value) =
            pair(line).ok_or_else(|| malformed(line, "is not of the form key = \"value\""))?;
        options.insert(key.to_owned(), value);
    }
    finish(current, &mut rules)?;
    Ok(rules)
}

/// The key and the value of `key = "value"`.
fn pair(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let value = value.strip_prefix('"')?.strip_suffix('"')?;
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (!key.is_empty() && key.bytes().all(is_word) && !value.contains('"')).then_some((key, value))
}

fn finish(section: Option<(Section, Dict)>, rules: &mut Vec<Rule>) -> Result<()> {
    match section {
        None => {}
        Some((Section::InjectError, options)) => {
            rules.push(InjectError::parse(options, "[inject-error]")?.rule()?);
        }
        Some((Section::SetState, options)) => {
            rules.push(SetState::parse(options, "[set-state]")?.rule());
        }
    }
    Ok(())
}

fn malformed(line: &str, problem: &'static str) -> Error {
    let text = line.chars().take(MAX_SHOWN).collect();
    OptionError::Syntax { text, problem }.into()
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Inject, IoType, RuleAction};
    use super::*;
    use crate::event::Event;

    #[test]
    fn sections_become_rules() {
        let text = "\
# A comment
[inject-error]
event = \"l2_load\"
errno = \"28\"
once = \"on\"
  sector = \"0x10\"

[set-state \"name\"]
event = \"write_aio\"
state = \"1\"
new_state = \"2\"
";
        let inject = Inject {
            kinds: IoType::all() - IoType::BLOCK_STATUS,
            errno: 28,
            sector: Some(16),
            once: true,
            immediately: false,
        };
        assert_eq!(
            parse_config(text).expect("valid"),
            [
                Rule { event: Event::L2Load, state: 0, action: RuleAction::Inject(inject) },
                Rule { event: Event::WriteAio, state: 1, action: RuleAction::SetState(2) },
            ]
        );
        assert!(parse_config("").expect("valid").is_empty());
    }

    #[test]
    fn mistakes_are_refused() {
        for text in [
            "event = \"l2_load\"",
            "[suspend]",
            "[inject-error]",
            "[inject-error]\nevent = l2_load",
            "[inject-error]\nevent = \"l3_load\"",
            "[inject-error]\nevent = \"l2_load\"\nfoo = \"1\"",
            "[inject-error]\nevent = \"l2_load\"\nerrno = \"-1\"",
            "[inject-error]\nevent = \"l2_load\"\nsector = \"-2\"",
            "[set-state]\nnew_state = \"2\"",
            "[inject-error",
        ] {
            assert!(parse_config(text).is_err(), "{text}");
        }
    }
}
