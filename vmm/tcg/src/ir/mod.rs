//! The intermediate representation: blocks of micro-operations on the words of an [`Env`](crate::Env).
//!
//! It is no SSA form: a block has 5 to 20 instructions, and the optimiser walks it once in each direction. A
//! micro-operation has 12 bytes, and the interpreter runs it as it stands.

mod block;
mod lift;
mod memop;
mod op;
mod print;
mod uop;
mod verify;

pub use block::{Block, BlockKey, InsnMark, LiftOptions, PAGE_SIZE, page_of};
pub use lift::{Label, Lift, Operand};
pub use memop::{MemOp, Order, Rmw, Size};
pub use op::{Op, Shape};
pub use print::listing;
pub use uop::{FloatOp, IntKind, Slot, Ty, Uop};
pub use verify::{Invalid, verify};
