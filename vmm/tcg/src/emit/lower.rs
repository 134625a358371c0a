//! From micro-operations to instructions.
//!
//! Frequent operations have instructions here; all others are handed to the interpreter one by one ([`Record`]), as
//! are memory accesses that need care. `rbx` points to the CPU's words, `rbp` to the [`Context`], `r14` to guest
//! memory, `r15` to the flags of its pages; `rax`, `rcx` and `rdx` are free within an operation.

// Fields of micro-operations are narrow on purpose.
#![allow(clippy::cast_possible_truncation)]

use super::arena::Seen;
use super::asm::{Alu, Code, Cond, Datum, Label, RAX, RBP, RCX, RDI, RSI, Reg, Width};
use super::context::{Context, Record};
use super::regs::{Lives, Registers};
use crate::env::WORDS;
use crate::ir::{Block, Op, Shape, Slot, Ty, Uop};

/// When a zero is a result without flags.
#[derive(Clone, Copy, Debug)]
pub(super) enum Zero {
    Never,
    Exact,
    /// If one of these words, of the operation's operands, is zero but for its sign.
    Operand([Option<Reg>; 2]),
}

/// What is done when an instruction cannot do an operation: the interpreter does it, out of line.
pub(super) struct Slow {
    pub(super) entry: Label,
    pub(super) back: Label,
    /// The words in registers before and after the operation.
    pub(super) before: Registers,
    pub(super) after: Registers,
    pub(super) at: usize,
    pub(super) written: Option<Slot>,
    /// A place from where `rax` is looked at: a zero may go on at another place. The width is that of the result.
    pub(super) zero: Option<(Label, Label, Width, Zero)>,
}

/// A block's code and data before they have a place.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) code: Code,
    pub(super) data: Vec<u8>,
    /// Cells of exits, which hold the address of the code behind them until they are linked.
    pub(super) cells: Vec<(Datum, Label)>,
}

/// A draft, and the places in it that others use.
pub(super) struct Lowered {
    pub(super) draft: Draft,
    /// Where the block begins behind all checks.
    pub(super) body: Label,
    /// Where the unit leaves without having done anything.
    pub(super) out: Label,
    /// Whether addresses are noted at [`SEEN`].
    pub(super) computed: bool,
}

/// The word that closes the unit.
pub(super) const GATE: Datum = Datum(0);
/// The word that counts entries.
pub(super) const HEAT: Datum = Datum(4);
/// Where the unit goes while its gate is closed.
pub(super) const FORWARD: Datum = Datum(8);
/// The addresses that a block with a computed exit has gone to.
pub(super) const SEEN: Datum = Datum(16);

/// A place that is branched to.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) label: Label,
    pub(super) branches: u32,
    /// The words in registers where one of the branches is. They are in memory, too.
    pub(super) registers: Option<Registers>,
}

impl Target {
    fn new(label: Label) -> Target {
        Target { label, branches: 0, registers: None }
    }
}

/// How code is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) pc: Slot,
    pub(super) globals: usize,
    /// Whether memory is reached without the interpreter where that is possible.
    pub(super) direct: bool,
    /// Whether floating-point operations are those of the host, where flags allow that.
    pub(super) plain_float: bool,
    /// Whether the host has fused ones.
    pub(super) fma: bool,
    /// Whether units go from one to the other without coming back.
    pub(super) chained: bool,
    /// Whether they note where computed exits go and count how often they run, and how often until they ask for
    /// attention.
    pub(super) counted: Option<u32>,
}

pub(super) struct Lowering<'a> {
    pub(super) block: &'a Block,
    pub(super) style: Style,
    pub(super) code: Code,
    pub(super) data: Vec<u8>,
    pub(super) registers: Registers,
    pub(super) lives: Lives,
    /// The labels of operations that are branched to and have not come yet.
    pub(super) labels: Vec<Option<Target>>,
    /// Where the block goes on that goes to itself, and the words in registers there.
    pub(super) round: Option<(Label, Registers)>,
    pub(super) cells: Vec<(Datum, Label)>,
    pub(super) slow: Vec<Slow>,
    /// Where the CPU goes back if it is kicked, and with which program counter.
    pub(super) kicked: Vec<(Label, u64)>,
    pub(super) leave: Label,
    pub(super) chained: bool,
}

/// Makes the code of a block.
pub(super) fn lower(block: &Block, style: Style) -> Lowered {
    let mut code = Code::default();
    let leave = code.label();
    // A helper may change what the next block depends on: it is looked for anew.
    let calls = block.uops.iter().any(|uop| uop.op == Op::Call);
    let computed = block.uops.iter().any(|uop| uop.op == Op::ExitTo);
    let mut data = (u64::from(style.counted.unwrap_or(0)) << 32).to_le_bytes().to_vec();
    let words = 1 + if computed { Seen::LEN } else { 0 };
    data.resize(data.len() + 8 * words, 0);
    let mut lowering = Lowering {
        block,
        style,
        code,
        data,
        registers: Registers::new(),
        lives: Lives::new(&block.uops, style.globals),
        labels: Vec::new(),
        round: None,
        cells: Vec::new(),
        slow: Vec::new(),
        kicked: Vec::new(),
        leave,
        chained: style.chained && !calls,
    };
    lowering.renew_labels();
    let (shut, out, body) = (lowering.code.label(), lowering.code.label(), lowering.code.label());
    lowering.gate(shut, out);
    lowering.code.bind(body);
    if !style.direct {
        lowering.code.count_up(RBP, Context::BLOCKS);
    }
    lowering.body();
    if let Some((head, registers)) = lowering.round.clone() {
        // Once more, with words in the registers that they are in at the end: a loop keeps them there.
        lowering.code.bind(head);
        lowering.registers = registers;
        lowering.kick(out);
        lowering.gate(shut, out);
        lowering.renew_labels();
        lowering.body();
    }
    lowering.code.bind(shut);
    lowering.code.jump_datum(FORWARD);
    lowering.cells.push((FORWARD, out));
    lowering.code.bind(out);
    lowering.leave_to(block.key.pc);
    lowering.epilogue();
    let Lowering { code, data, cells, .. } = lowering;
    Lowered { draft: Draft { code, data, cells }, body, out, computed }
}

pub(super) fn width(ty: Ty) -> Width {
    if ty == Ty::I32 { Width::W32 } else { Width::W64 }
}

pub(super) fn condition(op: Op) -> Cond {
    match op {
        Op::SetNe | Op::BrNe => Cond::NotEqual,
        Op::SetLt | Op::BrLt => Cond::Less,
        Op::SetGe | Op::BrGe => Cond::GreaterEqual,
        Op::SetLtU | Op::BrLtU => Cond::Below,
        Op::SetGeU | Op::BrGeU => Cond::AboveEqual,
        _ => Cond::Equal,
    }
}

impl Lowering<'_> {
    pub(super) fn body(&mut self) {
        let mut at = 0;
        while at < self.block.uops.len() {
            if self.extended(at) {
                at += 1;
                self.registers.end(&self.lives, at);
            } else {
                self.uop(at);
            }
            at += 1;
        }
    }

    /// Makes labels for operations that are branched to.
    pub(super) fn renew_labels(&mut self) {
        self.labels = vec![None; self.block.uops.len() + 1];
        for uop in &self.block.uops {
            if let Some(target) = uop.target() {
                let code = &mut self.code;
                let target = self.labels[target].get_or_insert_with(|| Target::new(code.label()));
                target.branches += 1;
            }
        }
    }

    pub(super) fn epilogue(&mut self) {
        for slow in std::mem::take(&mut self.slow) {
            let Slow { entry, back, before, after, at, written, zero } = slow;
            if let Some((check, accept, width, zero)) = zero {
                self.code.bind(check);
                self.check_zero(accept, entry, width, zero, self.block.uops[at].ty);
            }
            self.code.bind(entry);
            before.spill(&mut self.code);
            self.call_interpreter(at);
            after.reload(&mut self.code);
            if let Some(slot) = written {
                after.reload_word(&mut self.code, slot);
            }
            self.code.jump(back);
        }
        for (label, pc) in std::mem::take(&mut self.kicked) {
            self.code.bind(label);
            self.leave_to(pc);
        }
        self.code.bind(self.leave);
        self.code.jump_mem(RBP, Context::LEAVE);
    }

    /// Goes to `accept` if `rax` is a zero that can be taken, else to `entry`.
    pub(super) fn check_zero(
        &mut self,
        accept: Label,
        entry: Label,
        width: Width,
        zero: Zero,
        from: Ty,
    ) {
        let code = &mut self.code;
        let Zero::Operand(words) = zero else {
            if let Zero::Exact = zero {
                code.mov(width, RCX, RAX);
                code.alu(Alu::Add, width, RCX, RCX);
                code.branch(Cond::Equal, accept);
            }
            return;
        };
        code.mov(width, RCX, RAX);
        code.alu(Alu::Add, width, RCX, RCX);
        code.branch(Cond::NotEqual, entry);
        let width = if from == Ty::F64 { Width::W64 } else { Width::W32 };
        for word in words.into_iter().flatten() {
            code.mov(width, RCX, word);
            code.alu(Alu::Add, width, RCX, RCX);
            code.branch(Cond::Equal, accept);
        }
    }

    /// Lets the interpreter do operation `at`. All words are in memory.
    pub(super) fn call_interpreter(&mut self, at: usize) {
        let record = Record::of(self.block, at);
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let datum = Datum(self.data.len() as u32);
        self.data.extend(record.to_bytes());
        self.code.mov(Width::W64, RDI, RBP);
        self.code.address_of(RSI, datum);
        self.code.call_mem(RBP, Context::STEP);
        self.code.test(Width::W32, RAX, RAX);
        self.code.branch(Cond::NotEqual, self.leave);
    }

    pub(super) fn uop(&mut self, at: usize) {
        if let Some(target) = self.labels[at].take() {
            let falls_in = at > 0 && !self.block.uops[at - 1].op.ends();
            if falls_in {
                self.registers.flush(&mut self.code);
            }
            self.code.bind(target.label);
            // Where one way leads, words are still where they were.
            match target.registers {
                Some(registers) if !falls_in && target.branches == 1 => self.registers = registers,
                _ => self.registers.clear(),
            }
        }
        let uop = self.block.uops[at];
        let done = match uop.op.shape() {
            Shape::Const => {
                let d = self.registers.write(&mut self.code, uop.d);
                self.code.constant(d, uop.wide());
                true
            }
            Shape::Unary => self.unary(&uop),
            Shape::Binary => self.division(at, &uop) || self.binary(&uop),
            Shape::Select => self.select(&uop),
            Shape::Load => self.load(at, &uop),
            Shape::Store => self.store(at, &uop),
            Shape::FloatUnary | Shape::FloatBinary | Shape::FloatFused => self.float(at, &uop),
            Shape::Branch => self.branch(&uop),
            Shape::Jump => {
                self.registers.flush(&mut self.code);
                self.jump(&uop);
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
            _ => false,
        };
        if !done {
            self.interpret(at, &uop);
        }
        self.registers.end(&self.lives, at);
        if uop.op.ends() {
            self.registers.clear();
        }
    }

    pub(super) fn interpret(&mut self, at: usize, uop: &Uop) {
        self.registers.flush(&mut self.code);
        self.call_interpreter(at);
        let mut written = Vec::new();
        uop.writes(|slot| written.push(slot));
        self.registers.after_call(&written);
        if uop.op == Op::Call {
            // It may have changed any global.
            self.registers.clear();
        }
    }
}

// Words are reached by displacements of 32 bits.
const _: () = assert!(WORDS < 1 << 16);
