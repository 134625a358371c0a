//! Checked instruction sets: what the generators and the run-time decoder work on.

use std::fmt;

use crate::bits::{extend, ones, shl, shr};
use crate::source::Widths;
use crate::tree::Node;

/// Pattern files compiled together: they share argument sets, functions and pattern names.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(crate) decoders: Vec<Decoder>,
    pub(crate) args: Vec<ArgSet>,
    pub(crate) functions: Vec<Function>,
}

impl Unit {
    /// The decoders, in the order of the sources.
    pub fn decoders(&self) -> &[Decoder] {
        &self.decoders
    }

    /// The decoder that its [`Source`](crate::Source) called `name`.
    pub fn decoder(&self, name: &str) -> Option<&Decoder> {
        self.decoders.iter().find(|decoder| decoder.name == name)
    }

    /// All argument sets in use, named ones first.
    pub fn args(&self) -> &[ArgSet] {
        &self.args
    }

    /// All functions that fields apply, by name.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The argument set that `pattern` fills.
    pub fn args_of(&self, pattern: &Pattern) -> Option<&ArgSet> {
        self.args.get(pattern.args)
    }
}

/// A function of the translator that converts the bits of a field (`!function=NAME`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Whether it takes the field's bits; a field without bits calls a function without arguments.
    pub takes_value: bool,
}

/// A named list of arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgSet {
    /// Name of the set, or of the format or pattern it was inferred from.
    pub name: String,
    /// The arguments with their types, in the order of the definition.
    pub elements: Vec<(String, ArgType)>,
}

/// The type of an argument in generated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgType {
    /// `bool`: whether the field is not zero.
    Bool,
    /// `i8`
    I8,
    /// `i16`
    I16,
    /// `i32`, the default.
    I32,
    /// `i64`
    I64,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64`
    U64,
}

impl ArgType {
    pub(crate) const ALL: [ArgType; 9] = [
        ArgType::Bool,
        ArgType::I8,
        ArgType::I16,
        ArgType::I32,
        ArgType::I64,
        ArgType::U8,
        ArgType::U16,
        ArgType::U32,
        ArgType::U64,
    ];

    /// The type's name in Rust and in pattern files.
    pub fn name(self) -> &'static str {
        match self {
            ArgType::Bool => "bool",
            ArgType::I8 => "i8",
            ArgType::I16 => "i16",
            ArgType::I32 => "i32",
            ArgType::I64 => "i64",
            ArgType::U8 => "u8",
            ArgType::U16 => "u16",
            ArgType::U32 => "u32",
            ArgType::U64 => "u64",
        }
    }

    /// Width in bits; `None` for `bool`, which takes any value.
    pub(crate) fn width(self) -> Option<u32> {
        match self {
            ArgType::Bool => None,
            ArgType::I8 | ArgType::U8 => Some(8),
            ArgType::I16 | ArgType::U16 => Some(16),
            ArgType::I32 | ArgType::U32 => Some(32),
            ArgType::I64 | ArgType::U64 => Some(64),
        }
    }

    /// The value an argument of this type has for `raw`. `u64` keeps its bits in the `i64`.
    pub fn convert(self, raw: i64) -> i64 {
        let bits = raw.cast_unsigned();
        match self {
            ArgType::Bool => i64::from(raw != 0),
            ArgType::I8 => extend(bits, 8, true),
            ArgType::I16 => extend(bits, 16, true),
            ArgType::I32 => extend(bits, 32, true),
            ArgType::U8 => extend(bits, 8, false),
            ArgType::U16 => extend(bits, 16, false),
            ArgType::U32 => extend(bits, 32, false),
            ArgType::I64 | ArgType::U64 => raw,
        }
    }
}

/// The decoder made from one pattern file.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) widths: Widths,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) tree: Node,
}

impl Decoder {
    /// Name of the decoder and of its generated function.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the pattern file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Widths of the instructions.
    pub fn widths(&self) -> Widths {
        self.widths
    }

    /// The patterns in the order of the file, which is their priority where they overlap.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The decision tree.
    pub fn tree(&self) -> &Node {
        &self.tree
    }
}

/// One encoding of an instruction.
///
/// `mask`, `value` and `ignored` are left-justified in the decoder's word if widths are variable.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub(crate) name: String,
    /// Place in the decoder's list.
    pub(crate) index: usize,
    /// Name of the format that gives all arguments, or of the pattern.
    pub(crate) origin: String,
    pub(crate) line: usize,
    pub(crate) width: u32,
    /// Bits of the decoder's word below the instruction.
    pub(crate) unused: u32,
    pub(crate) mask: u64,
    pub(crate) value: u64,
    pub(crate) ignored: u64,
    /// Index of the argument set in the unit.
    pub(crate) args: usize,
    /// One for each element of the argument set, in its order.
    pub(crate) extracts: Vec<Extract>,
    /// Indices of `extracts` such that each comes after those it refers to.
    pub(crate) order: Vec<usize>,
}

impl Pattern {
    /// The pattern's name; several patterns may share one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Place in [`Decoder::patterns`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// Line in the pattern file.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Width of the instruction in bits.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Fixed bits of the decoder's word.
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// Values of the fixed bits.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Bits that the instruction ignores (`-`).
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// How each argument of the set is made, in the order of the set.
    pub fn extracts(&self) -> &[Extract] {
        &self.extracts
    }

    /// Whether `word` has the fixed bits of this pattern.
    pub fn matches(&self, word: u64) -> bool {
        word & self.mask == self.value
    }

    /// Whether some word matches both patterns.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        (self.value ^ other.value) & self.mask & other.mask == 0
    }

    /// The instruction's own bits, right-justified, taken out of a decoder's word.
    pub fn insn(&self, word: u64) -> u64 {
        shr(word, self.unused) & ones(self.width)
    }
}

/// Shows the encoding: `0`, `1`, `-` for ignored bits and `.` for field bits.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bit in (0..self.width).rev() {
            let bit = shl(1, bit.saturating_add(self.unused));
            let c = match (self.mask & bit != 0, self.value & bit != 0, self.ignored & bit != 0) {
                (true, true, _) => '1',
                (true, false, _) => '0',
                (false, _, true) => '-',
                (false, _, false) => '.',
            };
            write!(f, "{c}")?;
        }
        Ok(())
    }
}

/// How the value of an argument is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extract {
    /// A constant of the pattern.
    Const(i64),
    /// The concatenation of parts, most significant first, converted by a function if there is one.
    Field {
        /// The parts; none means that the function takes no value.
        parts: Vec<Part>,
        /// Name of the function.
        function: Option<String>,
    },
}

/// A run of bits in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where the bits come from.
    pub source: Bits,
    /// How many there are.
    pub len: u32,
    /// Whether the highest one is the sign of the field.
    pub signed: bool,
}

/// Where bits of a field come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// The decoder's word, from this bit up.
    Insn(u32),
    /// The low bits of the argument with this index.
    Argument(usize),
}
