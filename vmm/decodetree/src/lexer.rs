//! Splits a pattern file into logical lines of words.
//!
//! A backslash at the end of a line joins it with the next one; `#` starts a comment. What a word
//! means is the parser's business.

use crate::source::Span;

/// A run of characters without white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

/// The words of one logical line, never empty.
pub(crate) type Line<'a> = Vec<Word<'a>>;

/// Splits `text` into its non-empty logical lines.
pub(crate) fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut line: Line<'_> = Vec::new();
    let mut offset = 0_usize;
    for physical in text.split_inclusive('\n') {
        let code = physical.split('#').next().unwrap_or("");
        let has_comment = code.len() != physical.len();
        let trimmed = code.trim_end();
        let (code, joined) = match trimmed.strip_suffix('\\') {
            Some(code) if !has_comment => (code, true),
            _ => (trimmed, false),
        };
        words(code, offset, &mut line);
        offset = offset.saturating_add(physical.len());
        if !joined && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn words<'a>(code: &'a str, offset: usize, line: &mut Line<'a>) {
    let mut start = None;
    let ends = code.char_indices().chain([(code.len(), ' ')]);
    for (at, c) in ends {
        match (c.is_whitespace(), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                if let Some(text) = code.get(from..at) {
                    let span =
                        Span { start: offset.saturating_add(from), end: offset.saturating_add(at) };
                    line.push(Word { text, span });
                }
                start = None;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<Vec<&str>> {
        lines(text).iter().map(|line| line.iter().map(|word| word.text).collect()).collect()
    }

    #[test]
    fn comments_end_at_the_line_and_backslashes_join_lines() {
        assert_eq!(
            texts("a b # c \\\n\n  d \\\n e\n#x\nf\\"),
            [vec!["a", "b"], vec!["d", "e"], vec!["f"]]
        );
    }

    #[test]
    fn spans_select_the_word() {
        let text = "one\n  tẅo three";
        for word in lines(text).concat() {
            assert_eq!(&text[word.span.start..word.span.end], word.text);
        }
    }
}
