//! A and Zacas.
//!
//! A reservation is an address and the value found there: SC is a compare-and-swap with that value. It
//! succeeds if the value was changed and changed back meanwhile.

use cairn_tcg::ir::{Order, Rmw, Size};
use cairn_tcg::{MemOp, Op, Slot};

use crate::cpu::{NO_RESERVATION, RESERVED, RESERVED_VALUE, x};
use crate::lift::Lifter;
use crate::lift::decode::ArgsAmo;

impl Lifter<'_, '_> {
    fn atomic_access(&self, size: Size, order: Order) -> MemOp {
        self.mem(size).signed().aligned().ordered(order)
    }

    fn has_size(&self, size: Size) -> bool {
        size == Size::B4 || self.is_rv64()
    }

    pub(crate) fn load_reserved(&mut self, args: ArgsAmo, size: Size) -> bool {
        if !self.has_size(size) {
            return false;
        }
        let order = match (args.aq != 0, args.rl != 0) {
            (false, false) => Order::Relaxed,
            (true, false) => Order::Acquire,
            (_, true) => Order::Sequential,
        };
        let (address, t) = (self.x(args.rs1), self.cx.temp());
        self.cx.load(t, address, 0, self.atomic_access(size, order));
        self.cx.mov(RESERVED, address);
        self.cx.mov(RESERVED_VALUE, t);
        let d = self.dest(args.rd);
        self.cx.mov(d, t);
        true
    }

    pub(crate) fn store_conditional(&mut self, args: ArgsAmo, size: Size) -> bool {
        if !self.has_size(size) {
            return false;
        }
        let (address, value) = (self.x(args.rs1), self.x(args.rs2));
        let (old, failed) = (self.cx.temp(), self.cx.temp());
        let (mut other, mut done) = (self.cx.label(), self.cx.label());
        self.cx.branch(Op::BrNe, address, RESERVED, &mut other);
        let op = self.atomic_access(size, Order::Sequential);
        self.cx.cas(old, address, RESERVED_VALUE, value, op);
        self.cx.binary(Op::SetNe, cairn_tcg::Ty::I64, failed, old, RESERVED_VALUE);
        self.cx.jump(&mut done);
        self.cx.place(other);
        self.cx.set(failed, 1);
        self.cx.place(done);
        self.cx.set(RESERVED, NO_RESERVATION);
        let d = self.dest(args.rd);
        self.cx.mov(d, failed);
        true
    }

    pub(crate) fn atomic(&mut self, args: ArgsAmo, rmw: Rmw, size: Size) -> bool {
        if !self.has_size(size) {
            return false;
        }
        let (address, value) = (self.x(args.rs1), self.x(args.rs2));
        let d = self.dest(args.rd);
        let op = self.atomic_access(size, Order::Sequential);
        self.cx.atomic(rmw, d, address, value, op);
        true
    }

    pub(crate) fn compare_and_swap(&mut self, args: ArgsAmo, size: Size) -> bool {
        if !self.has_size(size) {
            return self.compare_and_swap_registers_pair(args);
        }
        let (address, new) = (self.x(args.rs1), self.x(args.rs2));
        let expected = self.x(args.rd);
        let d = self.dest(args.rd);
        let op = self.atomic_access(size, Order::Sequential);
        self.cx.cas(d, address, expected, new, op);
        true
    }

    /// The value of a pair of registers; the pair of register 0 is zero.
    fn pair(&mut self, register: i32) -> Slot {
        let pair = self.cx.temp_pair();
        let (low, high) = match register {
            0 => (self.x(0), self.x(0)),
            _ => (self.x(register), self.x(register + 1)),
        };
        self.cx.mov(pair, low);
        self.cx.mov(pair.next(), high);
        pair
    }

    /// `amocas.d` of RV32: 64 bits in two registers each.
    fn compare_and_swap_registers_pair(&mut self, args: ArgsAmo) -> bool {
        if args.rd % 2 != 0 || args.rs2 % 2 != 0 {
            return false;
        }
        let ty = cairn_tcg::Ty::I64;
        let [expected, new] = [args.rd, args.rs2].map(|register| {
            let pair = self.pair(register);
            self.cx.unary(Op::Zext, cairn_tcg::Ty::I32, pair, pair);
            self.cx.binary(Op::Shl, ty, pair.next(), pair.next(), 32);
            self.cx.binary(Op::Or, ty, pair, pair, pair.next());
            pair
        });
        let address = self.x(args.rs1);
        let old = self.cx.temp();
        self.cx.cas(old, address, expected, new, self.atomic_access(Size::B8, Order::Sequential));
        if args.rd != 0 {
            let (low, high) = (self.dest(args.rd), self.dest(args.rd + 1));
            self.cx.unary(Op::Sext, cairn_tcg::Ty::I32, low, old);
            self.cx.binary(Op::Sar, ty, high, old, 32);
        }
        true
    }

    /// `amocas.q`: 128 bits in two registers each.
    pub(crate) fn compare_and_swap_quad(&mut self, args: ArgsAmo) -> bool {
        if !self.is_rv64() || args.rd % 2 != 0 || args.rs2 % 2 != 0 {
            return false;
        }
        let (expected, new) = (self.pair(args.rd), self.pair(args.rs2));
        let (address, old) = (self.x(args.rs1), self.cx.temp_pair());
        let op = self.atomic_access(Size::B8, Order::Sequential);
        self.cx.cas_pair(old, address, expected, new, op);
        if let Ok(rd @ 1..) = u16::try_from(args.rd) {
            self.cx.mov(x(rd), old);
            self.cx.mov(x(rd + 1), old.next());
        }
        true
    }
}
