//! Which blocks belong together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Direct, GuestFacts, Region, RegionBlock};
use crate::code::Cache;
use crate::ir::{Block, BlockKey, Op};

/// The most blocks and guest instructions of a region.
const BLOCKS: usize = 48;
const INSTRUCTIONS: usize = 320;
/// The most blocks at which a region is entered.
const ENTRIES: usize = 8;
/// A block is taken in if it has run at least this fraction of what the first one has.
const STATIC_SHARE: u32 = 8;
/// As above, for targets of computed exits, which are many for one that has run often.
const COMPUTED_SHARE: u32 = 32;

/// The region that begins at `entry`, if that comes back to one of its blocks: code that runs once through a region
/// gains nothing.
pub(crate) fn form(
    cache: &Cache,
    entry: &Arc<Block>,
    facts: GuestFacts,
    memory: Direct,
    checked: bool,
) -> Option<Region> {
    let heat = entry.heat();
    let mut blocks: Vec<Arc<Block>> = Vec::new();
    let mut instructions = 0;
    // Ways by constant exits are followed first.
    let mut near: VecDeque<Arc<Block>> = VecDeque::from([entry.clone()]);
    let mut far: VecDeque<Arc<Block>> = VecDeque::new();
    while let Some(block) = near.pop_front().or_else(|| far.pop_front()) {
        let known = blocks.iter().any(|other| other.key == block.key);
        let full = blocks.len() == BLOCKS || instructions + block.marks.len() > INSTRUCTIONS;
        if known || full || !fits(&block) {
            continue;
        }
        instructions += block.marks.len();
        let follow = |pc: u64, share: u32| {
            let block = cache.find(&BlockKey { pc, ..block.key })?;
            (block.heat() >= heat / share).then_some(block)
        };
        near.extend(exits(&block).filter_map(|pc| follow(pc, STATIC_SHARE)));
        far.extend(seen(&block).into_iter().filter_map(|pc| follow(pc, COMPUTED_SHARE)));
        blocks.push(block);
    }
    let index = |pc: u64| blocks.iter().position(|block| block.key.pc == pc);
    let members: Vec<RegionBlock> = blocks
        .iter()
        .map(|block| RegionBlock {
            block: block.clone(),
            heat: block.heat(),
            computed: seen(block).into_iter().filter_map(index).collect(),
        })
        .collect();
    let mut region = Region { blocks: members, entries: Vec::new(), facts, memory, checked };
    region.entries = entries(&region);
    (!region.blocks.is_empty() && comes_back(&region)).then_some(region)
}

/// The first block, and those that loops begin at: CPUs that are in one now come by there.
fn entries(region: &Region) -> Vec<usize> {
    let mut entries = vec![0];
    for member in &region.blocks {
        let back = exits(&member.block).filter(|pc| *pc <= member.block.key.pc);
        for index in back.filter_map(|pc| region.block_at(pc)) {
            if !entries.contains(&index) && entries.len() < ENTRIES {
                entries.push(index);
            }
        }
    }
    entries
}

/// Whether a block can be in a region: helpers may change what other blocks depend on.
fn fits(block: &Block) -> bool {
    !block.is_stale() && !block.uops.iter().any(|uop| matches!(uop.op, Op::Call | Op::FenceCode))
}

/// Where a block goes by constant exits.
fn exits(block: &Block) -> impl Iterator<Item = u64> {
    block.uops.iter().filter(|uop| uop.op == Op::Exit).map(crate::ir::Uop::wide)
}

/// Where a block has gone by computed exits.
fn seen(block: &Block) -> Vec<u64> {
    block.unit().and_then(|unit| unit.seen).map(crate::emit::Seen::addresses).unwrap_or_default()
}

/// Whether there is a way from a block of the region to itself. All are reached from the first one.
fn comes_back(region: &Region) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Visit {
        Not,
        Open,
        Done,
    }
    let successors = |index: usize| -> Vec<usize> {
        let member = &region.blocks[index];
        let constant = exits(&member.block).filter_map(|pc| region.block_at(pc));
        constant.chain(member.computed.iter().copied()).collect()
    };
    let mut visits = vec![Visit::Not; region.blocks.len()];
    let mut stack = vec![(0, successors(0))];
    visits[0] = Visit::Open;
    while let Some((index, rest)) = stack.last_mut() {
        match rest.pop() {
            Some(next) if visits[next] == Visit::Open => return true,
            Some(next) if visits[next] == Visit::Not => {
                visits[next] = Visit::Open;
                stack.push((next, successors(next)));
            }
            Some(_) => {}
            None => {
                visits[*index] = Visit::Done;
                stack.pop();
            }
        }
    }
    false
}
