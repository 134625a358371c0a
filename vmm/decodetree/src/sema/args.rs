//! Argument sets: the named ones of all files, and those inferred from fields.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checked, MAX_ARGS};
use crate::ast::{ArgsDef, File, Name};
use crate::diagnostic::{Diagnostic, Errors};
use crate::model::{ArgSet, ArgType, Decoder};
use crate::source::Source;

/// All argument sets of a unit; patterns refer to them by index.
pub(super) struct ArgSets<'a> {
    pub(super) list: Vec<ArgSet>,
    /// Where the named sets are defined; inferred ones stand behind them in `list`.
    definitions: Vec<(&'a Source, &'a ArgsDef)>,
    by_name: BTreeMap<&'a str, usize>,
    /// Sets each file may name: its own and those it declares `!extern`.
    visible: BTreeSet<(&'a str, &'a str)>,
    /// Sets by their sorted elements, for inference.
    by_elements: BTreeMap<Vec<(String, &'static str)>, usize>,
    names: BTreeSet<String>,
}

impl<'a> ArgSets<'a> {
    /// Collects the definitions of all files and matches `!extern` ones with them.
    pub(super) fn gather(sources: &'a [Source], files: &'a [File], errors: &mut Errors) -> Self {
        let mut sets = ArgSets {
            list: Vec::new(),
            definitions: Vec::new(),
            by_name: BTreeMap::new(),
            visible: BTreeSet::new(),
            by_elements: BTreeMap::new(),
            names: BTreeSet::new(),
        };
        let all = || {
            sources.iter().zip(files).flat_map(|(source, file)| {
                file.args.iter().map(move |definition| (source, definition))
            })
        };
        for (source, definition) in all().filter(|(_, definition)| !definition.external) {
            if let Err(error) = sets.define(source, definition) {
                errors.push(error);
            }
        }
        for (source, definition) in all().filter(|(_, definition)| definition.external) {
            if let Err(error) = sets.declare(source, definition) {
                errors.push(error);
            }
        }
        sets
    }

    fn define(&mut self, source: &'a Source, definition: &'a ArgsDef) -> Checked<()> {
        let name = &definition.name;
        let set = arg_set(source, definition)?;
        let other = self.by_name.get(name.text.as_str());
        if let Some((file, first)) = other.and_then(|index| self.definitions.get(*index)) {
            let message = format!("argument set '&{}' is already defined", name.text);
            let error = Diagnostic::new(source, name.span, message);
            return Err(error.note(file, first.name.span, "defined here first"));
        }
        self.by_name.insert(&name.text, self.list.len());
        self.visible.insert((&source.name, &name.text));
        self.definitions.push((source, definition));
        self.push(set);
        Ok(())
    }

    fn declare(&mut self, source: &'a Source, definition: &'a ArgsDef) -> Checked<()> {
        let name = &definition.name;
        let set = arg_set(source, definition)?;
        let index = self.by_name.get(name.text.as_str()).copied();
        let Some((index, found)) = index.and_then(|index| Some((index, self.list.get(index)?)))
        else {
            let message =
                format!("argument set '&{}' is not defined in any file of the unit", name.text);
            return Err(Diagnostic::new(source, name.span, message));
        };
        if key(found) != key(&set) {
            let message = format!("argument set '&{}' differs from its definition", name.text);
            let mut error = Diagnostic::new(source, name.span, message);
            if let Some((file, first)) = self.definitions.get(index) {
                error = error.note(file, first.name.span, "defined here");
            }
            return Err(error);
        }
        self.visible.insert((&source.name, &name.text));
        Ok(())
    }

    fn push(&mut self, set: ArgSet) -> usize {
        let index = self.list.len();
        self.names.insert(set.name.clone());
        self.by_elements.entry(key(&set)).or_insert(index);
        self.list.push(set);
        index
    }

    /// The set that `source` calls `name`.
    pub(super) fn named(&self, source: &Source, name: &Name) -> Checked<usize> {
        match self.by_name.get(name.text.as_str()) {
            Some(index) if self.visible.contains(&(source.name.as_str(), name.text.as_str())) => {
                Ok(*index)
            }
            found => {
                let hint = if found.is_some() { " in this file; declare it !extern" } else { "" };
                let message = format!("argument set '&{}' is not defined{hint}", name.text);
                Err(Diagnostic::new(source, name.span, message))
            }
        }
    }

    /// A set with exactly these elements: an existing one, or a new one named after `base`.
    pub(super) fn infer(&mut self, base: &str, elements: Vec<(String, ArgType)>) -> usize {
        let mut set = ArgSet { name: base.to_owned(), elements };
        if let Some(index) = self.by_elements.get(&key(&set)) {
            return *index;
        }
        let mut number = 1_usize;
        while self.names.contains(&set.name) {
            number = number.saturating_add(1);
            set.name = format!("{base}_{number}");
        }
        self.push(set)
    }

    /// The sets that patterns use, and their new indices by old ones.
    pub(super) fn used(self, decoders: &[Decoder]) -> (Vec<ArgSet>, BTreeMap<usize, usize>) {
        let patterns = decoders.iter().flat_map(|decoder| &decoder.patterns);
        let used: BTreeSet<usize> = patterns.map(|pattern| pattern.args).collect();
        let renumbered = used.iter().copied().zip(0..).collect();
        let keep = |(index, set)| used.contains(&index).then_some(set);
        (self.list.into_iter().enumerate().filter_map(keep).collect(), renumbered)
    }
}

/// Two sets with equal keys have the same arguments, in whatever order.
fn key(set: &ArgSet) -> Vec<(String, &'static str)> {
    let mut key: Vec<_> = set.elements.iter().map(|(name, ty)| (name.clone(), ty.name())).collect();
    key.sort();
    key
}

fn arg_set(source: &Source, definition: &ArgsDef) -> Checked<ArgSet> {
    if definition.elements.len() > MAX_ARGS {
        let message = format!("an argument set holds at most {MAX_ARGS} arguments");
        return Err(Diagnostic::new(source, definition.name.span, message));
    }
    let mut elements = Vec::with_capacity(definition.elements.len());
    for element in &definition.elements {
        let ty = match &element.ty {
            None => ArgType::I32,
            Some(name) => {
                let named = ArgType::ALL.into_iter().find(|ty| ty.name() == name.text);
                named.ok_or_else(|| {
                    let message = format!("'{}' is not one of bool, i8 … i64, u8 … u64", name.text);
                    Diagnostic::new(source, name.span, message)
                })?
            }
        };
        elements.push((element.name.text.clone(), ty));
    }
    Ok(ArgSet { name: definition.name.text.clone(), elements })
}
