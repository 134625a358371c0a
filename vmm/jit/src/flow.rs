//! Branches, edges between blocks, and exits.

use std::collections::HashSet;

use cairn_tcg::region::abi;
use cairn_tcg::{Slot, Uop};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, BlockCall, InstBuilder, JumpTableData, Value, types};

use crate::integer::condition;
use crate::lower::Lowering;
use crate::words::own;

/// Targets of a computed exit that are compared one by one; more go through a table.
const COMPARED: usize = 3;
/// The logarithm of the largest table's size.
const TABLE_BITS: u32 = 8;
/// Blocks after which a checked region is left: what they do is recorded.
const CHECKED_BLOCKS: i64 = 1000;

impl Lowering<'_> {
    pub(crate) fn branch(&mut self, uop: &Uop) -> Option<()> {
        let label = self.labels.get(uop.target()?).copied().flatten()?;
        let (a, b) = self.operands(uop);
        let holds = self.builder.ins().icmp(condition(uop.op)?, a, b);
        self.divert(holds, label);
        Some(())
    }

    /// The address of the current block.
    fn pc(&self) -> u64 {
        self.region.blocks[self.block].block.key.pc
    }

    /// Goes back with the program counter at `pc`.
    fn leave(&mut self, pc: Value) {
        let live = self.live();
        self.flush(&live);
        self.store_word(self.region.facts.pc, pc);
        self.return_to(abi::MISS);
    }

    /// Leaves to `pc` if the CPU is kicked or the region is closed. Every loop comes by here: back edges and computed
    /// ones do.
    fn check(&mut self, pc: Value) {
        let live = self.live();
        let kick = self.builder.ins().load(types::I8, own(), self.kick, 0);
        let kick = self.builder.ins().uextend(types::I32, kick);
        let closed = self.builder.ins().load(types::I32, own(), self.own_data, abi::CLOSED);
        let mut reason = self.builder.ins().bor(kick, closed);
        if self.region.checked {
            let blocks = self.builder.ins().load(types::I64, own(), self.context, abi::BLOCKS);
            let limit = self.constant(CHECKED_BLOCKS.cast_unsigned());
            let many = self.builder.ins().icmp(IntCC::UnsignedGreaterThan, blocks, limit);
            let many = self.builder.ins().uextend(types::I32, many);
            reason = self.builder.ins().bor(reason, many);
        }
        let out = self.cold_block();
        self.divert(reason, out);
        let next = self.builder.current_block();
        self.builder.seal_block(out);
        self.builder.switch_to_block(out);
        self.flush(&live);
        self.store_word(self.region.facts.pc, pc);
        self.return_to(abi::MISS);
        if let Some(next) = next {
            self.builder.switch_to_block(next);
        }
    }

    /// Goes to the block at `pc`: in the region, or by a cell that is linked to it once it is known.
    pub(crate) fn exit(&mut self, pc: u64) {
        if pc <= self.pc() {
            let target = self.constant(pc);
            self.check(target);
        }
        if let Some(index) = self.region.block_at(pc) {
            self.builder.ins().jump(self.heads[index], &[]);
        } else if self.region.checked {
            let target = self.constant(pc);
            self.leave(target);
        } else {
            let live = self.live();
            self.flush(&live);
            let cell = self.data.cell(pc);
            let target = self.builder.ins().load(types::I64, own(), self.own_data, cell);
            self.builder.ins().return_(&[target]);
        }
    }

    /// Goes to the block at the address in `a`: one of those that it has gone to, or one that this CPU knows.
    pub(crate) fn exit_to(&mut self, a: Slot) {
        let target = self.int(a);
        self.check(target);
        let region = self.region;
        self.dispatch(target, &region.blocks[self.block].computed);
        if region.checked {
            self.leave(target);
            return;
        }
        let live = self.live();
        self.flush(&live);
        self.store_word(region.facts.pc, target);
        let half = self.builder.ins().ushr_imm_u(target, 1);
        let mask = self.constant(u64::from(abi::JUMP_INDEX.cast_unsigned()));
        let index = self.builder.ins().band(half, mask);
        let offset = self.builder.ins().imul_imm_s(index, i64::from(abi::JUMP_SIZE));
        let entry = self.builder.ins().iadd(self.context, offset);
        let key = self.builder.ins().load(types::I64, own(), entry, abi::JUMPS);
        let place = abi::JUMPS + abi::JUMP_ENTRY;
        let code = self.builder.ins().load(types::I64, own(), entry, place);
        let miss = self.builder.ins().load(types::I64, own(), self.context, abi::MISS);
        let known = self.builder.ins().icmp(IntCC::Equal, key, target);
        let next = self.builder.ins().select(known, code, miss);
        self.builder.ins().return_(&[next]);
    }

    /// Goes to one of some blocks of the region if `target` is its address, and on here if not.
    fn dispatch(&mut self, target: Value, members: &[usize]) {
        let region = self.region;
        let pcs: Vec<u64> =
            members.iter().map(|index| region.blocks[*index].block.key.pc).collect();
        match table(&pcs).filter(|_| members.len() > COMPARED) {
            None => {
                for (index, pc) in members.iter().zip(pcs).take(COMPARED) {
                    self.go_if_equal(target, pc, self.heads[*index]);
                }
            }
            Some((shift, bits)) => {
                let miss = self.builder.create_block();
                let mut targets = vec![miss; 1 << bits];
                let mut places = Vec::new();
                for (index, pc) in members.iter().zip(pcs) {
                    let place = self.builder.create_block();
                    targets[slot_of(pc, shift, bits)] = place;
                    places.push((place, *index, pc));
                }
                // Each call has a list of its own, as values are added to it.
                let lists = &mut self.builder.func.dfg.value_lists;
                let default = BlockCall::new(miss, [], lists);
                let calls: Vec<BlockCall> =
                    targets.into_iter().map(|target| BlockCall::new(target, [], lists)).collect();
                let shifted = self.builder.ins().ushr_imm_u(target, i64::from(shift));
                let index = self.builder.ins().ireduce(types::I32, shifted);
                let mask = self.builder.ins().iconst(types::I32, (1 << bits) - 1);
                let index = self.builder.ins().band(index, mask);
                let jumps = JumpTableData::new(default, &calls);
                let jumps = self.builder.create_jump_table(jumps);
                self.builder.ins().br_table(index, jumps);
                for (place, index, pc) in places {
                    self.builder.seal_block(place);
                    self.builder.switch_to_block(place);
                    let wanted = self.constant(pc);
                    let same = self.builder.ins().icmp(IntCC::Equal, target, wanted);
                    self.builder.ins().brif(same, self.heads[index], &[], miss, &[]);
                }
                self.builder.seal_block(miss);
                self.builder.switch_to_block(miss);
            }
        }
    }

    fn go_if_equal(&mut self, target: Value, pc: u64, head: ir::Block) {
        let wanted = self.constant(pc);
        let same = self.builder.ins().icmp(IntCC::Equal, target, wanted);
        self.divert(same, head);
    }
}

/// Where an address is in a table.
fn slot_of(pc: u64, shift: u32, bits: u32) -> usize {
    let slot = pc >> shift & ((1 << bits) - 1);
    // It is below the table's size.
    usize::try_from(slot).unwrap_or_default()
}

/// How far to shift addresses, and the logarithm of the size of the smallest table in which each has a place of its own.
fn table(pcs: &[u64]) -> Option<(u32, u32)> {
    let tries = (1..=TABLE_BITS).flat_map(|bits| (1..16).map(move |shift| (shift, bits)));
    tries.into_iter().find(|(shift, bits)| {
        let places: HashSet<usize> = pcs.iter().map(|pc| slot_of(*pc, *shift, *bits)).collect();
        places.len() == pcs.len()
    })
}
