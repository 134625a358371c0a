//! Which values the guest's words have.
//!
//! Each word is a variable of Cranelift's, which makes values of it round loops. Words of floating-point registers
//! are variables of that kind, so that they stay in such registers. Within a block, a word's value in other
//! forms is remembered.

use cairn_tcg::region::abi;
use cairn_tcg::{RegisterClass, Slot, WORDS};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_frontend::{FunctionBuilder, Variable};

use crate::lower::Lowering;

/// A set of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words([u64; WORDS / 64]);

impl Words {
    pub(crate) const NONE: Words = Words([0; WORDS / 64]);

    pub(crate) fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64] >> (slot.index() % 64) & 1 != 0
    }

    /// Adds those of another set; whether any was new.
    pub(crate) fn merge(&mut self, other: &Words) -> bool {
        let old = *self;
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
        *self != old
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> {
        let all = (0..).take(WORDS).map(Slot::new);
        all.filter(|slot| self.contains(*slot))
    }
}

/// A value in one of the forms that a word has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The whole word.
    Int,
    /// The whole word as a double.
    Double,
    /// The low half as a single, with zeros above.
    Single,
}

impl Form {
    pub(crate) fn ty(self) -> Type {
        match self {
            Form::Int => types::I64,
            Form::Double => types::F64,
            Form::Single => types::F32,
        }
    }
}

/// What is known of a word's value at some place.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The value of the variable.
    variable: Option<Value>,
    int: Option<Value>,
    double: Option<Value>,
    /// The low half.
    single: Option<Value>,
    /// The low half, if there are ones above it.
    boxed: Option<Value>,
}

/// The variables, and what is known of them.
pub(crate) struct Values {
    variables: Vec<Option<(Variable, Form)>>,
    known: Vec<Known>,
}

impl Values {
    pub(crate) fn new() -> Values {
        Values { variables: vec![None; WORDS], known: vec![Known::default(); WORDS] }
    }

    /// Forgets what is known, as another way leads here.
    pub(crate) fn forget(&mut self) {
        self.known.fill(Known::default());
    }

    fn variable(
        &mut self,
        builder: &mut FunctionBuilder<'_>,
        slot: Slot,
        form: impl Fn() -> Form,
    ) -> (Variable, Form) {
        *self.variables[slot.index()].get_or_insert_with(|| {
            let form = form();
            (builder.declare_var(form.ty()), form)
        })
    }
}

/// Accesses to the words, the context and the data, which never fault.
pub(crate) fn own() -> MemFlagsData {
    MemFlagsData::trusted()
}

impl Lowering<'_> {
    fn variable(&mut self, slot: Slot) -> (Variable, Form) {
        let facts = self.region.facts;
        let form = || match facts.globals.get(slot.index()) {
            Some(global) if facts.plain_float && global.class == RegisterClass::Float => {
                Form::Double
            }
            _ => Form::Int,
        };
        self.values.variable(&mut self.builder, slot, form)
    }

    /// Loads a word into its variable.
    pub(crate) fn load_word(&mut self, slot: Slot) {
        let (variable, form) = self.variable(slot);
        let value = self.builder.ins().load(form.ty(), own(), self.words, abi::word(slot));
        self.builder.def_var(variable, value);
    }

    /// The value of a word's variable.
    pub(crate) fn held(&mut self, slot: Slot) -> Value {
        if let Some(value) = self.values.known[slot.index()].variable {
            return value;
        }
        let (variable, form) = self.variable(slot);
        let value = self.builder.use_var(variable);
        let known = &mut self.values.known[slot.index()];
        known.variable = Some(value);
        match form {
            Form::Double => known.double = Some(value),
            _ => known.int = Some(value),
        }
        value
    }

    /// Stores a value of a word's variable.
    pub(crate) fn store_word(&mut self, slot: Slot, value: Value) {
        self.builder.ins().store(own(), value, self.words, abi::word(slot));
    }

    pub(crate) fn bits(&mut self, ty: Type, value: Value) -> Value {
        self.builder.ins().bitcast(ty, MemFlagsData::new(), value)
    }

    /// A word.
    pub(crate) fn int(&mut self, slot: Slot) -> Value {
        self.held(slot);
        let known = self.values.known[slot.index()];
        match (known.int, known.double) {
            (Some(value), _) => value,
            (None, double) => {
                let double = double.unwrap_or_else(|| self.held(slot));
                let value = self.bits(types::I64, double);
                self.values.known[slot.index()].int = Some(value);
                value
            }
        }
    }

    /// The low half of a word.
    pub(crate) fn half(&mut self, slot: Slot) -> Value {
        let word = self.int(slot);
        self.builder.ins().ireduce(types::I32, word)
    }

    /// A word as a double.
    pub(crate) fn double(&mut self, slot: Slot) -> Value {
        self.held(slot);
        if let Some(value) = self.values.known[slot.index()].double {
            return value;
        }
        let int = self.int(slot);
        let value = self.bits(types::F64, int);
        self.values.known[slot.index()].double = Some(value);
        value
    }

    /// The low half of a word as a single.
    pub(crate) fn single(&mut self, slot: Slot) -> Value {
        if let Some(value) = self.values.known[slot.index()].single {
            return value;
        }
        let half = self.half(slot);
        let value = self.bits(types::F32, half);
        self.values.known[slot.index()].single = Some(value);
        value
    }

    /// The low half of a word as a single, if there are ones above it for certain.
    pub(crate) fn boxed(&self, slot: Slot) -> Option<Value> {
        self.values.known[slot.index()].boxed
    }

    fn define(&mut self, slot: Slot, known: Known, int: Value) {
        let (variable, form) = self.variable(slot);
        let mut known = Known { int: Some(int), ..known };
        let value = match form {
            Form::Double => known.double.unwrap_or_else(|| self.bits(types::F64, int)),
            _ => int,
        };
        if form == Form::Double {
            known.double = Some(value);
        }
        known.variable = Some(value);
        self.values.known[slot.index()] = known;
        self.builder.def_var(variable, value);
        if self.lazy.contains(slot) {
            self.dirty.insert(slot);
        } else if slot.index() < self.region.facts.globals.len() {
            self.store_word(slot, value);
        }
    }

    /// Gives a word a value.
    pub(crate) fn set(&mut self, slot: Slot, form: Form, value: Value) {
        match form {
            Form::Int => self.define(slot, Known::default(), value),
            Form::Double => {
                let int = self.bits(types::I64, value);
                self.define(slot, Known { double: Some(value), ..Known::default() }, int);
            }
            Form::Single => {
                let half = self.bits(types::I32, value);
                let int = self.builder.ins().uextend(types::I64, half);
                self.define(slot, Known { single: Some(value), ..Known::default() }, int);
            }
        }
    }

    /// Gives a word a value of 32 bits, with zeros above.
    pub(crate) fn set_half(&mut self, slot: Slot, value: Value) {
        let word = self.builder.ins().uextend(types::I64, value);
        self.set(slot, Form::Int, word);
    }

    /// Gives a word a single with ones above it.
    pub(crate) fn set_boxed(&mut self, slot: Slot, single: Value, word: Value) {
        let known = Known { single: Some(single), boxed: Some(single), ..Known::default() };
        self.define(slot, known, word);
    }

    /// Copies a word.
    pub(crate) fn copy(&mut self, to: Slot, from: Slot) {
        let int = self.int(from);
        let known = Known { variable: None, ..self.values.known[from.index()] };
        self.define(to, known, int);
    }

    /// A constant word.
    pub(crate) fn constant(&mut self, value: u64) -> Value {
        self.builder.ins().iconst(types::I64, value.cast_signed())
    }
}
