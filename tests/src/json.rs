//! A strict reader for the JSON reports of image tools, and a field-by-field comparison of two of them.
//!
//! Independent of the code under test on purpose. Numbers stay text, so that 64-bit sizes compare exactly.

use std::fmt;

/// A JSON value; objects keep the order of their members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it was written.
    Number(String),
    /// A string, unescaped.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one value that spans all of `text`.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        let value = reader.value()?;
        reader.blank();
        if reader.at == reader.text.len() { Ok(value) } else { Err(reader.error("trailing text")) }
    }

    /// Member `name` of an object.
    pub fn field(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// A number as an integer.
    pub fn integer(&self) -> Option<u64> {
        match self {
            Json::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Elements of an array; empty for anything else.
    pub fn elements(&self) -> &[Json] {
        match self {
            Json::List(elements) => elements,
            _ => &[],
        }
    }

    /// Every place where `self` and `other` differ, one line each, leaving out members named in `noise`.
    pub fn differences(&self, other: &Json, noise: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        compare("", self, other, noise, &mut found);
        found
    }
}

/// Where a text stops being JSON.
#[derive(Debug)]
pub struct SyntaxError {
    /// Byte offset in the text.
    pub offset: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON at byte {}: {}", self.offset, self.expected)
    }
}

impl std::error::Error for SyntaxError {}

fn compare(path: &str, left: &Json, right: &Json, noise: &[&str], found: &mut Vec<String>) {
    match (left, right) {
        (Json::Object(a), Json::Object(b)) => {
            for (key, value) in a.iter().filter(|(key, _)| !noise.contains(&key.as_str())) {
                let path = format!("{path}/{key}");
                match right.field(key) {
                    Some(other) => compare(&path, value, other, noise, found),
                    None => found.push(format!("{path}: {value:?} on the left only")),
                }
            }
            for (key, value) in b.iter().filter(|(key, _)| !noise.contains(&key.as_str())) {
                if left.field(key).is_none() {
                    found.push(format!("{path}/{key}: {value:?} on the right only"));
                }
            }
        }
        (Json::List(a), Json::List(b)) => {
            if a.len() != b.len() {
                found.push(format!("{path}: {} elements, not {}", a.len(), b.len()));
            }
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{index}]"), a, b, noise, found);
            }
        }
        _ if left == right => {}
        _ => found.push(format!("{path}: {left:?} is not {right:?}")),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn error(&self, expected: &'static str) -> SyntaxError {
        SyntaxError { offset: self.at, expected }
    }

    fn blank(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.text[self.at..].starts_with(token.as_bytes());
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self) -> Result<Json, SyntaxError> {
        self.blank();
        match self.text.get(self.at) {
            Some(b'{') => self.object(),
            Some(b'[') => self.list(),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => Ok(self.number()),
            _ if self.eat("null") => Ok(Json::Null),
            _ if self.eat("true") => Ok(Json::Bool(true)),
            _ if self.eat("false") => Ok(Json::Bool(false)),
            _ => Err(self.error("a value")),
        }
    }

    fn object(&mut self) -> Result<Json, SyntaxError> {
        let mut members = Vec::new();
        self.at += 1;
        self.blank();
        if self.eat("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.blank();
            let key = self.string()?;
            self.blank();
            if !self.eat(":") {
                return Err(self.error("':'"));
            }
            members.push((key, self.value()?));
            self.blank();
            if self.eat("}") {
                return Ok(Json::Object(members));
            }
            if !self.eat(",") {
                return Err(self.error("',' or '}'"));
            }
        }
    }

    fn list(&mut self) -> Result<Json, SyntaxError> {
        let mut elements = Vec::new();
        self.at += 1;
        self.blank();
        if self.eat("]") {
            return Ok(Json::List(elements));
        }
        loop {
            elements.push(self.value()?);
            self.blank();
            if self.eat("]") {
                return Ok(Json::List(elements));
            }
            if !self.eat(",") {
                return Err(self.error("',' or ']'"));
            }
        }
    }

    fn number(&mut self) -> Json {
        let start = self.at;
        while matches!(self.text.get(self.at), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
        {
            self.at += 1;
        }
        Json::Number(String::from_utf8_lossy(&self.text[start..self.at]).into_owned())
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        if !self.eat("\"") {
            return Err(self.error("a string"));
        }
        let mut bytes = Vec::new();
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                return Err(self.error("the end of the string"));
            };
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => self.escape(&mut bytes)?,
                _ => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.error("UTF-8"))
    }

    fn escape(&mut self, into: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let Some(&kind) = self.text.get(self.at) else {
            return Err(self.error("an escape"));
        };
        self.at += 1;
        let character = match kind {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4);
                let code = digits
                    .and_then(|digits| std::str::from_utf8(digits).ok())
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                    .and_then(char::from_u32)
                    .ok_or_else(|| self.error("four hex digits of a character"))?;
                self.at += 4;
                code
            }
            other => char::from(other),
        };
        into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn differences_name_the_place_and_both_values() {
        let left = Json::parse(r#"{"a": [1, {"b": "x"}], "size": 18446744073709551615}"#).unwrap();
        let right = Json::parse(r#"{"a": [1, {"b": "y"}], "extra": null}"#).unwrap();
        assert_eq!(
            left.differences(&right, &[]),
            [
                r#"/a[1]/b: Text("x") is not Text("y")"#,
                r#"/size: Number("18446744073709551615") on the left only"#,
                "/extra: Null on the right only",
            ]
        );
        assert_eq!(left.differences(&right, &["a", "size", "extra"]), [""; 0]);
    }

    #[test]
    fn order_of_members_does_not_matter_but_order_of_elements_does() {
        let parse = |text| Json::parse(text).unwrap();
        let object = parse(r#"{"a": 1, "b": 2}"#);
        assert!(object.differences(&parse(r#"{"b": 2, "a": 1}"#), &[]).is_empty());
        assert_eq!(parse("[1, 2]").differences(&parse("[2, 1]"), &[]).len(), 2);
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "nul", "[1] 2", "\"a"] {
            assert!(Json::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        let expected = Json::Text("a\"\n\u{e9}/".to_owned());
        assert_eq!(Json::parse(r#""a\"\n\u00e9\/""#).unwrap(), expected);
    }
}
