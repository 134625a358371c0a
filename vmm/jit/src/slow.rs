//! Paths on which the interpreter does an operation.
//!
//! It works on the words in memory, and so does whoever looks at the guest's state if the operation faults: all that
//! is newer is stored first. The results come back from memory. No register is changed, so that the rest of
//! the region does not notice the path.

use cairn_tcg::region::abi;
use cairn_tcg::{Slot, Uop};
use cranelift_codegen::ir::{self, BlockArg, InstBuilder, Value, types};

use crate::lower::Lowering;
use crate::words::{Form, own};

/// Words that are newer than memory, with their values.
pub(crate) type Live = Vec<(Slot, Value)>;

/// An operation with a fast path and a slow one.
pub(crate) struct Paths {
    slow: ir::Block,
    join: ir::Block,
    live: Live,
}

impl Lowering<'_> {
    /// The globals that may be newer than memory.
    pub(crate) fn live(&mut self) -> Live {
        let dirty = self.dirty;
        dirty.iter().map(|slot| (slot, self.held(slot))).collect()
    }

    /// As above, with the temporaries that the operation reads.
    fn live_for(&mut self, uop: &Uop) -> Live {
        let mut live = self.live();
        let mut read = Vec::new();
        uop.reads(|slot| read.push(slot));
        for slot in read {
            let global = slot.index() < self.region.facts.globals.len();
            if !global && !live.iter().any(|(known, _)| *known == slot) {
                live.push((slot, self.held(slot)));
            }
        }
        live
    }

    /// Brings memory up to date.
    pub(crate) fn flush(&mut self, live: &Live) {
        for (slot, value) in live {
            self.store_word(*slot, *value);
        }
    }

    /// A block for what happens rarely.
    pub(crate) fn cold_block(&mut self) -> ir::Block {
        let block = self.builder.create_block();
        self.builder.set_cold_block(block);
        block
    }

    /// Goes to `block` if the condition holds, and on here if it does not.
    pub(crate) fn divert(&mut self, condition: Value, block: ir::Block) {
        let next = self.builder.create_block();
        self.builder.ins().brif(condition, block, &[], next, &[]);
        self.builder.seal_block(next);
        self.builder.switch_to_block(next);
    }

    /// Lets the interpreter do the current operation. Memory is up to date.
    fn call(&mut self) {
        let region = self.region;
        let record = self.data.record(&region.blocks[self.block].block, self.at);
        let record = self.builder.ins().iadd_imm_s(self.own_data, i64::from(record));
        self.builder.ins().store(own(), record, self.context, abi::RECORD);
        let callee = self.builder.ins().load(types::I64, own(), self.context, abi::STEP);
        self.builder.ins().call_indirect(self.step, callee, &[]);
    }

    /// As above, and leaves the region if the operation asks for that.
    fn call_and_check(&mut self) {
        self.call();
        let stopped = self.builder.ins().load(types::I64, own(), self.context, abi::STOPPED);
        let stop = self.cold_block();
        self.divert(stopped, stop);
        let back = self.builder.current_block();
        self.builder.seal_block(stop);
        self.builder.switch_to_block(stop);
        self.return_to(abi::STOP);
        if let Some(back) = back {
            self.builder.switch_to_block(back);
        }
    }

    /// Returns what is at a place of the context.
    pub(crate) fn return_to(&mut self, place: i32) {
        let target = self.builder.ins().load(types::I64, own(), self.context, place);
        self.builder.ins().return_(&[target]);
    }

    /// Lets the interpreter do the operation, always.
    pub(crate) fn interpret(&mut self, uop: &Uop) {
        let live = self.live_for(uop);
        self.flush(&live);
        self.call_and_check();
        let mut written = Vec::new();
        uop.writes(|slot| written.push(slot));
        for slot in written {
            let value = self.builder.ins().load(types::I64, own(), self.words, abi::word(slot));
            self.set(slot, Form::Int, value);
        }
    }

    /// Lets the interpreter raise the event, and leaves.
    pub(crate) fn raise(&mut self, uop: &Uop) {
        let live = self.live_for(uop);
        self.flush(&live);
        self.call();
        self.return_to(abi::STOP);
    }

    /// Begins an operation with two paths; the fast one goes on here.
    pub(crate) fn paths(&mut self, uop: &Uop) -> Paths {
        let live = self.live_for(uop);
        Paths { slow: self.cold_block(), join: self.builder.create_block(), live }
    }

    /// Takes the slow path if the condition holds.
    pub(crate) fn slow_if(&mut self, paths: &Paths, condition: Value) {
        self.divert(condition, paths.slow);
    }

    /// Takes the slow path in place of what follows.
    pub(crate) fn slow(&mut self, paths: &Paths) {
        self.builder.ins().jump(paths.slow, &[]);
    }

    /// Ends the fast path with a result, if the operation has one.
    pub(crate) fn fast(&mut self, paths: &Paths, value: Option<Value>) {
        let arguments: Vec<BlockArg> = value.into_iter().map(BlockArg::Value).collect();
        self.builder.ins().jump(paths.join, &arguments);
    }

    /// Makes the slow path, and joins it with the fast one. The result goes to `slot` in the given form.
    pub(crate) fn join(&mut self, paths: Paths, result: Option<(Slot, Form)>) {
        let Paths { slow, join, live } = paths;
        self.builder.seal_block(slow);
        self.builder.switch_to_block(slow);
        self.flush(&live);
        self.call_and_check();
        let value = result.map(|(slot, form)| {
            self.builder.ins().load(form.ty(), own(), self.words, abi::word(slot))
        });
        let arguments: Vec<BlockArg> = value.into_iter().map(BlockArg::Value).collect();
        self.builder.ins().jump(join, &arguments);
        let value = result.map(|(_, form)| self.builder.append_block_param(join, form.ty()));
        self.builder.seal_block(join);
        self.builder.switch_to_block(join);
        if let (Some((slot, form)), Some(value)) = (result, value) {
            self.set(slot, form, value);
        }
    }
}
