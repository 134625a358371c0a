//! From micro-operations to instructions.
//!
//! Frequent operations have instructions here; all others are handed to the interpreter one by one ([`Record`]), as
//! are memory accesses that need care. `rbx` points to the CPU's words, `rbp` to the [`Context`], `r14` to guest
//! memory, `r15` to the flags of its pages; `rax`, `rcx` and `rdx` are free within an operation.

// Fields of micro-operations are narrow on purpose.
#![allow(clippy::cast_possible_truncation)]

use super::asm::{
    Alu, Code, Cond, Datum, Label, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, Reg, Shift, Width,
};
use super::context::{Context, JUMP_MASK, Jump, Record};
use super::regs::{Lives, Registers, place};
use crate::env::WORDS;
use crate::ir::{Block, MemOp, Op, Order, PAGE_SIZE, Shape, Slot, Ty, Uop};
use crate::softmmu::{FAST_WRITE, Protection};

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
    /// The word that closes the unit.
    pub(super) gate: Datum,
}

/// The first word of the data.
const GATE: Datum = Datum(0);

/// A place that is branched to.
#[derive(Clone)]
struct Target {
    label: Label,
    branches: u32,
    /// The words in registers where one of the branches is. They are in memory, too.
    registers: Option<Registers>,
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
}

pub(super) struct Lowering<'a> {
    block: &'a Block,
    pub(super) style: Style,
    pub(super) code: Code,
    data: Vec<u8>,
    pub(super) registers: Registers,
    lives: Lives,
    /// The labels of operations that are branched to and have not come yet.
    labels: Vec<Option<Target>>,
    /// Where the block goes on that goes to itself, and the words in registers there.
    round: Option<(Label, Registers)>,
    cells: Vec<(Datum, Label)>,
    pub(super) slow: Vec<Slow>,
    /// Where the CPU goes back if it is kicked, and with which program counter.
    kicked: Vec<(Label, u64)>,
    leave: Label,
    chained: bool,
}

/// Makes the code of a block.
pub(super) fn lower(block: &Block, style: Style) -> Draft {
    let mut code = Code::default();
    let leave = code.label();
    // A helper may change what the next block depends on: it is looked for anew.
    let calls = block.uops.iter().any(|uop| uop.op == Op::Call);
    let mut lowering = Lowering {
        block,
        style,
        code,
        data: vec![0; 8],
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
    let out = lowering.code.label();
    lowering.gate(out);
    lowering.body();
    if let Some((head, registers)) = lowering.round.clone() {
        // Once more, with words in the registers that they are in at the end: a loop keeps them there.
        lowering.code.bind(head);
        lowering.registers = registers;
        lowering.kick(out);
        lowering.gate(out);
        lowering.renew_labels();
        lowering.body();
    }
    lowering.code.bind(out);
    lowering.leave_to(block.key.pc);
    lowering.epilogue();
    let Lowering { code, data, cells, .. } = lowering;
    Draft { code, data, cells, gate: GATE }
}

fn width(ty: Ty) -> Width {
    if ty == Ty::I32 { Width::W32 } else { Width::W64 }
}

fn condition(op: Op) -> Cond {
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
    /// Goes to `out` if the unit is closed.
    fn gate(&mut self, out: Label) {
        self.code.compare_datum_zero(GATE);
        self.code.branch(Cond::NotEqual, out);
    }

    /// Goes to `out` if the CPU is kicked. Every loop comes by here: back edges and computed ones do.
    fn kick(&mut self, out: Label) {
        self.code.load(RCX, RBP, Context::KICK);
        self.code.compare_byte_zero(RCX);
        self.code.branch(Cond::NotEqual, out);
    }

    fn body(&mut self) {
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

    /// Does operation `at` together with the next one, which extends its result of 32 bits, if both are less work
    /// than one after the other.
    fn extended(&mut self, at: usize) -> bool {
        let [uop, next] = match self.block.uops.get(at..at + 2) {
            Some([uop, next]) => [*uop, *next],
            _ => return false,
        };
        let extends = next.op == Op::Sext
            && next.ty == Ty::I32
            && (next.d, next.a) == (uop.d, uop.d)
            && uop.ty == Ty::I32
            && uop.op.shape() == Shape::Binary
            && uop.b == Slot::IMM
            && self.labels[at].is_none()
            && self.labels[at + 1].is_none();
        if !extends {
            return false;
        }
        let amount = uop.imm.rem_euclid(32) as u8;
        match uop.op {
            Op::Add | Op::Sub | Op::Or | Op::Xor if uop.imm == 0 => {
                let a = self.registers.read(&mut self.code, uop.a);
                let d = self.registers.write(&mut self.code, uop.d);
                self.code.extend(d, a, 32, true);
            }
            // The result is not negative.
            Op::Shr if amount != 0 => return self.binary(&uop),
            Op::And if uop.imm >= 0 => return self.binary(&uop),
            Op::Sar => {
                let a = self.registers.read(&mut self.code, uop.a);
                let d = self.registers.write(&mut self.code, uop.d);
                self.code.extend(d, a, 32, true);
                self.code.shift_imm(Shift::Sar, Width::W64, d, amount);
            }
            _ => return false,
        }
        true
    }

    /// Makes labels for operations that are branched to.
    fn renew_labels(&mut self) {
        self.labels = vec![None; self.block.uops.len() + 1];
        for uop in &self.block.uops {
            if let Some(target) = uop.target() {
                let code = &mut self.code;
                let target = self.labels[target].get_or_insert_with(|| Target::new(code.label()));
                target.branches += 1;
            }
        }
    }

    /// Goes back with the program counter at `pc`.
    fn leave_to(&mut self, pc: u64) {
        self.code.constant(RAX, pc);
        self.code.store(RAX, RBX, place(self.style.pc));
        self.code.store_zero(RBP, Context::EXIT);
        self.code.constant(RAX, 0);
        self.code.jump_mem(RBP, Context::LEAVE);
    }

    fn epilogue(&mut self) {
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
    fn check_zero(&mut self, accept: Label, entry: Label, width: Width, zero: Zero, from: Ty) {
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
    fn call_interpreter(&mut self, at: usize) {
        let uop = self.block.uops[at];
        let mark = self.block.mark_of(at);
        let pc = mark.map_or(self.block.key.pc, |mark| self.block.pc_of(mark));
        let record = Record::new(uop, pc, mark.unwrap_or_default());
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let datum = Datum(self.data.len() as u32);
        self.data.extend(record.to_bytes());
        self.code.mov(Width::W64, RDI, RBP);
        self.code.address_of(RSI, datum);
        self.code.call_mem(RBP, Context::STEP);
        self.code.test(Width::W32, RAX, RAX);
        self.code.branch(Cond::NotEqual, self.leave);
    }

    fn uop(&mut self, at: usize) {
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
            Shape::Binary => self.binary(&uop),
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

    fn interpret(&mut self, at: usize, uop: &Uop) {
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

    fn unary(&mut self, uop: &Uop) -> bool {
        let (code, registers) = (&mut self.code, &mut self.registers);
        match uop.op {
            Op::Mov => registers.copy(code, uop.d, uop.a),
            Op::Sext | Op::Zext => {
                let a = registers.read(code, uop.a);
                let d = registers.write(code, uop.d);
                code.extend(d, a, uop.ty.bits(), uop.op == Op::Sext);
            }
            Op::Not => {
                registers.copy(code, uop.d, uop.a);
                let d = registers.write(code, uop.d);
                code.not(d);
            }
            Op::Bswap => {
                registers.copy(code, uop.d, uop.a);
                let d = registers.write(code, uop.d);
                code.bswap(width(uop.ty), d);
            }
            Op::BoxNan => {
                registers.copy(code, uop.d, uop.a);
                let d = registers.write(code, uop.d);
                code.constant(RAX, !uop.ty.mask());
                code.alu(Alu::Or, Width::W64, d, RAX);
            }
            Op::UnboxNan if uop.ty == Ty::F32 => {
                const DEFAULT_NAN: u64 = 0x7fc0_0000;
                let a = registers.read(code, uop.a);
                code.constant(RDX, DEFAULT_NAN);
                code.mov(Width::W64, RCX, a);
                code.shift_imm(Shift::Shr, Width::W64, RCX, 32);
                code.mov(Width::W32, RAX, a);
                code.alu_imm(Alu::Cmp, Width::W32, RCX, -1);
                code.cmov(Cond::NotEqual, Width::W32, RAX, RDX);
                let d = registers.write(code, uop.d);
                code.mov(Width::W64, d, RAX);
            }
            _ => return false,
        }
        true
    }

    /// Puts the first operand into the result's register, or into `rax` if the second one is there.
    fn two_address(&mut self, uop: &Uop, operate: impl FnOnce(&mut Code, Reg)) {
        let width = width(uop.ty);
        let a = self.registers.read(&mut self.code, uop.a);
        if uop.d == uop.b && uop.d != uop.a {
            self.code.mov(width, RAX, a);
            operate(&mut self.code, RAX);
            let d = self.registers.write(&mut self.code, uop.d);
            self.code.mov(Width::W64, d, RAX);
        } else {
            let d = self.registers.write(&mut self.code, uop.d);
            if d != a {
                self.code.mov(width, d, a);
            }
            operate(&mut self.code, d);
        }
    }

    fn binary(&mut self, uop: &Uop) -> bool {
        let width = width(uop.ty);
        let imm = (uop.b == Slot::IMM).then_some(uop.imm);
        let shift = match uop.op {
            Op::Shl => Some(Shift::Shl),
            Op::Shr => Some(Shift::Shr),
            Op::Sar => Some(Shift::Sar),
            Op::Rotl => Some(Shift::Rol),
            Op::Rotr => Some(Shift::Ror),
            _ => None,
        };
        if let Some(shift) = shift {
            let bits = if width == Width::W32 { 32 } else { 64 };
            if let Some(imm) = imm {
                let amount = imm.rem_euclid(bits) as u8;
                self.two_address(uop, |code, d| {
                    code.shift_imm(shift, width, d, amount);
                    if width == Width::W32 && amount == 0 {
                        // Nothing is shifted, and the upper half may stay as it is.
                        code.mov(width, d, d);
                    }
                });
            } else {
                let b = self.registers.read(&mut self.code, uop.b);
                self.code.mov(Width::W64, RCX, b);
                self.two_address(uop, |code, d| {
                    code.shift_cl(shift, width, d);
                    if width == Width::W32 {
                        code.mov(width, d, d);
                    }
                });
            }
            return true;
        }
        // The second operand in a register; immediates go to rcx where an instruction has none.
        let alu = match uop.op {
            Op::Add => Some(Alu::Add),
            Op::Sub => Some(Alu::Sub),
            Op::And => Some(Alu::And),
            Op::Or => Some(Alu::Or),
            Op::Xor => Some(Alu::Xor),
            _ => None,
        };
        if let (Op::Add, Width::W64, Some(imm)) = (uop.op, width, imm) {
            let a = self.registers.read(&mut self.code, uop.a);
            let d = self.registers.write(&mut self.code, uop.d);
            if d == a {
                self.code.alu_imm(Alu::Add, width, d, imm);
            } else {
                self.code.lea(d, a, imm);
            }
            return true;
        }
        if let (Some(alu), Some(imm)) = (alu, imm) {
            self.two_address(uop, |code, d| code.alu_imm(alu, width, d, imm));
            return true;
        }
        if !matches!(
            uop.op,
            Op::Add
                | Op::Sub
                | Op::And
                | Op::Or
                | Op::Xor
                | Op::AndNot
                | Op::Mul
                | Op::MulHiU
                | Op::MulHiS
                | Op::MinS
                | Op::MinU
                | Op::MaxS
                | Op::MaxU
                | Op::SetEq
                | Op::SetNe
                | Op::SetLt
                | Op::SetGe
                | Op::SetLtU
                | Op::SetGeU
        ) {
            return false;
        }
        let b = match imm {
            Some(imm) => {
                self.code.constant(RCX, i64::from(imm).cast_unsigned());
                RCX
            }
            None => self.registers.read(&mut self.code, uop.b),
        };
        if let Some(alu) = alu {
            self.two_address(uop, |code, d| code.alu(alu, width, d, b));
            return true;
        }
        if uop.op == Op::Mul {
            self.two_address(uop, |code, d| code.mul(width, d, b));
            return true;
        }
        let a = self.registers.read(&mut self.code, uop.a);
        let code = &mut self.code;
        match uop.op {
            Op::AndNot => {
                code.mov(width, RAX, b);
                code.not(RAX);
                code.alu(Alu::And, width, RAX, a);
            }
            Op::MulHiU | Op::MulHiS => {
                code.mov(width, RAX, a);
                code.mul_wide(width, b, uop.op == Op::MulHiS);
                code.mov(width, RAX, RDX);
            }
            Op::MinS | Op::MinU | Op::MaxS | Op::MaxU => {
                let other = match uop.op {
                    Op::MinS => Cond::Greater,
                    Op::MinU => Cond::Above,
                    Op::MaxS => Cond::Less,
                    _ => Cond::Below,
                };
                code.mov(width, RAX, a);
                code.alu(Alu::Cmp, width, RAX, b);
                code.cmov(other, width, RAX, b);
            }
            _ => {
                code.alu(Alu::Cmp, width, a, b);
                code.set_rax(condition(uop.op));
            }
        }
        let d = self.registers.write(code, uop.d);
        code.mov(Width::W64, d, RAX);
        true
    }

    fn select(&mut self, uop: &Uop) -> bool {
        let (code, registers) = (&mut self.code, &mut self.registers);
        let condition = registers.read(code, uop.a);
        let yes = registers.read(code, uop.b);
        let no = registers.read(code, uop.third());
        code.mov(Width::W64, RAX, no);
        code.test(Width::W64, condition, condition);
        code.cmov(Cond::NotEqual, Width::W64, RAX, yes);
        let d = registers.write(code, uop.d);
        code.mov(Width::W64, d, RAX);
        true
    }

    /// Puts the address of an access into `rax`; goes to `slow` unless it is aligned, in the address space, and in a page
    /// with one of `flags`.
    fn address(&mut self, uop: &Uop, op: MemOp, offset: u16, flags: u8, slow: Label) {
        let a = self.registers.read(&mut self.code, uop.a);
        let code = &mut self.code;
        code.lea(RAX, a, offset.cast_signed().into());
        if op.is_narrow() {
            code.mov(Width::W32, RAX, RAX);
        }
        let size = op.size() as u8;
        if size == 0 {
            code.alu_mem(Alu::Cmp, RAX, RBP, Context::limit(0));
        } else {
            // What is not aligned has bits that become the highest ones, and is above every limit.
            code.mov(Width::W64, RCX, RAX);
            code.shift_imm(Shift::Ror, Width::W64, RCX, size);
            code.alu_mem(Alu::Cmp, RCX, RBP, Context::limit(size.into()));
        }
        code.branch(Cond::AboveEqual, slow);
        code.mov(Width::W64, RCX, RAX);
        code.shift_imm(Shift::Shr, Width::W64, RCX, PAGE_SIZE.trailing_zeros() as u8);
        code.test_byte(R15, RCX, flags);
        code.branch(Cond::Equal, slow);
    }

    fn is_direct(&self, op: MemOp) -> bool {
        self.style.direct && !op.is_big_endian()
    }

    fn load(&mut self, at: usize, uop: &Uop) -> bool {
        let (op, offset) = uop.mem_op();
        if !self.is_direct(op) {
            return false;
        }
        let (slow, back) = (self.code.label(), self.code.label());
        // Loads of x86-64 are ordered as any guest asks for.
        self.address(uop, op, offset, Protection::READ.bits(), slow);
        let before = self.registers.clone();
        let d = self.registers.write(&mut self.code, uop.d);
        self.code.load_sized(d, R14, RAX, 8 * op.size().bytes(), op.is_signed());
        self.code.bind(back);
        let after = self.registers.clone();
        let written = Some(uop.d);
        self.slow.push(Slow { entry: slow, back, before, after, at, written, zero: None });
        true
    }

    fn store(&mut self, at: usize, uop: &Uop) -> bool {
        let (op, offset) = uop.mem_op();
        // A store that others see before a later load needs a fence, which the interpreter has.
        if !self.is_direct(op) || op.order() == Order::Sequential {
            return false;
        }
        let (slow, back) = (self.code.label(), self.code.label());
        let value = self.registers.read(&mut self.code, uop.b);
        self.address(uop, op, offset, FAST_WRITE, slow);
        self.code.store_sized(value, R14, RAX, 8 * op.size().bytes());
        self.code.bind(back);
        let before = self.registers.clone();
        let after = before.clone();
        self.slow.push(Slow { entry: slow, back, before, after, at, written: None, zero: None });
        true
    }

    fn branch(&mut self, uop: &Uop) -> bool {
        let width = width(uop.ty);
        let a = self.registers.read(&mut self.code, uop.a);
        if uop.b == Slot::IMM {
            self.registers.flush(&mut self.code);
            self.code.alu_imm(Alu::Cmp, width, a, uop.imm);
        } else {
            let b = self.registers.read(&mut self.code, uop.b);
            self.registers.flush(&mut self.code);
            self.code.alu(Alu::Cmp, width, a, b);
        }
        if let Some(target) = uop.target().and_then(|target| self.labels[target].as_mut()) {
            self.code.branch(condition(uop.op), target.label);
            let mut registers = self.registers.clone();
            registers.unlock();
            target.registers = Some(registers);
        }
        true
    }

    fn jump(&mut self, uop: &Uop) {
        if let Some(target) = uop.target().and_then(|target| self.labels[target].as_ref()) {
            self.code.jump(target.label);
        }
    }

    /// Goes to the block at `pc`: by a cell that is linked to it once it is known.
    fn exit(&mut self, pc: u64) {
        self.registers.flush(&mut self.code);
        if !self.chained {
            self.leave_to(pc);
            return;
        }
        if pc == self.block.key.pc {
            self.go_round();
            return;
        }
        if pc < self.block.key.pc {
            let kicked = self.code.label();
            self.kick(kicked);
            self.kicked.push((kicked, pc));
        }
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let cell = Datum(self.data.len() as u32);
        self.data.extend([0; 8]);
        let unlinked = self.code.label();
        self.code.jump_datum(cell);
        self.code.bind(unlinked);
        self.code.constant(RAX, pc);
        self.code.store(RAX, RBX, place(self.style.pc));
        self.code.address_of(RAX, cell);
        self.code.store(RAX, RBP, Context::EXIT);
        self.code.constant(RAX, 0);
        self.code.jump_mem(RBP, Context::LEAVE);
        self.cells.push((cell, unlinked));
    }

    /// Goes to the beginning of this block, with the words in registers that are expected there. All are in memory.
    fn go_round(&mut self) {
        self.registers.unlock();
        if self.round.is_none() {
            self.round = Some((self.code.label(), self.registers.clone()));
        }
        if let Some((head, registers)) = &self.round {
            registers.load_missing(&mut self.code, &self.registers);
            self.code.jump(*head);
        }
    }

    /// Goes to the block at the address in `a`, if this CPU knows where that is.
    fn exit_to(&mut self, a: Slot) {
        let from = self.registers.read(&mut self.code, a);
        self.code.mov(Width::W64, RAX, from);
        self.registers.flush(&mut self.code);
        let code = &mut self.code;
        if self.chained {
            let miss = code.label();
            code.load(RCX, RBP, Context::KICK);
            code.compare_byte_zero(RCX);
            code.branch(Cond::NotEqual, miss);
            code.mov(Width::W64, RCX, RAX);
            code.shift_imm(Shift::Shr, Width::W64, RCX, 1);
            code.alu_imm(Alu::And, Width::W32, RCX, JUMP_MASK);
            code.shift_imm(Shift::Shl, Width::W32, RCX, Jump::SIZE.trailing_zeros() as u8);
            code.alu(Alu::Add, Width::W64, RCX, RBP);
            code.alu_mem(Alu::Cmp, RAX, RCX, Context::JUMPS);
            code.branch(Cond::NotEqual, miss);
            code.jump_mem(RCX, Context::JUMPS + Jump::ENTRY);
            code.bind(miss);
        }
        code.store(RAX, RBX, place(self.style.pc));
        code.store_zero(RBP, Context::EXIT);
        code.constant(RAX, 0);
        code.jump_mem(RBP, Context::LEAVE);
    }
}

// Words are reached by displacements of 32 bits.
const _: () = assert!(WORDS < 1 << 16);
