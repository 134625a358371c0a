//! Field definitions and their use in an encoding.

use std::collections::BTreeMap;

use super::Checked;
use crate::ast::{FieldDef, FieldPart, File, Name, PartSource};
use crate::bits::{ones, shl};
use crate::diagnostic::{Diagnostic, Errors};
use crate::source::{Source, Span};

/// The checked fields of a file by name.
pub(super) struct Fields<'a>(BTreeMap<&'a str, &'a FieldDef>);

impl<'a> Fields<'a> {
    /// Checks and collects the field definitions of `file`.
    pub(super) fn gather(source: &Source, file: &'a File, errors: &mut Errors) -> Fields<'a> {
        let mut fields: BTreeMap<&str, &FieldDef> = BTreeMap::new();
        for field in &file.fields {
            let name = &field.name;
            if let Some(first) = fields.get(name.text.as_str()) {
                let message = format!("field '%{}' is already defined", name.text);
                let error = Diagnostic::new(source, name.span, message);
                errors.push(error.note(source, first.name.span, "defined here first"));
                continue;
            }
            if let Err(error) = check(source, field) {
                errors.push(error);
            }
            fields.insert(&name.text, field);
        }
        Fields(fields)
    }

    /// The field that `name` refers to.
    pub(super) fn named(&self, source: &Source, name: &Name) -> Checked<&'a FieldDef> {
        self.0.get(name.text.as_str()).copied().ok_or_else(|| {
            let message = format!("field '%{}' is not defined", name.text);
            Diagnostic::new(source, name.span, message)
        })
    }
}

fn check(source: &Source, field: &FieldDef) -> Checked<()> {
    let mut total = 0_u32;
    let mut seen = 0_u64;
    for (index, part) in field.parts.iter().enumerate() {
        let error = |message: &str| Err(Diagnostic::new(source, part.span, message));
        if part.signed && index > 0 {
            return error("only the first (most significant) part of a field can be signed");
        }
        total = total.saturating_add(part.len);
        if total > 64 {
            return error("the field has more than 64 bits");
        }
        if let Some(bits) = insn_bits(part) {
            if end(part) > source.widths.max {
                return error("these bits lie outside of the instruction");
            }
            if seen & bits != 0 {
                return error("the parts of this field overlap");
            }
            seen |= bits;
        }
    }
    Ok(())
}

/// The instruction bits that `part` takes, if it takes them from the instruction.
fn insn_bits(part: &FieldPart) -> Option<u64> {
    match part.from {
        PartSource::Insn(position) => Some(shl(ones(part.len), position)),
        PartSource::Argument(_) => None,
    }
}

fn end(part: &FieldPart) -> u32 {
    match part.from {
        PartSource::Insn(position) => position.saturating_add(part.len),
        PartSource::Argument(_) => 0,
    }
}

/// How one argument of an encoding is made, before arguments have indices.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// Bits at the place where the encoding names them.
    Inline { position: u32, len: u32, signed: bool },
    /// A defined field.
    Field(&'a FieldDef),
    /// A constant.
    Const(i64),
}

/// An argument that an encoding gives a value.
#[derive(Clone, Copy)]
pub(super) struct Assignment<'a> {
    pub(super) argument: &'a Name,
    pub(super) value: Value<'a>,
}

impl Assignment<'_> {
    /// The instruction bits in use.
    pub(super) fn bits(&self) -> u64 {
        match self.value {
            Value::Const(_) => 0,
            Value::Inline { position, len, .. } => shl(ones(len), position),
            Value::Field(field) => {
                field.parts.iter().filter_map(insn_bits).fold(0, |all, bits| all | bits)
            }
        }
    }

    /// Number of bits before conversion; `None` if a function makes the value.
    pub(super) fn len(&self) -> Option<u32> {
        match self.value {
            Value::Const(_) => None,
            Value::Inline { len, .. } => Some(len),
            Value::Field(field) if field.function.is_some() => None,
            Value::Field(field) => {
                Some(field.parts.iter().fold(0_u32, |sum, part| sum.saturating_add(part.len)))
            }
        }
    }

    pub(super) fn span(&self) -> Span {
        self.argument.span
    }
}
