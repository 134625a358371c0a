//! JSON text in: RFC 8259 with the reference's extensions (strings in single quotes, `\'`) and
//! restrictions (no duplicate keys).

use std::fmt;

use super::super::value::{Dict, Value};
use super::MAX_DEPTH;

/// What is wrong with a JSON text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Byte offset into the text.
    pub position: usize,
    /// What is wrong there.
    pub problem: JsonProblem,
}

/// What can be wrong with a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonProblem {
    /// Not an escape sequence that JSON knows, or half of a surrogate pair.
    BadEscape,
    /// Not the form of a JSON number.
    BadNumber,
    /// A control character inside a string.
    ControlCharacter,
    /// The key occurred before in this object.
    DuplicateKey,
    /// The text ends too early.
    End,
    /// A colon should be here.
    ExpectedColon,
    /// A comma or the end of the list or object should be here.
    ExpectedCommaOrEnd,
    /// A string naming a member should be here.
    ExpectedKey,
    /// A value should be here.
    ExpectedValue,
    /// Too large for a number.
    NumberTooLarge,
    /// More than [`MAX_DEPTH`] lists and objects inside one another.
    TooDeep,
    /// Something follows the value.
    Trailing,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self.problem {
            JsonProblem::BadEscape => "invalid escape sequence",
            JsonProblem::BadNumber => "invalid number",
            JsonProblem::ControlCharacter => "control character in a string (use \\u00XX)",
            JsonProblem::DuplicateKey => "duplicate key",
            JsonProblem::End => "unexpected end of text",
            JsonProblem::ExpectedColon => "':' expected",
            JsonProblem::ExpectedCommaOrEnd => "',' or a closing bracket expected",
            JsonProblem::ExpectedKey => "key string expected",
            JsonProblem::ExpectedValue => "value expected",
            JsonProblem::NumberTooLarge => "number too large",
            JsonProblem::TooDeep => "nested too deeply",
            JsonProblem::Trailing => "text after the end of the value",
        };
        write!(f, "JSON: {problem} at byte {}", self.position)
    }
}

impl std::error::Error for JsonError {}

/// Parses a text that holds exactly one JSON value.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    let mut parser = Parser { text, at: 0 };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.error(JsonProblem::Trailing));
    }
    Ok(value)
}

struct Parser<'t> {
    text: &'t str,
    /// Invariant: at a character boundary of `text`, at most its length.
    at: usize,
}

impl Parser<'_> {
    fn error(&self, problem: JsonProblem) -> JsonError {
        JsonError { position: self.at, problem }
    }

    /// Like [`Self::error`], but reports the end of the text as such.
    fn unexpected(&self, problem: JsonProblem) -> JsonError {
        self.error(if self.at == self.text.len() { JsonProblem::End } else { problem })
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        match self.peek() {
            Some('{' | '[') if depth >= MAX_DEPTH => Err(self.error(JsonProblem::TooDeep)),
            Some('{') => self.object(depth),
            Some('[') => self.list(depth),
            Some('"' | '\'') => self.string().map(Value::Str),
            Some('-' | '0'..='9') => self.number(),
            Some('a'..='z') => self.keyword(),
            _ => Err(self.unexpected(JsonProblem::ExpectedValue)),
        }
    }

    fn keyword(&mut self) -> Result<Value, JsonError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
        let value = match rest.get(..end) {
            Some("null") => Value::Null,
            Some("true") => Value::Bool(true),
            Some("false") => Value::Bool(false),
            _ => return Err(self.error(JsonProblem::ExpectedValue)),
        };
        self.at += end;
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut list = Vec::new();
        self.next();
        self.skip_space();
        if self.skip(']') {
            return Ok(Value::List(list));
        }
        loop {
            self.skip_space();
            list.push(self.value(depth + 1)?);
            self.skip_space();
            if self.skip(']') {
                return Ok(Value::List(list));
            }
            if !self.skip(',') {
                return Err(self.unexpected(JsonProblem::ExpectedCommaOrEnd));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut entries = Vec::new();
        let mut places = Vec::new();
        self.next();
        self.skip_space();
        if self.skip('}') {
            return Ok(Value::Dict(Dict::new()));
        }
        loop {
            self.skip_space();
            places.push(self.at);
            if !matches!(self.peek(), Some('"' | '\'')) {
                return Err(self.unexpected(JsonProblem::ExpectedKey));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.skip(':') {
                return Err(self.unexpected(JsonProblem::ExpectedColon));
            }
            self.skip_space();
            entries.push((key, self.value(depth + 1)?));
            self.skip_space();
            if self.skip('}') {
                break;
            }
            if !self.skip(',') {
                return Err(self.unexpected(JsonProblem::ExpectedCommaOrEnd));
            }
        }
        if let Some(position) = second_of_equal_keys(&entries, &places) {
            return Err(JsonError { position, problem: JsonProblem::DuplicateKey });
        }
        Ok(Value::Dict(Dict::from_distinct(entries)))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        let mut string = String::new();
        let quote = self.next();
        loop {
            let start = self.at;
            match self.next() {
                None => return Err(self.error(JsonProblem::End)),
                c if c == quote => return Ok(string),
                Some('\\') => {
                    let c = self.escape().map_err(|problem| match problem {
                        JsonProblem::End => self.error(problem),
                        _ => JsonError { position: start, problem },
                    })?;
                    string.push(c);
                }
                Some('\0'..='\u{1f}') => {
                    return Err(JsonError {
                        position: start,
                        problem: JsonProblem::ControlCharacter,
                    });
                }
                Some(c) => string.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonProblem> {
        Ok(match self.next().ok_or(JsonProblem::End)? {
            c @ ('"' | '\'' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.utf16_unit()?;
                let mut units = vec![first];
                if matches!(first, 0xd800..=0xdbff) {
                    if self.next() != Some('\\') || self.next() != Some('u') {
                        return Err(JsonProblem::BadEscape);
                    }
                    units.push(self.utf16_unit()?);
                }
                match char::decode_utf16(units).next() {
                    Some(Ok(c)) => c,
                    _ => return Err(JsonProblem::BadEscape),
                }
            }
            _ => return Err(JsonProblem::BadEscape),
        })
    }

    fn utf16_unit(&mut self) -> Result<u16, JsonProblem> {
        let mut unit = 0;
        for _ in 0..4 {
            let c = self.next().ok_or(JsonProblem::End)?;
            let digit = c.to_digit(16).ok_or(JsonProblem::BadEscape)?;
            unit = unit * 16 + digit;
        }
        u16::try_from(unit).map_err(|_| JsonProblem::BadEscape)
    }

    /// Integers become `i64`, failing that `u64`, failing that a float.
    fn number(&mut self) -> Result<Value, JsonError> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        let text = rest.get(..end).unwrap_or("");
        let value = match number_form(text) {
            None => return Err(self.error(JsonProblem::BadNumber)),
            Some(NumberForm::Integer) => integer(text),
            Some(NumberForm::Fraction) => None,
        };
        let value = match value {
            Some(value) => value,
            None => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float(number),
                _ => return Err(self.error(JsonProblem::NumberTooLarge)),
            },
        };
        self.at += end;
        Ok(value)
    }
}

fn integer(text: &str) -> Option<Value> {
    text.parse::<i64>().map(Value::Int).or_else(|_| text.parse::<u64>().map(Value::Uint)).ok()
}

enum NumberForm {
    Integer,
    Fraction,
}

/// The form of a number by RFC 8259, section 6.
fn number_form(text: &str) -> Option<NumberForm> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    let exponent_digits = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    let valid = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent_digits.is_none_or(digits);
    if !valid {
        None
    } else if fraction.is_none() && exponent.is_none() {
        Some(NumberForm::Integer)
    } else {
        Some(NumberForm::Fraction)
    }
}

/// The place of the first key, in the order of places, that repeats an earlier one. Sorting keeps
/// large hostile objects from costing quadratic time.
fn second_of_equal_keys(entries: &[(String, Value)], places: &[usize]) -> Option<usize> {
    let mut keys: Vec<_> = entries.iter().zip(places).map(|((key, _), at)| (key, *at)).collect();
    keys.sort_unstable();
    keys.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1).min()
}
