//! Pattern files as written, before any name is resolved.

use crate::source::Span;

/// A name and where it stands (without its sigil).
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// One pattern file.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) fields: Vec<FieldDef>,
    pub(crate) args: Vec<ArgsDef>,
    pub(crate) formats: Vec<Encoding>,
    /// Top-level patterns and groups, which must not overlap.
    pub(crate) members: Vec<Member>,
}

/// `%name part… !function=f`
#[derive(Debug)]
pub(crate) struct FieldDef {
    pub(crate) name: Name,
    pub(crate) parts: Vec<FieldPart>,
    pub(crate) function: Option<Name>,
}

/// `position:length`, `position:slength`, `name:length` or `name:slength`
#[derive(Debug)]
pub(crate) struct FieldPart {
    pub(crate) from: PartSource,
    pub(crate) len: u32,
    pub(crate) signed: bool,
    pub(crate) span: Span,
}

/// Where the bits of a part come from.
#[derive(Debug)]
pub(crate) enum PartSource {
    /// The instruction, from this bit up.
    Insn(u32),
    /// The low bits of another argument.
    Argument(Name),
}

/// `&name element… !extern`
#[derive(Debug)]
pub(crate) struct ArgsDef {
    pub(crate) name: Name,
    pub(crate) elements: Vec<ArgElement>,
    pub(crate) external: bool,
}

/// `name` or `name:type`
#[derive(Debug)]
pub(crate) struct ArgElement {
    pub(crate) name: Name,
    pub(crate) ty: Option<Name>,
}

/// A format (`@name element…`) or a pattern (`name element…`).
#[derive(Debug)]
pub(crate) struct Encoding {
    pub(crate) name: Name,
    pub(crate) elements: Vec<Element>,
}

/// One element of a format or a pattern.
#[derive(Debug)]
pub(crate) enum Element {
    /// A run of `0`, `1`, `.` and `-`.
    Bits { text: String, span: Span },
    /// `name:length`: a field at the current bit position.
    Inline { name: Name, len: u32, signed: bool },
    /// `%field` or `argument=%field`
    Field { argument: Name, field: Name },
    /// `&set`
    Args(Name),
    /// `@format`
    Format(Name),
    /// `argument=number`
    Const { name: Name, value: i64 },
}

/// What a file or a group holds.
#[derive(Debug)]
pub(crate) enum Member {
    Pattern(Encoding),
    Group(Group),
}

/// `{ … }` (may overlap, first match wins) or `[ … ]` (must not overlap).
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) overlap: bool,
    pub(crate) members: Vec<Member>,
    pub(crate) span: Span,
}
