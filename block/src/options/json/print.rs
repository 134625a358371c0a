//! JSON text out: one line, or indented as the tools' `--output=json` prints it.

use std::fmt::Write;

use super::super::number::format_general;
use super::super::value::{Dict, Value};

/// Significant digits that identify any `f64`.
const FLOAT_DIGITS: usize = 17;

/// One line: `{"a": 1, "b": [1, 2]}`, keys in reference order, ASCII only.
pub fn compact(value: &Value) -> String {
    let mut printer = Printer { text: String::new(), pretty: false };
    printer.value(value, 0);
    printer.text
}

/// Several lines, indented by four spaces, keys in reference order, ASCII only. Empty containers
/// take two lines, as in the reference's output.
pub fn pretty(value: &Value) -> String {
    let mut printer = Printer { text: String::new(), pretty: true };
    printer.value(value, 0);
    printer.text
}

struct Printer {
    text: String,
    pretty: bool,
}

impl Printer {
    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            // JSON has no notation for infinities and NaN.
            Value::Null => self.text.push_str("null"),
            Value::Float(number) if !number.is_finite() => self.text.push_str("null"),
            Value::Bool(flag) => self.text.push_str(if *flag { "true" } else { "false" }),
            Value::Int(number) => self.display(number),
            Value::Uint(number) => self.display(number),
            Value::Float(number) => self.text.push_str(&format_general(*number, FLOAT_DIGITS)),
            Value::Str(text) => self.string(text),
            Value::List(list) => self.list(list, depth),
            Value::Dict(dict) => self.dict(dict, depth),
        }
    }

    fn list(&mut self, list: &[Value], depth: usize) {
        self.text.push('[');
        for (index, value) in list.iter().enumerate() {
            self.separate(index, depth);
            self.value(value, depth + 1);
        }
        self.end_of_container(depth);
        self.text.push(']');
    }

    fn dict(&mut self, dict: &Dict, depth: usize) {
        self.text.push('{');
        for (index, (key, value)) in dict.reference_order().into_iter().enumerate() {
            self.separate(index, depth);
            self.string(key);
            self.text.push_str(": ");
            self.value(value, depth + 1);
        }
        self.end_of_container(depth);
        self.text.push('}');
    }

    fn separate(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.text.push_str(if self.pretty { "," } else { ", " });
        }
        if self.pretty {
            self.new_line(depth + 1);
        }
    }

    fn end_of_container(&mut self, depth: usize) {
        if self.pretty {
            self.new_line(depth);
        }
    }

    fn new_line(&mut self, depth: usize) {
        self.text.push('\n');
        for _ in 0..depth {
            self.text.push_str("    ");
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                ' '..='~' => self.text.push(c),
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.display(format_args!("\\u{unit:04X}"));
                    }
                }
            }
        }
        self.text.push('"');
    }

    fn display(&mut self, what: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{what}");
    }
}
