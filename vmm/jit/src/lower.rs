//! The frame of a region: its blocks and operations.

use cairn_tcg::ir::Shape;
use cairn_tcg::region::{Region, RegionData, abi};
use cairn_tcg::{Op, Slot, Ty, Uop};
use cranelift_codegen::ir::{
    self, BlockCall, InstBuilder, JumpTableData, SigRef, Signature, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::FunctionBuilder;

use crate::words::{Form, Values, Words, own};

/// A region in the making.
pub(crate) struct Lowering<'a> {
    pub(crate) region: &'a Region,
    pub(crate) builder: FunctionBuilder<'a>,
    pub(crate) data: RegionData,
    pub(crate) values: Values,
    /// Globals that are not stored when they change, but where somebody may look.
    pub(crate) lazy: Words,
    /// Those of them that may be newer than memory here.
    pub(crate) dirty: Words,
    /// Where each block of the region begins.
    pub(crate) heads: Vec<ir::Block>,
    /// Where operations begin that are branched to, of the current block.
    pub(crate) labels: Vec<Option<ir::Block>>,
    /// The current block and operation.
    pub(crate) block: usize,
    pub(crate) at: usize,
    pub(crate) words: Value,
    pub(crate) context: Value,
    pub(crate) own_data: Value,
    /// What every loop looks at.
    pub(crate) kick: Value,
    /// The function that lets the interpreter do an operation.
    pub(crate) step: SigRef,
    /// Whether the host has fused floating-point operations.
    pub(crate) fma: bool,
    pub(crate) needs_inexact: bool,
}

/// Makes Cranelift's IR of a region. Returns its data, and whether its code relies on the flag for inexact results.
pub(crate) fn lower(
    region: &Region,
    mut builder: FunctionBuilder<'_>,
    config: TargetFrontendConfig,
    fma: bool,
) -> Option<(RegionData, bool)> {
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let [words, context, own_data, door] = *builder.block_params(entry) else { return None };
    let kick = builder.ins().load(types::I64, own(), context, abi::KICK);
    let step = builder.import_signature(Signature::new(CallConv::PreserveAll));
    let heads = region.blocks.iter().map(|_| builder.create_block()).collect();
    let mut lowering = Lowering {
        region,
        builder,
        data: RegionData::default(),
        values: Values::new(),
        lazy: lazy(region),
        dirty: Words::NONE,
        heads,
        labels: Vec::new(),
        block: 0,
        at: 0,
        words,
        context,
        own_data,
        kick,
        step,
        fma,
        needs_inexact: false,
    };
    for slot in used(region).iter() {
        lowering.load_word(slot);
    }
    lowering.enter(door)?;
    for (block, dirty) in dirty_at_heads(region, &lowering.lazy).into_iter().enumerate() {
        lowering.dirty = dirty;
        lowering.body(block)?;
    }
    lowering.builder.seal_all_blocks();
    lowering.builder.finalize(config);
    Some((lowering.data, lowering.needs_inexact))
}

/// The globals that are read or written anywhere.
fn used(region: &Region) -> Words {
    let mut words = Words::NONE;
    for uop in region.blocks.iter().flat_map(|member| &member.block.uops) {
        let mut add = |slot: Slot| {
            if slot.index() < region.facts.globals.len() {
                words.insert(slot);
            }
        };
        uop.reads(&mut add);
        uop.writes(&mut add);
    }
    words
}

/// Stores on paths where somebody may look, of which there shall not be more.
const LAZY_STORES: usize = 1200;

/// The globals that are not stored when they change: as many as the number of places allows where they would be
/// stored, and those first that change most often.
fn lazy(region: &Region) -> Words {
    let globals = region.facts.globals.len();
    let mut places = 1;
    let mut changes = vec![0_u64; globals];
    for member in &region.blocks {
        for uop in &member.block.uops {
            places += usize::from(uop.op.observes());
            uop.writes(|slot| {
                if let Some(count) = changes.get_mut(slot.index()) {
                    *count += 1 + u64::from(member.heat);
                }
            });
        }
    }
    let mut order: Vec<Slot> = (0..).take(globals).map(Slot::new).collect();
    order.retain(|slot| changes[slot.index()] != 0);
    order.sort_by_key(|slot| std::cmp::Reverse(changes[slot.index()]));
    let mut words = Words::NONE;
    order.into_iter().take(LAZY_STORES / places).for_each(|slot| words.insert(slot));
    words
}

/// The globals that may be newer than memory at the beginning of each block.
fn dirty_at_heads(region: &Region, lazy: &Words) -> Vec<Words> {
    let written: Vec<Words> = region
        .blocks
        .iter()
        .map(|member| {
            let mut words = Words::NONE;
            for uop in &member.block.uops {
                uop.writes(|slot| {
                    if lazy.contains(slot) {
                        words.insert(slot);
                    }
                });
            }
            words
        })
        .collect();
    let mut heads = vec![Words::NONE; region.blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for (index, member) in region.blocks.iter().enumerate() {
            let mut dirty = heads[index];
            dirty.merge(&written[index]);
            let exits = member.block.uops.iter().filter(|uop| uop.op == Op::Exit);
            let constant = exits.filter_map(|uop| region.block_at(uop.wide()));
            for next in constant.chain(member.computed.iter().copied()) {
                changed |= heads[next].merge(&dirty);
            }
        }
    }
    heads
}

impl<'a> Lowering<'a> {
    /// Goes to the entry with the index `door`.
    fn enter(&mut self, door: Value) -> Option<()> {
        let entries: Option<Vec<ir::Block>> =
            self.region.entries.iter().map(|index| self.heads.get(*index).copied()).collect();
        let entries = entries?;
        let (first, others) = entries.split_first()?;
        if others.is_empty() {
            self.builder.ins().jump(*first, &[]);
            return Some(());
        }
        let lists = &mut self.builder.func.dfg.value_lists;
        // Each call has a list of its own, as values are added to it.
        let default = BlockCall::new(*first, [], lists);
        let calls: Vec<BlockCall> =
            entries.iter().map(|block| BlockCall::new(*block, [], lists)).collect();
        let jumps = JumpTableData::new(default, &calls);
        let jumps = self.builder.create_jump_table(jumps);
        let door = self.builder.ins().ireduce(types::I32, door);
        self.builder.ins().br_table(door, jumps);
        Some(())
    }

    /// The operations of a block.
    fn body(&mut self, block: usize) -> Option<()> {
        let region: &'a Region = self.region;
        let uops = &region.blocks.get(block)?.block.uops;
        (self.block, self.at) = (block, 0);
        self.labels = vec![None; uops.len() + 1];
        for target in uops.iter().filter_map(Uop::target) {
            let label = self.labels.get_mut(target)?;
            let builder = &mut self.builder;
            label.get_or_insert_with(|| builder.create_block());
        }
        self.builder.switch_to_block(self.heads[block]);
        self.values.forget();
        if region.checked {
            let count = self.builder.ins().load(types::I64, own(), self.context, abi::BLOCKS);
            let count = self.builder.ins().iadd_imm_s(count, 1);
            self.builder.ins().store(own(), count, self.context, abi::BLOCKS);
        }
        let mut open = true;
        for (at, uop) in uops.iter().enumerate() {
            if let Some(label) = self.labels[at] {
                if open {
                    self.builder.ins().jump(label, &[]);
                }
                // Branches go forward: all have come.
                self.builder.seal_block(label);
                self.builder.switch_to_block(label);
                self.values.forget();
                open = true;
            }
            if open {
                self.at = at;
                self.uop(uop)?;
                open = !uop.op.ends();
            }
        }
        Some(())
    }

    /// The current operation. `None` if it may not be in a region.
    fn uop(&mut self, uop: &Uop) -> Option<()> {
        let done = match uop.op.shape() {
            Shape::Const => {
                let value = self.constant(uop.wide());
                self.set(uop.d, Form::Int, value);
                true
            }
            Shape::Unary => self.unary(uop),
            Shape::Binary => self.division(uop) || self.binary(uop),
            Shape::Select => {
                self.select(uop);
                true
            }
            Shape::Load => self.load(uop),
            Shape::Store => self.store(uop),
            Shape::Fence if uop.op == Op::Fence => {
                self.builder.ins().fence();
                true
            }
            Shape::FloatUnary | Shape::FloatBinary | Shape::FloatFused => self.float(uop),
            Shape::Branch => {
                self.branch(uop)?;
                true
            }
            Shape::Jump => {
                let label = self.labels.get(uop.target()?).copied().flatten()?;
                self.builder.ins().jump(label, &[]);
                true
            }
            Shape::Exit => {
                self.exit(uop.wide());
                true
            }
            Shape::ExitTo => {
                self.exit_to(uop.a);
                true
            }
            Shape::Raise => {
                self.raise(uop);
                true
            }
            Shape::Rmw | Shape::Cas | Shape::CasPair => false,
            Shape::Fence | Shape::Call => return None,
        };
        if !done {
            self.interpret(uop);
        }
        Some(())
    }

    /// The second operand as a word.
    pub(crate) fn second(&mut self, uop: &Uop) -> Value {
        if uop.b == Slot::IMM {
            self.constant(i64::from(uop.imm).cast_unsigned())
        } else {
            self.int(uop.b)
        }
    }

    /// Both operands in the width of the operation.
    pub(crate) fn operands(&mut self, uop: &Uop) -> (Value, Value) {
        let (a, b) = (self.int(uop.a), self.second(uop));
        if uop.ty == Ty::I32 {
            let ins =
                |builder: &mut FunctionBuilder<'a>, value| builder.ins().ireduce(types::I32, value);
            (ins(&mut self.builder, a), ins(&mut self.builder, b))
        } else {
            (a, b)
        }
    }

    /// The result of an integer operation, in its width.
    pub(crate) fn set_sized(&mut self, uop: &Uop, value: Value) {
        if uop.ty == Ty::I32 {
            self.set_half(uop.d, value);
        } else {
            self.set(uop.d, Form::Int, value);
        }
    }
}
