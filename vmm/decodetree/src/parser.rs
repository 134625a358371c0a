//! Builds the [`File`] of a pattern file.
//!
//! A line that is wrong is reported and left out, so that one run shows the errors of all lines.

use crate::ast::{
    ArgElement, ArgsDef, Element, Encoding, FieldDef, FieldPart, File, Group, Member, Name,
    PartSource,
};
use crate::diagnostic::{Diagnostic, Errors};
use crate::lexer::{self, Word};
use crate::source::{Source, Span};

/// Groups may nest this deep; bounds the recursion of later passes.
const MAX_NESTING: usize = 16;

/// Longest pattern file, in bytes.
const MAX_TEXT: usize = 4 << 20;

type Parsed<T> = Result<T, Diagnostic>;

/// Parses `source`, or reports every line that does not parse.
pub(crate) fn parse(source: &Source) -> Result<File, Errors> {
    let mut parser = Parser { source, file: File::default(), open: Vec::new() };
    let mut errors = Errors::default();
    if !source.widths.is_valid() {
        let message = format!(
            "instruction widths {} to {} are not multiples of 8 up to 64",
            source.widths.min, source.widths.max
        );
        errors.push(parser.error(Span::default(), message));
    } else if source.text.len() > MAX_TEXT {
        let message = format!("the file is longer than {MAX_TEXT} bytes");
        errors.push(parser.error(Span::default(), message));
    } else {
        for line in lexer::lines(&source.text) {
            if let Err(error) = parser.line(&line) {
                errors.push(error);
            }
        }
        if let Some(group) = parser.open.last() {
            errors.push(parser.error(group.span, "this group is not closed"));
        }
    }
    if errors.is_empty() { Ok(parser.file) } else { Err(errors) }
}

struct Parser<'a> {
    source: &'a Source,
    file: File,
    /// Groups that are not closed yet, outermost first.
    open: Vec<Group>,
}

impl Parser<'_> {
    fn error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.source, span, message)
    }

    fn line(&mut self, line: &[Word<'_>]) -> Parsed<()> {
        let Some((first, rest)) = line.split_first() else { return Ok(()) };
        match first.text.chars().next() {
            Some('{' | '[' | '}' | ']') => self.bracket(*first, rest),
            Some('%') => {
                let field = self.field(*first, rest)?;
                self.file.fields.push(field);
                Ok(())
            }
            Some('&') => {
                let args = self.args(*first, rest)?;
                self.file.args.push(args);
                Ok(())
            }
            Some('@') => {
                let name = self.label(*first)?;
                let format = self.encoding(name, rest, Kind::Format)?;
                self.file.formats.push(format);
                Ok(())
            }
            _ => {
                let name = self.name(*first)?;
                let pattern = self.encoding(name, rest, Kind::Pattern)?;
                self.member(Member::Pattern(pattern));
                Ok(())
            }
        }
    }

    fn member(&mut self, member: Member) {
        match self.open.last_mut() {
            Some(group) => group.members.push(member),
            None => self.file.members.push(member),
        }
    }

    fn bracket(&mut self, word: Word<'_>, rest: &[Word<'_>]) -> Parsed<()> {
        if word.text.len() != 1 || !rest.is_empty() {
            return Err(self.error(word.span, "a bracket stands alone on its line"));
        }
        if matches!(word.text, "{" | "[") {
            if self.open.len() >= MAX_NESTING {
                let message = format!("groups nest more than {MAX_NESTING} deep");
                return Err(self.error(word.span, message));
            }
            let overlap = word.text == "{";
            self.open.push(Group { overlap, members: Vec::new(), span: word.span });
            return Ok(());
        }
        let Some(group) = self.open.pop() else {
            return Err(self.error(word.span, "no group is open here"));
        };
        if group.overlap != (word.text == "}") {
            let error = self.error(word.span, format!("'{}' closes another group", word.text));
            return Err(error.note(self.source, group.span, "the group starts here"));
        }
        if group.members.is_empty() {
            return Err(self.error(group.span, "this group holds no pattern"));
        }
        self.member(Member::Group(group));
        Ok(())
    }

    fn field(&self, first: Word<'_>, rest: &[Word<'_>]) -> Parsed<FieldDef> {
        let name = self.label(first)?;
        let mut parts = Vec::new();
        let mut function: Option<Name> = None;
        for word in rest {
            if let Some(value) = word.text.strip_prefix("!function=") {
                if function.is_some() {
                    return Err(self.error(word.span, "a field has one function"));
                }
                function = Some(self.name(suffix(*word, value))?);
            } else if word.text.starts_with('!') {
                return Err(self.error(word.span, "a field takes only '!function=NAME'"));
            } else {
                parts.push(self.part(*word)?);
            }
        }
        if parts.is_empty() && function.is_none() {
            return Err(self.error(name.span, "a field needs bits or a function"));
        }
        Ok(FieldDef { name, parts, function })
    }

    fn part(&self, word: Word<'_>) -> Parsed<FieldPart> {
        let Some((from, len)) = word.text.split_once(':') else {
            return Err(self.error(word.span, "expected POSITION:LENGTH or NAME:LENGTH"));
        };
        let (len, signed) = self.length(suffix(word, len))?;
        let from_word = prefix(word, from);
        let from = if from.starts_with(|c: char| c.is_ascii_digit()) {
            PartSource::Insn(self.small(from_word)?)
        } else {
            PartSource::Argument(self.name(from_word)?)
        };
        Ok(FieldPart { from, len, signed, span: word.span })
    }

    fn args(&self, first: Word<'_>, rest: &[Word<'_>]) -> Parsed<ArgsDef> {
        let name = self.label(first)?;
        let mut elements: Vec<ArgElement> = Vec::new();
        let mut external = false;
        for word in rest {
            if word.text == "!extern" {
                external = true;
                continue;
            }
            let (element, ty) = match word.text.split_once(':') {
                Some((element, ty)) => {
                    (prefix(*word, element), Some(self.name(suffix(*word, ty))?))
                }
                None => (*word, None),
            };
            let element = self.name(element)?;
            if elements.iter().any(|other| other.name.text == element.text) {
                let message = format!("argument '{}' stands in the set twice", element.text);
                return Err(self.error(element.span, message));
            }
            elements.push(ArgElement { name: element, ty });
        }
        Ok(ArgsDef { name, elements, external })
    }

    fn encoding(&self, name: Name, words: &[Word<'_>], kind: Kind) -> Parsed<Encoding> {
        let mut elements = Vec::new();
        for word in words {
            let element = self.element(*word)?;
            if kind == Kind::Format && matches!(element, Element::Format(_)) {
                return Err(self.error(word.span, "a format cannot name another format"));
            }
            elements.push(element);
        }
        if elements.is_empty() {
            return Err(self.error(name.span, format!("'{}' describes no bits", name.text)));
        }
        Ok(Encoding { name, elements })
    }

    fn element(&self, word: Word<'_>) -> Parsed<Element> {
        let text = word.text;
        match text.chars().next() {
            Some('&') => return self.label(word).map(Element::Args),
            Some('@') => return self.label(word).map(Element::Format),
            Some('%') => {
                let argument = self.name(sigil(word))?;
                return Ok(Element::Field { field: argument.clone(), argument });
            }
            _ => {}
        }
        if text.chars().all(|c| matches!(c, '0' | '1' | '.' | '-')) {
            return Ok(Element::Bits { text: text.to_owned(), span: word.span });
        }
        if let Some((name, value)) = text.split_once('=') {
            let name = self.name(prefix(word, name))?;
            let value = suffix(word, value);
            if value.text.starts_with('%') {
                let field = self.label(value)?;
                return Ok(Element::Field { argument: name, field });
            }
            return Ok(Element::Const { name, value: self.constant(value)? });
        }
        if let Some((name, len)) = text.split_once(':') {
            let (len, signed) = self.length(suffix(word, len))?;
            return Ok(Element::Inline { name: self.name(prefix(word, name))?, len, signed });
        }
        let message =
            "expected bits (0, 1, '.', '-'), NAME:LENGTH, NAME=VALUE, %FIELD, &SET or @FORMAT";
        Err(self.error(word.span, message))
    }

    /// The name of a field, set or format behind its sigil, which may start with a digit.
    fn label(&self, word: Word<'_>) -> Parsed<Name> {
        let word = sigil(word);
        if word.text.is_empty() || !word.text.chars().all(is_word) {
            return Err(self.error(word.span, format!("'{}' is not a name", word.text)));
        }
        Ok(Name { text: word.text.to_owned(), span: word.span })
    }

    /// The name of a pattern, an argument or a function: an identifier in Rust.
    fn name(&self, word: Word<'_>) -> Parsed<Name> {
        let digit = word.text.starts_with(|c: char| c.is_ascii_digit());
        if word.text.is_empty() || digit || !word.text.chars().all(is_word) {
            return Err(self.error(word.span, format!("'{}' is not a name", word.text)));
        }
        if matches!(word.text, "_" | "crate" | "self" | "super" | "Self") {
            let message = format!("'{}' cannot be a name in Rust", word.text);
            return Err(self.error(word.span, message));
        }
        Ok(Name { text: word.text.to_owned(), span: word.span })
    }

    fn small(&self, word: Word<'_>) -> Parsed<u32> {
        word.text
            .parse()
            .map_err(|_| self.error(word.span, format!("'{}' is not a bit number", word.text)))
    }

    /// `5` or `s5`: 1 to 64 bits, `s` for sign extension.
    fn length(&self, word: Word<'_>) -> Parsed<(u32, bool)> {
        let (digits, signed) = match word.text.strip_prefix('s') {
            Some(digits) => (digits, true),
            None => (word.text, false),
        };
        match digits.parse() {
            Ok(len @ 1..=64) => Ok((len, signed)),
            _ => Err(self.error(word.span, "a length is 1 to 64 bits, as in '5' or 's5'")),
        }
    }

    fn constant(&self, word: Word<'_>) -> Parsed<i64> {
        let (negative, digits) = match word.text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, word.text),
        };
        let magnitude = match digits.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        // A second sign would be taken by the number parsers.
        match magnitude {
            Ok(value) if !digits.starts_with(['+', '-']) && value >= 0 => {
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            _ => Err(self.error(word.span, format!("'{}' is not a number", word.text))),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Format,
    Pattern,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The word without its first character.
fn sigil(word: Word<'_>) -> Word<'_> {
    suffix(word, word.text.get(1..).unwrap_or(""))
}

/// The end `text` of `word` as a word of its own.
fn suffix<'a>(word: Word<'a>, text: &'a str) -> Word<'a> {
    let start = word.span.end.saturating_sub(text.len());
    Word { text, span: Span { start, end: word.span.end } }
}

/// The beginning `text` of `word` as a word of its own.
fn prefix<'a>(word: Word<'a>, text: &'a str) -> Word<'a> {
    let end = word.span.start.saturating_add(text.len());
    Word { text, span: Span { start: word.span.start, end } }
}
