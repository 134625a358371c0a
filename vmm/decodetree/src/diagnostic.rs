//! Errors in pattern files, shown with file, line and a caret under the text in question.

use std::fmt;

use crate::source::{Source, Span};

/// One error in a pattern file.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// Name of the file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column of the first marked character, counted from 1.
    pub column: usize,
    /// Further places that explain the error, as `file:line: text`.
    pub notes: Vec<String>,
    text: String,
    marked: usize,
}

impl Diagnostic {
    pub(crate) fn new(source: &Source, span: Span, message: impl Into<String>) -> Diagnostic {
        let (line, byte, text) = source.locate(span.start);
        let column = text.get(..byte).unwrap_or(text).chars().count();
        let rest = text.get(byte..).unwrap_or("");
        let length = span.end.saturating_sub(span.start).min(rest.len());
        let marked = rest.get(..length).unwrap_or(rest).chars().count();
        Diagnostic {
            message: message.into(),
            file: source.name.clone(),
            line,
            column: column.saturating_add(1),
            notes: Vec::new(),
            text: text.to_owned(),
            marked: marked.max(1),
        }
    }

    pub(crate) fn note(mut self, source: &Source, span: Span, text: &str) -> Diagnostic {
        let (line, _, _) = source.locate(span.start);
        self.notes.push(format!("{}:{line}: {text}", source.name));
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gutter = self.line.to_string().len();
        // A tab before the mark stays a tab, so that the mark stands right at any tab width.
        let before = self.column.saturating_sub(1);
        let indent: String =
            self.text.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "{:gutter$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{} | {}", self.line, self.text)?;
        write!(f, "{:gutter$} | {indent}{}", "", "^".repeat(self.marked))?;
        for note in &self.notes {
            write!(f, "\n{:gutter$} = note: {note}", "")?;
        }
        Ok(())
    }
}

// Debug shows the same text, because a build script that returns an error from `main` prints Debug.
impl fmt::Debug for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// All errors found in a set of pattern files.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Errors(Vec<Diagnostic>);

impl Errors {
    /// The errors in the order of the sources.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    pub(crate) fn merge(&mut self, other: Errors) {
        self.0.extend(other.0);
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Errors {}
