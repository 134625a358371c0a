//! Pattern files as text: names, instruction widths and positions.

/// A range of bytes in the text of a [`Source`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

impl Span {
    /// The smallest span that covers `self` and `other`.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// The widths, in bits, that the instructions of a pattern file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Widths {
    /// Every instruction has `width` bits: a multiple of 8, at most 64.
    pub fn fixed(width: u32) -> Widths {
        Widths { min: width, max: width }
    }

    /// Instructions have `min` to `max` bits, in steps of 8; at most 64.
    ///
    /// Such words are *left-justified*: the first byte or parcel of the instruction stands in the
    /// highest bits of a word of `max` bits, and the decoder fetches more below it when it must.
    pub fn variable(min: u32, max: u32) -> Widths {
        Widths { min, max }
    }

    /// Narrowest instruction, in bits.
    pub fn min(self) -> u32 {
        self.min
    }

    /// Widest instruction, in bits: the width of the decoded word.
    pub fn max(self) -> u32 {
        self.max
    }

    /// Whether instructions differ in width.
    pub fn is_variable(self) -> bool {
        self.min != self.max
    }

    pub(crate) fn is_valid(self) -> bool {
        let multiple = |w: u32| w != 0 && w.is_multiple_of(8) && w <= 64;
        multiple(self.min) && multiple(self.max) && self.min <= self.max
    }
}

/// A pattern file to compile.
#[derive(Clone, Debug)]
pub struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) decoder: String,
    pub(crate) widths: Widths,
    /// Offsets at which lines start.
    lines: Vec<usize>,
}

impl Source {
    /// A pattern file; `name` is shown in errors, `decoder` names the decoder and its function.
    pub fn new(
        name: impl Into<String>,
        text: impl Into<String>,
        decoder: impl Into<String>,
        widths: Widths,
    ) -> Source {
        let text = text.into();
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = ends.map(|(end, _)| end.saturating_add(1));
        let lines = std::iter::once(0).chain(starts).collect();
        Source { name: name.into(), text, decoder: decoder.into(), widths, lines }
    }

    /// Line number (from 1), byte column (from 0) and text of the line that holds byte `offset`.
    pub(crate) fn locate(&self, offset: usize) -> (usize, usize, &str) {
        let number = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(number.saturating_sub(1)).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("");
        (number, offset.saturating_sub(start), rest.lines().next().unwrap_or(""))
    }
}
