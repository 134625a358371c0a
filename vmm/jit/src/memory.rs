//! Loads and stores.

use cairn_tcg::ir::{Order, Size};
use cairn_tcg::region::abi;
use cairn_tcg::{MemOp, Op, RegisterClass, Slot, Ty, Uop};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};

use crate::lower::Lowering;
use crate::slow::Paths;
use crate::words::{Form, own};

/// Accesses to guest memory. They are never moved or merged, and the flags of the page say that they do not fault.
fn guest() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

fn ty(size: Size) -> Type {
    match size {
        Size::B1 => types::I8,
        Size::B2 => types::I16,
        Size::B4 => types::I32,
        Size::B8 => types::I64,
    }
}

impl Lowering<'_> {
    fn is_direct(&self, op: MemOp) -> bool {
        !self.region.checked && !op.is_big_endian()
    }

    /// The host address of an access as a value and an offset; takes the slow path unless the access is aligned, in the
    /// address space, and in a page that has the flag.
    fn address(&mut self, paths: &Paths, uop: &Uop, flag: u8) -> (Value, i32) {
        let (op, offset) = uop.mem_op();
        let memory = self.region.memory;
        let mut address = self.int(uop.a);
        if offset != 0 {
            let offset = i64::from(offset.cast_signed());
            address = self.builder.ins().iadd_imm_s(address, offset);
        }
        if op.is_narrow() {
            let low = self.builder.ins().ireduce(types::I32, address);
            address = self.builder.ins().uextend(types::I64, low);
        }
        // What is not aligned has bits that become the highest ones, and is beyond the last page.
        let (size, page_bits) = (op.size() as i64, i64::from(abi::PAGE_BITS));
        let rotated = match op.size() {
            Size::B1 => address,
            _ => self.builder.ins().rotr_imm_u(address, size),
        };
        let page = self.builder.ins().ushr_imm_u(rotated, page_bits - size);
        let pages = self.constant(memory.size >> abi::PAGE_BITS);
        let beyond = self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, page, pages);
        self.slow_if(paths, beyond);
        let (place, offset) = self.at(memory.flags, page);
        let flags = self.builder.ins().load(types::I8, own(), place, offset);
        let mask = self.builder.ins().iconst(types::I8, i64::from(flag));
        let allowed = self.builder.ins().band(flags, mask);
        let zero = self.builder.ins().iconst(types::I8, 0);
        let refused = self.builder.ins().icmp(IntCC::Equal, allowed, zero);
        self.slow_if(paths, refused);
        self.at(memory.base, address)
    }

    /// A place behind a constant one, as a value and an offset: the constant itself if it is small.
    fn at(&mut self, base: u64, behind: Value) -> (Value, i32) {
        if let Ok(offset) = i32::try_from(base) {
            return (behind, offset);
        }
        let base = self.constant(base);
        (self.builder.ins().iadd(base, behind), 0)
    }

    /// The form in which the next operation wants what is loaded.
    fn wanted(&self, uop: &Uop, op: MemOp) -> Form {
        let is_double = |slot: Slot| {
            let facts = self.region.facts;
            let global = facts.globals.get(slot.index());
            facts.plain_float && global.is_some_and(|global| global.class == RegisterClass::Float)
        };
        let block = &self.region.blocks[self.block].block;
        let next = block.uops.get(self.at + 1).filter(|next| next.a == uop.d);
        match (op.size(), next.map(|next| (next.op, next.ty, next.d))) {
            (Size::B8, _) if is_double(uop.d) => Form::Double,
            (Size::B8, Some((Op::Mov, _, to))) if is_double(to) => Form::Double,
            (Size::B4, Some((Op::BoxNan, Ty::F32, _))) if !op.is_signed() => Form::Single,
            _ => Form::Int,
        }
    }

    pub(crate) fn load(&mut self, uop: &Uop) -> bool {
        let (op, _) = uop.mem_op();
        if !self.is_direct(op) {
            return false;
        }
        let paths = self.paths(uop);
        // Loads of x86-64 are ordered as any guest asks for.
        let (address, offset) = self.address(&paths, uop, abi::READABLE);
        let form = self.wanted(uop, op);
        let value = if form == Form::Int {
            let loaded = self.builder.ins().load(ty(op.size()), guest(), address, offset);
            match op.size() {
                Size::B8 => loaded,
                _ if op.is_signed() => self.builder.ins().sextend(types::I64, loaded),
                _ => self.builder.ins().uextend(types::I64, loaded),
            }
        } else {
            self.builder.ins().load(form.ty(), guest(), address, offset)
        };
        self.fast(&paths, Some(value));
        self.join(paths, Some((uop.d, form)));
        true
    }

    pub(crate) fn store(&mut self, uop: &Uop) -> bool {
        let (op, _) = uop.mem_op();
        // A store that others see before a later load needs a fence, which the interpreter has.
        if !self.is_direct(op) || op.order() == Order::Sequential {
            return false;
        }
        let paths = self.paths(uop);
        let (address, offset) = self.address(&paths, uop, abi::WRITABLE);
        let value = if op.size() == Size::B8 {
            // In whatever form it is at hand.
            self.held(uop.b)
        } else {
            let word = self.int(uop.b);
            self.builder.ins().ireduce(ty(op.size()), word)
        };
        self.builder.ins().store(guest(), value, address, offset);
        self.fast(&paths, None);
        self.join(paths, None);
        true
    }
}
