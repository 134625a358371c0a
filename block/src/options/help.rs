//! Creation options as text: the table of `-o help`, and the line that reports a creation.
//!
//! The layout is that of the reference, since programs parse it; the wording of the help is not.

use super::describe::{OptionDesc, OptionKind};
use super::list::escape_commas;
use super::size::{parse_i64, parse_size, parse_u64};
use super::value::{Dict, Value};

/// Column up to which names and types are padded.
const NAME_WIDTH: usize = 24;

/// The options of several tables, those of a format before those of its protocol. Where two tables
/// have an option of the same name, the earlier one counts.
pub fn merge<'t>(tables: &[&'t [OptionDesc]]) -> Vec<&'t OptionDesc> {
    let mut merged: Vec<&OptionDesc> = Vec::new();
    for desc in tables.iter().copied().flatten() {
        if merged.iter().all(|earlier| earlier.name != desc.name) {
            merged.push(desc);
        }
    }
    merged
}

/// What `create -f FORMAT -o help` prints. `protocol` holds the creation options of the protocol
/// when a target file says which one it is.
pub fn creation_help(
    format: &str,
    options: &[OptionDesc],
    protocol: Option<&[OptionDesc]>,
) -> String {
    match protocol {
        Some(protocol) => format!("Supported options:\n{}", table(&merge(&[options, protocol]))),
        None => format!(
            "Supported {format} options:\n{}\n\
             More options may exist for the place where the image is stored.\n\
             Name the target file to see them, too.\n",
            table(&merge(&[options]))
        ),
    }
}

/// One line for each option, sorted by name.
pub fn table(options: &[&OptionDesc]) -> String {
    let mut options = options.to_vec();
    options.sort_by_key(|desc| desc.name);
    let mut lines = String::new();
    for desc in options {
        let name = format!("  {}=<{}>", desc.name, type_name(desc.kind));
        let line = format!("{name:NAME_WIDTH$} - {}\n", explanation(desc));
        lines.push_str(&line);
    }
    lines
}

fn type_name(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Bool => "bool (on/off)",
        OptionKind::Child => "node",
        OptionKind::Enum(_) | OptionKind::Str => "str",
        OptionKind::List(_) => "list",
        OptionKind::Num => "num",
        OptionKind::Size => "size",
        OptionKind::Struct(_) => "group",
    }
}

fn explanation(desc: &OptionDesc) -> String {
    let mut notes = Vec::new();
    if let OptionKind::Enum(words) = desc.kind {
        notes.push(words.join(", "));
    }
    if let Some(default) = desc.default {
        notes.push(format!("default {default}"));
    }
    if let Some(instead) = desc.deprecated {
        notes.push(format!("deprecated: {instead}"));
    }
    let help = desc.help.trim_end_matches('.');
    if notes.is_empty() { help.to_owned() } else { format!("{help} ({})", notes.join("; ")) }
}

/// The line that `create` prints: `Formatting 'FILE', fmt=FORMAT key=value …`, with the options that
/// are given or have a default (the default of a deprecated option is not shown), in the order of
/// `described`, and commas in text doubled.
pub fn creation_line(
    filename: &str,
    format: &str,
    described: &[&OptionDesc],
    options: &Dict,
) -> String {
    let shown: Vec<String> = described
        .iter()
        .filter_map(|desc| {
            let value = match (options.get_path(desc.name), desc.default) {
                (Some(value), _) => given_text(desc.kind, value),
                (None, Some(default)) if desc.deprecated.is_none() => {
                    given_text(desc.kind, &default.into())
                }
                (None, _) => return None,
            };
            Some(format!("{}={value}", desc.name))
        })
        .collect();
    format!("Formatting '{filename}', fmt={format} {}", shown.join(" "))
}

fn given_text(kind: OptionKind, value: &Value) -> String {
    match (kind, value) {
        (_, Value::Bool(flag)) => if *flag { "on" } else { "off" }.to_owned(),
        (OptionKind::Bool, Value::Str(text)) => text.clone(),
        // A value that is no number is refused when the image is created; it is shown as it is.
        (OptionKind::Size, Value::Str(text)) => {
            parse_size(text).map_or_else(|_| text.clone(), |size| size.to_string())
        }
        (OptionKind::Num, Value::Str(text)) => parse_i64(text)
            .map(|number| number.to_string())
            .or_else(|_| parse_u64(text).map(|number| number.to_string()))
            .unwrap_or_else(|_| text.clone()),
        (_, Value::Str(text)) => escape_commas(text),
        (_, other) => super::json::compact(other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::Size;
    use super::*;

    crate::option_words! {
        enum Prealloc {
            Off = "off",
            Full = "full",
        }
    }

    crate::options! {
        /// Options of a format.
        struct Format {
            /// Unit of allocation.
            "cluster_size" => cluster_size: Size = "64k",
            /// Size of the virtual disk.
            "size" => size: Option<Size>,
            /// Name of the backing file.
            "backing_file" => backing_file: Option<String>,
            /// Delay refcount updates.
            "lazy_refcounts" => lazy_refcounts: Option<bool>,
            /// The old encryption.
            "encryption" => encryption: bool = "off" [deprecated "use encrypt.format=aes"],
        }
    }

    crate::options! {
        /// Options of a protocol.
        struct Protocol {
            /// Never shown.
            "size" => size: Option<u64>,
            /// Storage to reserve.
            "preallocation" => preallocation: Prealloc = "off",
            /// Iterations
            "encrypt.iter-time" => iter_time: Option<u64>,
        }
    }

    #[test]
    fn help_has_the_layout_of_the_reference() {
        assert_eq!(
            creation_help("test", Format::TABLE, None),
            "\
Supported test options:
  backing_file=<str>     - Name of the backing file
  cluster_size=<size>    - Unit of allocation (default 64k)
  encryption=<bool (on/off)> - The old encryption (default off; deprecated: use encrypt.format=aes)
  lazy_refcounts=<bool (on/off)> - Delay refcount updates
  size=<size>            - Size of the virtual disk

More options may exist for the place where the image is stored.
Name the target file to see them, too.
"
        );
        let both = creation_help("test", Format::TABLE, Some(Protocol::TABLE));
        assert!(both.starts_with("Supported options:\n  backing_file=<str>     - "));
        assert!(both.contains("\n  encrypt.iter-time=<num> - Iterations\n"));
        assert!(both.contains(
            "\n  preallocation=<str>    - Storage to reserve (off, full; default off)\n"
        ));
        assert!(both.ends_with("\n  size=<size>            - Size of the virtual disk\n"));
    }

    #[test]
    fn creation_line_keeps_the_order_of_the_tables() {
        let mut options =
            Dict::from([("backing_file", "a,b c"), ("size", "1M"), ("lazy_refcounts", "yes")]);
        options.insert("encrypt", Dict::from([("iter-time", "0x10")]));
        assert_eq!(
            creation_line("b c", "test", &merge(&[Format::TABLE, Protocol::TABLE]), &options),
            "Formatting 'b c', fmt=test cluster_size=65536 size=1048576 backing_file=a,,b c \
             lazy_refcounts=yes preallocation=off encrypt.iter-time=16"
        );
        let typed = Dict::from([("size", Value::from(5u64)), ("lazy_refcounts", false.into())]);
        assert_eq!(
            creation_line("f", "test", &merge(&[Format::TABLE]), &typed),
            "Formatting 'f', fmt=test cluster_size=65536 size=5 lazy_refcounts=off"
        );
    }
}
