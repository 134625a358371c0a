//! Generates Rust decoders.
//!
//! The generated text holds one struct for each argument set, a trait with one method for each pattern
//! and each field function, and one function for each decoder. That function is a single expression:
//! `match` on switches, `&&` behind checks, and `||` where a refused pattern hands on to the next.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use crate::model::{ArgSet, ArgType, Bits, Decoder, Extract, Part, Pattern, Unit};
use crate::tree::Node;

use names::{camel, ident, unique};

/// Options of the generated code.
#[derive(Clone, Debug)]
pub struct Options {
    /// Visibility of the generated items, such as `pub` (the default) or `pub(crate)`.
    pub visibility: String,
    /// Name of the trait, by default `Decode`.
    pub trait_name: String,
}

impl Default for Options {
    fn default() -> Options {
        Options { visibility: "pub".to_owned(), trait_name: "Decode".to_owned() }
    }
}

/// The Rust source text of the decoders of `unit`, to be put into a module with `include!`.
pub fn rust(unit: &Unit, options: &Options) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = Emitter::new(unit, options).file(&mut out);
    out
}

struct Emitter<'a> {
    unit: &'a Unit,
    options: &'a Options,
    /// Names of the structs, by index of the argument set.
    structs: Vec<String>,
    recipes: Recipes<'a>,
}

/// The extraction functions: patterns that make their arguments alike share one.
#[derive(Default)]
struct Recipes<'a> {
    by_key: BTreeMap<String, String>,
    list: Vec<(String, &'a Pattern)>,
}

impl<'a> Emitter<'a> {
    fn new(unit: &'a Unit, options: &'a Options) -> Emitter<'a> {
        let mut names = BTreeSet::new();
        let structs =
            unit.args.iter().map(|set| unique(&mut names, format!("Args{}", camel(&set.name))));
        let structs = structs.collect();
        let mut recipes = Recipes::default();
        let mut names = BTreeSet::from(["bits", "sbits", "more"].map(str::to_owned));
        names.extend(unit.decoders.iter().map(|decoder| decoder.name.clone()));
        for pattern in unit.decoders.iter().flat_map(|decoder| &decoder.patterns) {
            let key = recipe_key(pattern);
            if !pattern.extracts.is_empty() && !recipes.by_key.contains_key(&key) {
                let name = format!("extract_{}", pattern.origin.to_ascii_lowercase());
                let name = unique(&mut names, name);
                recipes.list.push((name.clone(), pattern));
                recipes.by_key.insert(key, name);
            }
        }
        Emitter { unit, options, structs, recipes }
    }

    fn struct_name(&self, pattern: &Pattern) -> &str {
        self.structs.get(pattern.args).map_or("", String::as_str)
    }

    fn is_variable(&self) -> bool {
        self.unit.decoders.iter().any(|decoder| decoder.widths.is_variable())
    }

    fn file(&self, out: &mut String) -> fmt::Result {
        let files: Vec<&str> =
            self.unit.decoders.iter().map(|decoder| decoder.file.as_str()).collect();
        writeln!(out, "// Generated from {}. Do not edit.", files.join(", "))?;
        for (set, name) in self.unit.args.iter().zip(&self.structs) {
            if !set.elements.is_empty() {
                self.arg_struct(out, set, name)?;
            }
        }
        self.decode_trait(out)?;
        for decoder in &self.unit.decoders {
            self.decoder(out, decoder)?;
        }
        for (name, pattern) in &self.recipes.list {
            self.extraction(out, name, pattern)?;
        }
        self.support(out)
    }

    fn arg_struct(&self, out: &mut String, set: &ArgSet, name: &str) -> fmt::Result {
        let visibility = &self.options.visibility;
        writeln!(out, "\n/// Arguments `&{}`.", set.name)?;
        writeln!(out, "#[allow(missing_docs, non_snake_case)]")?;
        writeln!(out, "#[derive(Clone, Copy, Debug, PartialEq, Eq)]")?;
        writeln!(out, "{visibility} struct {name} {{")?;
        for (element, ty) in &set.elements {
            writeln!(out, "    {visibility} {}: {},", ident(element), ty.name())?;
        }
        writeln!(out, "}}")
    }

    fn decode_trait(&self, out: &mut String) -> fmt::Result {
        let Options { visibility, trait_name } = self.options;
        writeln!(out, "\n/// What a translator does with decoded instructions.")?;
        writeln!(out, "///")?;
        writeln!(
            out,
            "/// A pattern's method returns false to refuse the instruction; the next pattern that"
        )?;
        writeln!(
            out,
            "/// overlaps it is tried then, and the instruction is undefined if none is left."
        )?;
        writeln!(out, "#[allow(non_snake_case)]")?;
        writeln!(out, "{visibility} trait {trait_name} {{")?;
        let mut separator = "";
        if self.is_variable() {
            writeln!(out, "    /// Why an instruction could not be fetched.")?;
            writeln!(out, "    type Fault;")?;
            writeln!(out, "    /// The next `bits` bits of the instruction, right-justified.")?;
            writeln!(out, "    fn fetch(&mut self, bits: u32) -> Result<u64, Self::Fault>;")?;
            separator = "\n";
        }
        for function in &self.unit.functions {
            write!(out, "{separator}")?;
            separator = "";
            let name = ident(&function.name);
            if function.takes_value {
                writeln!(out, "    /// Converts the bits of a field.")?;
                writeln!(out, "    fn {name}(&mut self, value: i64) -> i64;")?;
            } else {
                writeln!(out, "    /// A value that is not part of the instruction.")?;
                writeln!(out, "    fn {name}(&mut self) -> i64;")?;
            }
        }
        if !self.unit.functions.is_empty() {
            separator = "\n";
        }
        let mut methods: Vec<(&str, Vec<&Pattern>)> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for pattern in self.unit.decoders.iter().flat_map(|decoder| &decoder.patterns) {
            let place = *places.entry(&pattern.name).or_insert(methods.len());
            match methods.get_mut(place) {
                Some((_, patterns)) => patterns.push(pattern),
                None => methods.push((&pattern.name, vec![pattern])),
            }
        }
        for (name, patterns) in methods {
            write!(out, "{separator}")?;
            separator = "";
            for pattern in &patterns {
                writeln!(out, "    /// `{pattern}`{}", if patterns.len() > 1 { "\\" } else { "" })?;
            }
            if patterns.len() > 1 {
                // The last line of a list of encodings takes no line break.
                out.truncate(out.len().saturating_sub(2));
                writeln!(out)?;
            }
            let args = patterns.first().map_or(String::new(), |pattern| {
                if pattern.extracts.is_empty() {
                    String::new()
                } else {
                    format!(", args: {}", self.struct_name(pattern))
                }
            });
            writeln!(out, "    fn {}(&mut self{args}) -> bool;", ident(name))?;
        }
        writeln!(out, "}}")
    }

    fn decoder(&self, out: &mut String, decoder: &Decoder) -> fmt::Result {
        let Options { visibility, trait_name } = self.options;
        let name = ident(&decoder.name);
        let widths = decoder.widths;
        writeln!(out)?;
        if widths.is_variable() {
            writeln!(
                out,
                "/// Fetches and decodes an instruction of {} to {} bits; false if it is undefined.",
                widths.min, widths.max
            )?;
            writeln!(out, "#[allow(clippy::unreadable_literal)]")?;
            writeln!(
                out,
                "{visibility} fn {name}<D: {trait_name} + ?Sized>(cx: &mut D) -> Result<bool, D::Fault> {{"
            )?;
            writeln!(out, "    let mut have = 0;")?;
            writeln!(out, "    let mut insn = 0;")?;
            writeln!(out, "    more(cx, &mut insn, &mut have, {}, {})?;", widths.min, widths.max)?;
            write!(out, "    Ok(")?;
            self.node(out, decoder, &decoder.tree, 1, Place::Start)?;
            writeln!(out, ")\n}}")
        } else {
            let word = match widths.max {
                0..=8 => "u8",
                9..=16 => "u16",
                17..=32 => "u32",
                _ => "u64",
            };
            writeln!(
                out,
                "/// Decodes an instruction of {} bits; false if it is undefined.",
                widths.max
            )?;
            writeln!(out, "#[allow(clippy::unreadable_literal)]")?;
            writeln!(
                out,
                "{visibility} fn {name}<D: {trait_name} + ?Sized>(cx: &mut D, insn: {word}) -> bool {{"
            )?;
            if word != "u64" {
                writeln!(out, "    let insn = u64::from(insn);")?;
            }
            write!(out, "    ")?;
            self.node(out, decoder, &decoder.tree, 1, Place::Start)?;
            writeln!(out, "\n}}")
        }
    }

    /// Writes `node` as an expression; its first line is already indented by `depth`.
    fn node(
        &self,
        out: &mut String,
        decoder: &Decoder,
        node: &Node,
        depth: usize,
        place: Place,
    ) -> fmt::Result {
        let indent = |depth: usize| "    ".repeat(depth);
        let deeper = depth.saturating_add(1);
        match node {
            Node::Try(index) => match decoder.patterns.get(*index) {
                Some(pattern) => self.call(out, pattern, place),
                None => Ok(()),
            },
            Node::Check { mask, value, then } => {
                write!(out, "insn & {mask:#x} == {value:#x} && ")?;
                self.node(out, decoder, then, depth, Place::Operand)
            }
            Node::Switch { shift, len: 1, arms } if arms.len() == 2 => {
                let (open, close) = place.parentheses();
                write!(out, "{open}if insn & {:#x} == 0", crate::bits::shl(1, *shift))?;
                for ((_, arm), start) in arms.iter().zip([" {", " else {"]) {
                    writeln!(out, "{start}")?;
                    write!(out, "{}", indent(deeper))?;
                    self.node(out, decoder, arm, deeper, Place::Start)?;
                    write!(out, "\n{}}}", indent(depth))?;
                }
                write!(out, "{close}")
            }
            Node::Switch { shift, len, arms } => {
                let (open, close) = place.parentheses();
                let mask = crate::bits::ones(*len);
                match shift {
                    0 => writeln!(out, "{open}match insn & {mask:#x} {{")?,
                    _ => writeln!(out, "{open}match (insn >> {shift}) & {mask:#x} {{")?,
                }
                for (value, arm) in arms {
                    write!(out, "{}{value:#x} => ", indent(deeper))?;
                    self.node(out, decoder, arm, deeper, Place::Start)?;
                    writeln!(out, ",")?;
                }
                writeln!(out, "{}_ => false,", indent(deeper))?;
                write!(out, "{}}}{close}", indent(depth))
            }
            Node::Fetch { width, then } => {
                let (open, close) = place.parentheses();
                writeln!(out, "{open}{{")?;
                let max = decoder.widths.max;
                writeln!(
                    out,
                    "{}more(cx, &mut insn, &mut have, {width}, {max})?;",
                    indent(deeper)
                )?;
                write!(out, "{}", indent(deeper))?;
                self.node(out, decoder, then, deeper, Place::Start)?;
                write!(out, "\n{}}}{close}", indent(depth))
            }
            Node::Seq(steps) => {
                let Some((first, rest)) = steps.split_first() else {
                    return write!(out, "false");
                };
                let (open, close) = if place == Place::Operand { ("(", ")") } else { ("", "") };
                write!(out, "{open}")?;
                self.node(out, decoder, first, depth, Place::FirstOperand)?;
                for step in rest {
                    write!(out, "\n{}|| ", indent(deeper))?;
                    self.node(out, decoder, step, deeper, Place::Operand)?;
                }
                write!(out, "{close}")
            }
        }
    }

    /// Writes the call of the pattern's method as an expression.
    fn call(&self, out: &mut String, pattern: &Pattern, place: Place) -> fmt::Result {
        let method = ident(&pattern.name);
        match self.recipes.by_key.get(&recipe_key(pattern)) {
            None => write!(out, "cx.{method}()"),
            // Functions borrow the translator, so they must be done before its method is called.
            Some(extraction) if uses_functions(pattern) => {
                let (open, close) = place.parentheses();
                let args = format!("{extraction}(cx, insn)");
                write!(out, "{open}{{ let args = {args}; cx.{method}(args) }}{close}")
            }
            Some(extraction) => write!(out, "cx.{method}({extraction}(insn))"),
        }
    }

    fn extraction(&self, out: &mut String, name: &str, pattern: &Pattern) -> fmt::Result {
        let Some(set) = self.unit.args_of(pattern) else { return Ok(()) };
        let ty = self.struct_name(pattern);
        writeln!(out, "\n#[inline]")?;
        let casts = "clippy::cast_possible_truncation, clippy::cast_sign_loss";
        writeln!(out, "#[allow({casts}, clippy::unnecessary_cast, clippy::unreadable_literal)]")?;
        let uses_insn = pattern.extracts.iter().any(|extract| match extract {
            Extract::Const(_) => false,
            Extract::Field { parts, .. } => {
                parts.iter().any(|part| matches!(part.source, Bits::Insn(_)))
            }
        });
        let insn = if uses_insn { "insn" } else { "_insn" };
        if uses_functions(pattern) {
            let bound = &self.options.trait_name;
            writeln!(out, "fn {name}<D: {bound} + ?Sized>(cx: &mut D, {insn}: u64) -> {ty} {{")?;
        } else {
            writeln!(out, "fn {name}({insn}: u64) -> {ty} {{")?;
        }
        let refers = pattern.extracts.iter().any(|extract| {
            let Extract::Field { parts, .. } = extract else { return false };
            parts.iter().any(|part| matches!(part.source, Bits::Argument(_)))
        });
        if refers {
            for index in &pattern.order {
                let Some(extract) = pattern.extracts.get(*index) else { continue };
                writeln!(out, "    let raw_{index}: i64 = {};", raw(extract))?;
            }
        }
        writeln!(out, "    {ty} {{")?;
        for (index, ((element, ty), extract)) in
            set.elements.iter().zip(&pattern.extracts).enumerate()
        {
            let value = match extract {
                Extract::Const(value) => constant(*value, *ty),
                Extract::Field { .. } if refers => convert(&format!("raw_{index}"), *ty),
                Extract::Field { parts, function: None } if parts.len() > 1 => {
                    convert(&format!("({})", raw(extract)), *ty)
                }
                Extract::Field { .. } => convert(&raw(extract), *ty),
            };
            writeln!(out, "        {}: {value},", ident(element))?;
        }
        writeln!(out, "    }}\n}}")
    }

    /// The functions that the generated code calls, as far as it does.
    fn support(&self, out: &mut String) -> fmt::Result {
        let parts = self.recipes.list.iter().flat_map(|(_, pattern)| &pattern.extracts);
        let parts: Vec<&Part> = parts
            .filter_map(|extract| match extract {
                Extract::Const(_) => None,
                Extract::Field { parts, .. } => Some(parts),
            })
            .flatten()
            .collect();
        if parts.iter().any(|part| !part.signed) {
            write!(
                out,
                "
/// `len` bits of `word` from bit `shift` up.
#[inline]
const fn bits(word: u64, shift: u32, len: u32) -> i64 {{
    ((word >> shift) & (u64::MAX >> (64 - len))).cast_signed()
}}
"
            )?;
        }
        if parts.iter().any(|part| part.signed) {
            write!(
                out,
                "
/// `len` bits of `word` from bit `shift` up, of which the highest is the sign.
#[inline]
const fn sbits(word: u64, shift: u32, len: u32) -> i64 {{
    (word << (64 - len - shift)).cast_signed() >> (64 - len)
}}
"
            )?;
        }
        if self.is_variable() {
            let bound = &self.options.trait_name;
            write!(
                out,
                "
/// Makes sure that the highest `want` bits of a word of `max` bits are fetched.
#[inline]
fn more<D: {bound} + ?Sized>(
    cx: &mut D,
    insn: &mut u64,
    have: &mut u32,
    want: u32,
    max: u32,
) -> Result<(), D::Fault> {{
    if *have < want {{
        *insn |= cx.fetch(want - *have)? << (max - want);
        *have = want;
    }}
    Ok(())
}}
"
            )?;
        }
        Ok(())
    }
}

/// Where an expression stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Alone: in an arm or a block.
    Start,
    /// First operand of `||`.
    FirstOperand,
    /// Behind `&&` or `||`.
    Operand,
}

impl Place {
    /// What an expression that ends in a brace needs around it: at the start it would be a statement.
    fn parentheses(self) -> (&'static str, &'static str) {
        if self == Place::FirstOperand { ("(", ")") } else { ("", "") }
    }
}

fn recipe_key(pattern: &Pattern) -> String {
    format!("{} {:?}", pattern.args, pattern.extracts)
}

fn uses_functions(pattern: &Pattern) -> bool {
    let calls = |extract: &Extract| matches!(extract, Extract::Field { function: Some(_), .. });
    pattern.extracts.iter().any(calls)
}

/// The value of an extract before conversion, as an `i64` expression.
fn raw(extract: &Extract) -> String {
    let (parts, function) = match extract {
        Extract::Const(value) => return value.to_string(),
        Extract::Field { parts, function } => (parts, function),
    };
    let mut below: u32 = parts.iter().fold(0, |sum, part| sum.saturating_add(part.len));
    let mut terms = Vec::with_capacity(parts.len());
    for part in parts {
        below = below.saturating_sub(part.len);
        let name = if part.signed { "sbits" } else { "bits" };
        let len = part.len;
        let bits = match part.source {
            Bits::Insn(position) => format!("{name}(insn, {position}, {len})"),
            Bits::Argument(other) => format!("{name}(raw_{other}.cast_unsigned(), 0, {len})"),
        };
        terms.push(if below == 0 { bits } else { format!("({bits} << {below})") });
    }
    let joined = terms.join(" | ");
    match function {
        Some(function) => format!("cx.{}({joined})", ident(function)),
        None => joined,
    }
}

fn convert(value: &str, ty: ArgType) -> String {
    match ty {
        ArgType::Bool => format!("{value} != 0"),
        ArgType::I64 => value.to_owned(),
        _ => format!("{value} as {}", ty.name()),
    }
}

fn constant(value: i64, ty: ArgType) -> String {
    let value = ty.convert(value);
    match ty {
        ArgType::Bool => (value != 0).to_string(),
        ArgType::U64 => value.cast_unsigned().to_string(),
        _ => value.to_string(),
    }
}
