//! From guest bytes to a block.

use crate::guest::{Event, FetchFault, Flow, Guest};
use crate::ir::{Block, BlockKey, Lift, page_of};
use crate::memory::{Fault, Memory};
use crate::opt::optimise;

/// More micro-operations than an instruction ever has; a block stops before its marks could overflow.
const ENOUGH_UOPS: usize = 4096;

/// Translates the code at `key`, as of `generation` of the cache.
///
/// A block ends at a jump, at the end of its page, at the limit of its options, before a breakpoint, and before an instruction
/// that cannot be read. Only if that is the first one, the fault is returned, or the breakpoint raised.
pub fn translate<G: Guest>(
    memory: &dyn Memory,
    key: BlockKey,
    generation: u64,
    is_breakpoint: impl Fn(u64) -> bool,
) -> Result<Block, Fault> {
    let mut lift = Lift::new(memory, key.pc, key.mode, key.options, G::GLOBALS.len());
    let mut pc = key.pc;
    let end = loop {
        if is_breakpoint(pc) {
            if lift.instructions() == 0 {
                lift.begin(pc);
                lift.raise(Event::Breakpoint);
            } else {
                lift.exit(0, pc);
            }
            break pc;
        }
        lift.begin(pc);
        match G::lift(&mut lift) {
            Ok(Flow::End(len)) => break pc.wrapping_add(len),
            Ok(Flow::Next(len)) => {
                pc = pc.wrapping_add(len);
                let full = lift.instructions() >= usize::from(key.options.instructions)
                    || lift.len() >= ENOUGH_UOPS;
                if full || page_of(pc) != page_of(key.pc) {
                    lift.exit(0, pc);
                    break pc;
                }
            }
            Err(FetchFault(fault)) => {
                lift.take_back();
                if lift.instructions() == 0 {
                    return Err(fault);
                }
                lift.exit(0, pc);
                break pc;
            }
        }
    };
    let (bytes, mut uops, mut marks) = lift.finish(end);
    if key.options.optimise {
        optimise(&mut uops, &mut marks, G::GLOBALS.len());
    }
    let block = Block::new(key, bytes, uops, marks, generation);
    debug_assert_eq!(crate::ir::verify::<G>(&block), Ok(()), "{}", crate::ir::listing::<G>(&block));
    Ok(block)
}
