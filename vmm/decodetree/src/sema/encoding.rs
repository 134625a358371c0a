//! Formats and patterns: their bits, and the arguments they give values.

use std::collections::BTreeMap;

use super::args::ArgSets;
use super::fields::{Assignment, Value};
use super::{Checked, MAX_ARGS, Scope};
use crate::ast::{Element, Encoding, File, Name, PartSource};
use crate::bits::{extend, ones, shl};
use crate::diagnostic::Errors;
use crate::model::{ArgType, Bits, Extract, Part, Pattern};
use crate::source::Span;

/// The resolved formats of a file by name; `None` marks one that was reported as wrong.
#[derive(Default)]
pub(super) struct Formats<'a>(BTreeMap<&'a str, Option<Shape<'a>>>);

/// What the elements of a format or pattern say, before the two are joined.
struct Shape<'a> {
    name: &'a Name,
    layout: Option<Layout>,
    assignments: Vec<Assignment<'a>>,
    args: Option<usize>,
    format: Option<&'a Name>,
}

/// The bits of an encoding, left-justified in the decoder's word.
#[derive(Clone, Copy, Default)]
struct Layout {
    width: u32,
    mask: u64,
    value: u64,
    ignored: u64,
}

impl<'a> Scope<'a> {
    /// Resolves the formats of `file`.
    pub(super) fn gather_formats(
        &mut self,
        file: &'a File,
        sets: &ArgSets<'_>,
        errors: &mut Errors,
    ) {
        for format in &file.formats {
            let name = &format.name;
            if self.formats.0.contains_key(name.text.as_str()) {
                let message = format!("format '@{}' is already defined", name.text);
                errors.push(self.error(name.span, message));
                continue;
            }
            let shape = self.shape(format, sets).map_err(|error| errors.push(error)).ok();
            self.formats.0.insert(&name.text, shape);
        }
    }

    fn shape(&self, encoding: &'a Encoding, sets: &ArgSets<'_>) -> Checked<Shape<'a>> {
        let layout = self.layout(encoding)?;
        let mut shape = Shape {
            name: &encoding.name,
            layout,
            assignments: Vec::new(),
            args: None,
            format: None,
        };
        // Bits are named from the top of the word down.
        let mut position = self.source.widths.max;
        for element in &encoding.elements {
            let assignment = match element {
                Element::Bits { text, .. } => {
                    position = position.saturating_sub(count(text));
                    continue;
                }
                Element::Args(name) => {
                    if shape.args.is_some() {
                        return Err(self.error(name.span, "only one argument set can be named"));
                    }
                    shape.args = Some(sets.named(self.source, name)?);
                    continue;
                }
                Element::Format(name) => {
                    if shape.format.is_some() {
                        return Err(self.error(name.span, "only one format can be named"));
                    }
                    shape.format = Some(name);
                    continue;
                }
                Element::Inline { name, len, signed } => {
                    position = position.saturating_sub(*len);
                    let value = Value::Inline { position, len: *len, signed: *signed };
                    Assignment { argument: name, value }
                }
                Element::Field { argument, field } => {
                    let value = Value::Field(self.fields.named(self.source, field)?);
                    Assignment { argument, value }
                }
                Element::Const { name, value } => {
                    Assignment { argument: name, value: Value::Const(*value) }
                }
            };
            self.assign(&mut shape.assignments, assignment)?;
        }
        Ok(shape)
    }

    fn assign(&self, all: &mut Vec<Assignment<'a>>, new: Assignment<'a>) -> Checked<()> {
        let same = |other: &&Assignment<'_>| other.argument.text == new.argument.text;
        if let Some(first) = all.iter().find(same) {
            let message = format!("argument '{}' is given twice", new.argument.text);
            let error = self.error(new.span(), message);
            return Err(error.note(self.source, first.span(), "given here first"));
        }
        if all.len() >= MAX_ARGS {
            let message = format!("an instruction has at most {MAX_ARGS} arguments");
            return Err(self.error(new.span(), message));
        }
        all.push(new);
        Ok(())
    }

    /// The fixed and ignored bits; `None` if the encoding names no bits at all.
    fn layout(&self, encoding: &Encoding) -> Checked<Option<Layout>> {
        let mut layout = Layout::default();
        let mut push = |len: u32, mask: u64, value: u64, ignored: u64, span: Span| {
            layout.width = layout.width.saturating_add(len);
            let max = self.source.widths.max;
            if layout.width > max {
                let message = format!("the encoding has more than {max} bits");
                return Err(self.error(span, message));
            }
            layout.mask = shl(layout.mask, len) | mask;
            layout.value = shl(layout.value, len) | value;
            layout.ignored = shl(layout.ignored, len) | ignored;
            Ok(())
        };
        for element in &encoding.elements {
            match element {
                Element::Bits { text, span } => {
                    for bit in text.chars() {
                        let set = |yes: bool| u64::from(yes);
                        let fixed = matches!(bit, '0' | '1');
                        push(1, set(fixed), set(bit == '1'), set(bit == '-'), *span)?;
                    }
                }
                Element::Inline { len, name, .. } => push(*len, 0, 0, 0, name.span)?,
                _ => {}
            }
        }
        let widths = self.source.widths;
        let (width, name) = (layout.width, &encoding.name);
        if width == 0 {
            return Ok(None);
        }
        if width < widths.min || !width.is_multiple_of(8) {
            let message = if widths.is_variable() {
                format!(
                    "'{}' has {width} bits; widths are {} to {} in steps of 8",
                    name.text, widths.min, widths.max
                )
            } else {
                format!("'{}' has {width} bits instead of {}", name.text, widths.max)
            };
            return Err(self.error(name.span, message));
        }
        let unused = widths.max.saturating_sub(width);
        Ok(Some(Layout {
            width,
            mask: shl(layout.mask, unused),
            value: shl(layout.value, unused),
            ignored: shl(layout.ignored, unused),
        }))
    }

    /// Resolves a pattern, joined with its format; `index` is its place in the decoder.
    pub(super) fn pattern(
        &self,
        index: usize,
        encoding: &'a Encoding,
        sets: &mut ArgSets<'_>,
    ) -> Checked<Pattern> {
        let shape = self.shape(encoding, sets)?;
        let name = shape.name;
        let format = match shape.format {
            None => None,
            Some(format) => match self.formats.0.get(format.text.as_str()) {
                Some(Some(found)) => Some(found),
                Some(None) => {
                    let message = format!("format '@{}' has an error", format.text);
                    return Err(self.error(format.span, message));
                }
                None => {
                    let message = format!("format '@{}' is not defined", format.text);
                    return Err(self.error(format.span, message));
                }
            },
        };
        let layout = self.join(name, shape.layout, format.and_then(|format| format.layout))?;
        let mut assignments = shape.assignments;
        for assignment in format.iter().flat_map(|format| &format.assignments) {
            self.assign(&mut assignments, *assignment)?;
        }
        self.check_coverage(name, layout, &assignments)?;
        // A format that gives all arguments lends its name to what is generated for them.
        let whole = format.filter(|format| format.assignments.len() == assignments.len());
        let origin = whole.map_or(name, |format| format.name).text.clone();
        let args = match (shape.args, format.and_then(|format| format.args)) {
            (Some(own), Some(other)) if own != other => {
                let message = "the pattern and its format name different argument sets";
                return Err(self.error(name.span, message));
            }
            (Some(set), _) | (None, Some(set)) => set,
            (None, None) => sets.infer(&origin, inferred(&assignments)),
        };
        let elements = sets.list.get(args).map_or(&[][..], |set| set.elements.as_slice());
        let (extracts, order) = self.extracts(name, elements, &assignments)?;
        let (line, _, _) = self.source.locate(name.span.start);
        Ok(Pattern {
            name: name.text.clone(),
            index,
            origin,
            line,
            width: layout.width,
            unused: self.source.widths.max.saturating_sub(layout.width),
            mask: layout.mask,
            value: layout.value,
            ignored: layout.ignored,
            args,
            extracts,
            order,
        })
    }

    fn join(&self, name: &Name, own: Option<Layout>, format: Option<Layout>) -> Checked<Layout> {
        let (own, format) = match (own, format) {
            (None, None) => {
                let message = format!("'{}' describes no bits", name.text);
                return Err(self.error(name.span, message));
            }
            (Some(layout), None) | (None, Some(layout)) => return Ok(layout),
            (Some(own), Some(format)) => (own, format),
        };
        let error = |message: String| Err(self.error(name.span, message));
        if own.width != format.width {
            return error(format!(
                "'{}' has {} bits, but its format has {}",
                name.text, own.width, format.width
            ));
        }
        let differ = (own.value ^ format.value) & own.mask & format.mask;
        if differ != 0 {
            return error(format!(
                "'{}' and its format fix bits {} differently",
                name.text,
                ranges(differ)
            ));
        }
        let both = own.mask & format.ignored | own.ignored & format.mask;
        if both != 0 {
            return error(format!(
                "bits {} of '{}' are both fixed and ignored",
                ranges(both),
                name.text
            ));
        }
        Ok(Layout {
            width: own.width,
            mask: own.mask | format.mask,
            value: own.value | format.value,
            ignored: own.ignored | format.ignored,
        })
    }

    /// Every bit is fixed, ignored or part of a field, and only one of these.
    fn check_coverage(
        &self,
        name: &Name,
        layout: Layout,
        assignments: &[Assignment<'_>],
    ) -> Checked<()> {
        let all = shl(ones(layout.width), self.source.widths.max.saturating_sub(layout.width));
        let mut covered = 0;
        for assignment in assignments {
            let bits = assignment.bits();
            for (other, what) in [
                (layout.mask, "fixed"),
                (layout.ignored, "ignored ('-')"),
                (!all, "beyond its end"),
            ] {
                if bits & other != 0 {
                    let message = format!(
                        "'{}' in '{}' uses bits {}, which are {what}",
                        assignment.argument.text,
                        name.text,
                        ranges(bits & other)
                    );
                    let error = self.error(assignment.span(), message);
                    return Err(error.note(self.source, name.span, "in this pattern"));
                }
            }
            covered |= bits;
        }
        let missing = all & !(layout.mask | layout.ignored | covered);
        if missing != 0 {
            let message = format!(
                "bits {} of '{}' are not fixed, not ignored ('-') and in no field",
                ranges(missing),
                name.text
            );
            return Err(self.error(name.span, message));
        }
        Ok(())
    }

    /// The values of a set's elements, and an order in which they can be computed.
    fn extracts(
        &self,
        name: &Name,
        elements: &[(String, ArgType)],
        assignments: &[Assignment<'_>],
    ) -> Checked<(Vec<Extract>, Vec<usize>)> {
        let index_of = |argument: &str| elements.iter().position(|(name, _)| name == argument);
        for assignment in assignments {
            if index_of(&assignment.argument.text).is_none() {
                let message = format!("'{}' is not in the argument set", assignment.argument.text);
                let error = self.error(assignment.span(), message);
                return Err(error.note(self.source, name.span, "of this pattern"));
            }
        }
        let mut extracts = Vec::with_capacity(elements.len());
        for (element, ty) in elements {
            let found = assignments.iter().find(|other| other.argument.text == *element);
            let Some(assignment) = found else {
                let message = format!("'{}' gives no value to argument '{element}'", name.text);
                return Err(self.error(name.span, message));
            };
            self.check_type(assignment, *ty)?;
            extracts.push(self.extract(assignment, &index_of)?);
        }
        let order = dependency_order(&extracts).ok_or_else(|| {
            let message = format!("fields of '{}' depend on themselves", name.text);
            self.error(name.span, message)
        })?;
        Ok((extracts, order))
    }

    fn extract(
        &self,
        assignment: &Assignment<'_>,
        index_of: &dyn Fn(&str) -> Option<usize>,
    ) -> Checked<Extract> {
        let field = match assignment.value {
            Value::Const(value) => return Ok(Extract::Const(value)),
            Value::Inline { position, len, signed } => {
                let parts = vec![Part { source: Bits::Insn(position), len, signed }];
                return Ok(Extract::Field { parts, function: None });
            }
            Value::Field(field) => field,
        };
        let mut parts = Vec::with_capacity(field.parts.len());
        for part in &field.parts {
            let source = match &part.from {
                PartSource::Insn(position) => Bits::Insn(*position),
                PartSource::Argument(name) => {
                    let index = index_of(&name.text).ok_or_else(|| {
                        let message = format!(
                            "field '%{}' refers to '{}', which is no argument here",
                            field.name.text, name.text
                        );
                        let error = self.error(assignment.span(), message);
                        error.note(self.source, name.span, "referred to here")
                    })?;
                    Bits::Argument(index)
                }
            };
            parts.push(Part { source, len: part.len, signed: part.signed });
        }
        let function = field.function.as_ref().map(|function| function.text.clone());
        Ok(Extract::Field { parts, function })
    }

    fn check_type(&self, assignment: &Assignment<'_>, ty: ArgType) -> Checked<()> {
        let Some(width) = ty.width() else { return Ok(()) };
        let argument = &assignment.argument.text;
        match (assignment.value, assignment.len()) {
            (Value::Const(value), _) => {
                let fits = |signed| extend(value.cast_unsigned(), width, signed) == value;
                if !fits(true) && !fits(false) {
                    let message = format!("{value} does not fit in '{argument}' ({})", ty.name());
                    return Err(self.error(assignment.span(), message));
                }
            }
            (_, Some(len)) if len > width => {
                let message = format!("'{argument}' is {}, but has {len} bits", ty.name());
                return Err(self.error(assignment.span(), message));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The elements of a set that has just these arguments.
fn inferred(assignments: &[Assignment<'_>]) -> Vec<(String, ArgType)> {
    let wide = |assignment: &Assignment<'_>| match assignment.value {
        Value::Const(value) => i32::try_from(value).is_err() && u32::try_from(value).is_err(),
        _ => assignment.len().is_some_and(|len| len > 32),
    };
    let element = |assignment: &Assignment<'_>| {
        let ty = if wide(assignment) { ArgType::I64 } else { ArgType::I32 };
        (assignment.argument.text.clone(), ty)
    };
    let mut elements: Vec<_> = assignments.iter().map(element).collect();
    elements.sort_by(|a, b| a.0.cmp(&b.0));
    elements
}

/// Indices such that each extract follows those it refers to; `None` if they form a loop.
fn dependency_order(extracts: &[Extract]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = Vec::with_capacity(extracts.len());
    while order.len() < extracts.len() {
        let ready = |(index, extract): (usize, &Extract)| {
            let known = |part: &Part| match part.source {
                Bits::Insn(_) => true,
                Bits::Argument(other) => order.contains(&other),
            };
            let computable = match extract {
                Extract::Const(_) => true,
                Extract::Field { parts, .. } => parts.iter().all(known),
            };
            (computable && !order.contains(&index)).then_some(index)
        };
        let next = extracts.iter().enumerate().find_map(ready)?;
        order.push(next);
    }
    Some(order)
}

/// Number of bits in a run; longer ones than any instruction all count the same.
fn count(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// Bit numbers as `31:20, 7`.
fn ranges(mut bits: u64) -> String {
    let mut runs = Vec::new();
    while bits != 0 {
        let high = bits.ilog2();
        let run = shl(bits, bits.leading_zeros()).leading_ones();
        let low = high.saturating_add(1).saturating_sub(run);
        runs.push(if high == low { high.to_string() } else { format!("{high}:{low}") });
        bits &= !shl(ones(run), low);
    }
    runs.join(", ")
}
