//! Running a block.

use super::{alu, float};
use crate::env::Env;
use crate::guest::{CpuState, Event, Guest};
use crate::ir::{Block, FloatOp, Op, Shape, Slot, Uop};
use crate::memory::{Fault, Memory};

/// How a block was left. The program counter is up to date in all cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// At its end: the program counter is that of the next instruction.
    Next,
    /// With an event. The program counter is that of the instruction that raised it.
    Event(Event),
    /// With a fault, and the program counter at the instruction, which had no effect.
    Fault(Fault),
}

/// Runs `block` to its end.
pub fn run<G: Guest>(cpu: &mut G::Cpu, memory: &impl Memory, block: &Block) -> Leave {
    let mut at = 0;
    loop {
        // The verifier lets no block pass whose paths do not all leave it.
        let Some(uop) = block.uops.get(at) else { return Leave::Next };
        match step::<G, _>(uop, cpu, memory) {
            Ok(Step::Next) => at += 1,
            Ok(Step::Branch) => at = uop.target().unwrap_or(at + 1),
            Ok(Step::Leave(pc)) => {
                cpu.env_mut().set_word(G::PC, pc);
                return Leave::Next;
            }
            Err(leave) => {
                if let Some(mark) = block.mark_of(at) {
                    cpu.env_mut().set_word(G::PC, block.pc_of(mark));
                    G::restore(cpu, mark);
                }
                return leave;
            }
        }
    }
}

/// Does one operation that neither branches nor leaves.
#[cfg(target_arch = "x86_64")]
pub(crate) fn step_one<G: Guest, M: Memory>(
    uop: &Uop,
    cpu: &mut G::Cpu,
    memory: &M,
) -> Result<(), Leave> {
    step::<G, M>(uop, cpu, memory).map(|_| ())
}

enum Step {
    Next,
    Branch,
    Leave(u64),
}

impl From<Fault> for Leave {
    fn from(fault: Fault) -> Leave {
        Leave::Fault(fault)
    }
}

#[inline]
fn step<G: Guest, M: Memory>(uop: &Uop, cpu: &mut G::Cpu, memory: &M) -> Result<Step, Leave> {
    let env = cpu.env_mut();
    match uop.op.shape() {
        Shape::Const => env.set_word(uop.d, uop.wide()),
        Shape::Unary => {
            let value = alu::unary(uop.op, uop.ty, env.word(uop.a));
            env.set_word(uop.d, value.unwrap_or_default());
        }
        Shape::Binary => {
            let value = alu::binary(uop.op, uop.ty, env.word(uop.a), operand(env, uop));
            env.set_word(uop.d, value.unwrap_or_default());
        }
        Shape::Select => {
            let from = if env.word(uop.a) == 0 { uop.third() } else { uop.b };
            env.set_word(uop.d, env.word(from));
        }
        Shape::Load => {
            let (op, offset) = uop.mem_op();
            let address = op.address(env.word(uop.a), offset.cast_signed());
            env.set_word(uop.d, memory.load(address, op)?);
        }
        Shape::Store => {
            let (op, offset) = uop.mem_op();
            let address = op.address(env.word(uop.a), offset.cast_signed());
            memory.store(address, env.word(uop.b), op)?;
        }
        Shape::Rmw => {
            let (op, _) = uop.mem_op();
            let address = op.address(env.word(uop.a), 0);
            let old = memory.rmw(address, env.word(uop.b), op.rmw(), op)?;
            env.set_word(uop.d, old);
        }
        Shape::Cas => {
            let (op, new) = uop.mem_op();
            let new = env.word(Slot::from_raw(new));
            let old = memory.cas(op.address(env.word(uop.a), 0), env.word(uop.b), new, op)?;
            env.set_word(uop.d, old);
        }
        Shape::CasPair => {
            let (op, new) = uop.mem_op();
            let pair = |low: Slot| [env.word(low), env.word(low.next())];
            let address = op.address(env.word(uop.a), 0);
            let [low, high] =
                memory.cas_pair(address, pair(uop.b), pair(Slot::from_raw(new)), op)?;
            env.set_word(uop.d, low);
            env.set_word(uop.d.next(), high);
        }
        Shape::Fence if uop.op == Op::FenceCode => memory.sync_code(),
        Shape::Fence => std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst),
        Shape::FloatUnary | Shape::FloatBinary => {
            let operands = [env.word(uop.a), env.word(uop.b), 0];
            let how = FloatOp::unpack(uop.imm);
            let value = float::eval(uop.op, uop.ty, operands, how, &mut env.float);
            env.set_word(uop.d, value);
        }
        Shape::FloatFused => {
            let operands = [env.word(uop.a), env.word(uop.b), env.word(uop.third())];
            let how = FloatOp::unpack(uop.imm);
            let value = float::eval(uop.op, uop.ty, operands, how, &mut env.float);
            env.set_word(uop.d, value);
        }
        Shape::Branch => {
            let condition = uop.op.condition().unwrap_or(Op::SetEq);
            let holds = alu::binary(condition, uop.ty, env.word(uop.a), operand(env, uop));
            return Ok(if holds == Some(1) { Step::Branch } else { Step::Next });
        }
        Shape::Jump => return Ok(Step::Branch),
        Shape::Exit => return Ok(Step::Leave(uop.wide())),
        Shape::ExitTo => return Ok(Step::Leave(env.word(uop.a))),
        Shape::Raise => {
            let event = usize::try_from(uop.imm).ok().and_then(|index| Event::ALL.get(index));
            return Err(Leave::Event(event.copied().unwrap_or(Event::Illegal)));
        }
        Shape::Call => {
            let (a, b) = (env.word(uop.a), env.word(uop.b));
            let helper = usize::try_from(uop.imm).ok().and_then(|index| G::HELPERS.get(index));
            let Some(helper) = helper else { return Err(Leave::Event(Event::Illegal)) };
            let value = (helper.call)(cpu, a, b).map_err(Leave::Event)?;
            cpu.env_mut().set_word(uop.d, value);
        }
    }
    Ok(Step::Next)
}

/// The second operand, which may be the immediate.
#[inline]
fn operand(env: &Env, uop: &Uop) -> u64 {
    if uop.b == Slot::IMM { i64::from(uop.imm).cast_unsigned() } else { env.word(uop.b) }
}
