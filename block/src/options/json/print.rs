//! JSON text out: one line, or indented as the tools' `--output=json` prints it.

use std::fmt::{self, Write};

use super::super::number::format_general;
use super::super::value::{Dict, Value, in_reference_order};

/// Significant digits that identify any `f64`.
const FLOAT_DIGITS: usize = 17;

/// A document whose parts need not be there before they are printed.
pub enum Document<'d> {
    /// A part that is there.
    Value(Value),
    /// An object with these members, in insertion order.
    Dict(Vec<(&'d str, Document<'d>)>),
    /// A list.
    List(Box<dyn Iterator<Item = Document<'d>> + 'd>),
}

impl<T: Into<Value>> From<T> for Document<'_> {
    fn from(value: T) -> Self {
        Document::Value(value.into())
    }
}

/// One line: `{"a": 1, "b": [1, 2]}`, keys in reference order, ASCII only.
pub fn compact(value: &Value) -> String {
    let mut text = String::new();
    let mut printer = Printer { out: &mut text, pretty: false };
    // Writing to a String cannot fail.
    let _ = printer.value(value, 0);
    text
}

/// Several lines, indented by four spaces, keys in reference order, ASCII only. Empty containers
/// take two lines, as in the reference's output.
pub fn pretty(value: &Value) -> String {
    let mut text = String::new();
    let mut printer = Printer { out: &mut text, pretty: true };
    // Writing to a String cannot fail.
    let _ = printer.value(value, 0);
    text
}

/// Writes the lines of [`pretty`] to `out`. Fails only when `out` does.
pub fn write_pretty(document: Document<'_>, out: &mut dyn Write) -> fmt::Result {
    Printer { out, pretty: true }.document(document, 0)
}

struct Printer<'o> {
    out: &'o mut dyn Write,
    pretty: bool,
}

impl Printer<'_> {
    fn document(&mut self, document: Document<'_>, depth: usize) -> fmt::Result {
        match document {
            Document::Value(value) => self.value(&value, depth),
            Document::Dict(members) => self.container(
                ['{', '}'],
                in_reference_order(members),
                depth,
                |printer, (key, member)| {
                    printer.key(key)?;
                    printer.document(member, depth + 1)
                },
            ),
            Document::List(items) => self.container(['[', ']'], items, depth, |printer, item| {
                printer.document(item, depth + 1)
            }),
        }
    }

    fn value(&mut self, value: &Value, depth: usize) -> fmt::Result {
        match value {
            // JSON has no notation for infinities and NaN.
            Value::Null => self.out.write_str("null"),
            Value::Float(number) if !number.is_finite() => self.out.write_str("null"),
            Value::Bool(flag) => write!(self.out, "{flag}"),
            Value::Int(number) => write!(self.out, "{number}"),
            Value::Uint(number) => write!(self.out, "{number}"),
            Value::Float(number) => self.out.write_str(&format_general(*number, FLOAT_DIGITS)),
            Value::Str(text) => self.string(text),
            Value::List(list) => self
                .container(['[', ']'], list, depth, |printer, item| printer.value(item, depth + 1)),
            Value::Dict(dict) => self.dict(dict, depth),
        }
    }

    fn dict(&mut self, dict: &Dict, depth: usize) -> fmt::Result {
        self.container(['{', '}'], dict.reference_order(), depth, |printer, (key, member)| {
            printer.key(key)?;
            printer.value(member, depth + 1)
        })
    }

    /// Writes `parts` with `write`, between these brackets.
    fn container<T>(
        &mut self,
        [open, close]: [char; 2],
        parts: impl IntoIterator<Item = T>,
        depth: usize,
        mut write: impl FnMut(&mut Self, T) -> fmt::Result,
    ) -> fmt::Result {
        self.out.write_char(open)?;
        for (index, part) in parts.into_iter().enumerate() {
            if index > 0 {
                self.out.write_str(if self.pretty { "," } else { ", " })?;
            }
            self.new_line(depth + 1)?;
            write(self, part)?;
        }
        self.new_line(depth)?;
        self.out.write_char(close)
    }

    fn key(&mut self, key: &str) -> fmt::Result {
        self.string(key)?;
        self.out.write_str(": ")
    }

    fn new_line(&mut self, depth: usize) -> fmt::Result {
        if self.pretty {
            self.out.write_char('\n')?;
            for _ in 0..depth {
                self.out.write_str("    ")?;
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> fmt::Result {
        self.out.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' => self.out.write_str("\\\"")?,
                '\\' => self.out.write_str("\\\\")?,
                '\u{8}' => self.out.write_str("\\b")?,
                '\u{c}' => self.out.write_str("\\f")?,
                '\n' => self.out.write_str("\\n")?,
                '\r' => self.out.write_str("\\r")?,
                '\t' => self.out.write_str("\\t")?,
                ' '..='~' => self.out.write_char(c)?,
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(self.out, "\\u{unit:04X}")?;
                    }
                }
            }
        }
        self.out.write_char('"')
    }
}
