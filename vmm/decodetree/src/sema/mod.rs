//! Checks pattern files and resolves their names.
//!
//! Argument sets are gathered first, over all files, so that a file may use another's (`!extern`).
//! Then each file's fields, formats and patterns are resolved, overlaps are sought, and the decision
//! tree is built. Names are looked up in maps and each pattern is compared with each other one at most
//! once; [`MAX_PATTERNS`] bounds that.

mod args;
mod encoding;
mod fields;
mod overlap;

use std::collections::BTreeMap;

use crate::ast::{Encoding, File, Member, Name};
use crate::diagnostic::{Diagnostic, Errors};
use crate::model::{ArgSet, Decoder, Extract, Function, Pattern, Unit};
use crate::source::{Source, Span};
use crate::tree;

use args::ArgSets;
use encoding::Formats;
use fields::Fields;

/// Most patterns that one file may hold.
pub const MAX_PATTERNS: usize = 8192;

/// Most arguments that one set may hold.
pub const MAX_ARGS: usize = 64;

/// Name that generated traits use for a method of their own.
const RESERVED_METHODS: [&str; 1] = ["fetch"];

type Checked<T> = Result<T, Diagnostic>;

/// Resolves and checks parsed files; `files` belong to `sources` one by one.
pub(crate) fn check(sources: &[Source], files: &[File]) -> Result<Unit, Errors> {
    let mut errors = Errors::default();
    let mut sets = ArgSets::gather(sources, files, &mut errors);
    let mut methods = Methods::default();
    let mut decoders: Vec<Decoder> = Vec::with_capacity(files.len());
    for (source, file) in sources.iter().zip(files) {
        if decoders.iter().any(|other| other.name == source.decoder) {
            let message = format!("two decoders are called '{}'", source.decoder);
            errors.push(Diagnostic::new(source, Span::default(), message));
        }
        let scope = Scope {
            source,
            fields: Fields::gather(source, file, &mut errors),
            formats: Formats::default(),
        };
        let decoder = scope.decoder(file, &mut sets, &mut methods, &mut errors);
        decoders.push(decoder);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    for decoder in &mut decoders {
        decoder.tree = tree::build(&decoder.patterns, decoder.widths);
    }
    let (args, renumbered) = sets.used(&decoders);
    for pattern in decoders.iter_mut().flat_map(|decoder| &mut decoder.patterns) {
        pattern.args = renumbered.get(&pattern.args).copied().unwrap_or_default();
    }
    Ok(Unit { decoders, args, functions: methods.functions() })
}

/// The names one file sees.
struct Scope<'a> {
    source: &'a Source,
    fields: Fields<'a>,
    formats: Formats<'a>,
}

impl<'a> Scope<'a> {
    fn error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.source, span, message)
    }

    fn decoder(
        mut self,
        file: &'a File,
        sets: &mut ArgSets<'_>,
        methods: &mut Methods,
        errors: &mut Errors,
    ) -> Decoder {
        self.gather_formats(file, sets, errors);
        let mut leaves = Vec::new();
        flatten(&file.members, &mut leaves);
        if leaves.len() > MAX_PATTERNS {
            let message = format!("the file has more than {MAX_PATTERNS} patterns");
            errors.push(self.error(Span::default(), message));
            leaves.clear();
        }
        if leaves.is_empty() && errors.is_empty() {
            errors.push(self.error(Span::default(), "the file has no patterns"));
        }
        let mut patterns = Vec::with_capacity(leaves.len());
        let mut complete = true;
        for (index, leaf) in leaves.into_iter().enumerate() {
            let pattern = self.pattern(index, leaf, sets).and_then(|pattern| {
                methods.add(self.source, &leaf.name, &pattern, &sets.list)?;
                Ok(pattern)
            });
            match pattern {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    complete = false;
                    errors.push(error);
                }
            }
        }
        // Patterns and leaves must correspond for the groups to be found again.
        if complete {
            overlap::check(self.source, &file.members, &patterns, errors);
        }
        Decoder {
            name: self.source.decoder.clone(),
            file: self.source.name.clone(),
            widths: self.source.widths,
            patterns,
            tree: tree::Node::Seq(Vec::new()),
        }
    }
}

/// Collects the patterns of nested groups in file order.
fn flatten<'a>(members: &'a [Member], leaves: &mut Vec<&'a Encoding>) {
    for member in members {
        match member {
            Member::Pattern(pattern) => leaves.push(pattern),
            Member::Group(group) => flatten(&group.members, leaves),
        }
    }
}

/// The methods that the translator must have: one for each pattern name and each function.
#[derive(Default)]
struct Methods {
    patterns: BTreeMap<String, usize>,
    functions: BTreeMap<String, bool>,
}

impl Methods {
    fn add(
        &mut self,
        source: &Source,
        name: &Name,
        pattern: &Pattern,
        sets: &[ArgSet],
    ) -> Checked<()> {
        let error = |message: String| Diagnostic::new(source, name.span, message);
        let text = &name.text;
        if RESERVED_METHODS.contains(&text.as_str()) {
            return Err(error(format!("the name '{text}' is reserved for generated code")));
        }
        let first = *self.patterns.entry(text.clone()).or_insert(pattern.args);
        if first != pattern.args {
            let set = |index: usize| sets.get(index).map_or("", |set| set.name.as_str());
            return Err(error(format!(
                "'{text}' takes the arguments &{} here, but &{} in an earlier pattern",
                set(pattern.args),
                set(first)
            )));
        }
        for extract in &pattern.extracts {
            let Extract::Field { parts, function: Some(function) } = extract else { continue };
            if RESERVED_METHODS.contains(&function.as_str()) {
                return Err(error(format!("the name '{function}' is reserved for generated code")));
            }
            let takes = !parts.is_empty();
            if *self.functions.entry(function.clone()).or_insert(takes) != takes {
                return Err(error(format!(
                    "function '{function}' is used both with and without field bits"
                )));
            }
        }
        let both = self.functions.keys().find(|function| self.patterns.contains_key(*function));
        match both {
            Some(both) => Err(error(format!("'{both}' is both a pattern and a function"))),
            None => Ok(()),
        }
    }

    fn functions(self) -> Vec<Function> {
        let function = |(name, takes_value)| Function { name, takes_value };
        self.functions.into_iter().map(function).collect()
    }
}
