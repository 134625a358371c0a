//! An assembler for the part of x86-64 that blocks are made of (Intel SDM, volume 2).
//!
//! Instructions name their registers in Intel's order. Memory is `[base + displacement]` or `[base + index]`; data of a
//! unit is reached relative to the instruction pointer and is placed later ([`Code::place`]).

// Encodings are made of the low bits of numbers.
#![allow(clippy::cast_possible_truncation)]

/// A register, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reg(pub(super) u8);

pub(super) const RAX: Reg = Reg(0);
pub(super) const RCX: Reg = Reg(1);
pub(super) const RDX: Reg = Reg(2);
pub(super) const RBX: Reg = Reg(3);
pub(super) const RBP: Reg = Reg(5);
pub(super) const RSI: Reg = Reg(6);
pub(super) const RDI: Reg = Reg(7);
pub(super) const R14: Reg = Reg(14);
pub(super) const R15: Reg = Reg(15);

impl Reg {
    const fn low(self) -> u8 {
        self.0 & 7
    }

    const fn high(self) -> u8 {
        self.0 >> 3
    }
}

/// Enumerations whose numbers are parts of instructions.
macro_rules! numbers {
    ($($(#[$about:meta])* $name:ident {
        $($(#[$of:meta])* $variant:ident = $number:literal,)*
    })*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum $name {
            $($(#[$of])* $variant = $number,)*
        }
    )*};
}

numbers! {
    /// Arithmetic with two operands, by the digit of its immediate form.
    Alu {
        Add = 0,
        Or = 1,
        And = 4,
        Sub = 5,
        Xor = 6,
        Cmp = 7,
    }

    /// Shifts and rotations, by their digit.
    Shift {
        Rol = 0,
        Ror = 1,
        Shl = 4,
        Shr = 5,
        Sar = 7,
    }

    /// Conditions, by their number.
    Cond {
        Overflow = 0,
        Below = 2,
        AboveEqual = 3,
        Equal = 4,
        NotEqual = 5,
        Above = 7,
        Sign = 8,
        Parity = 10,
        Less = 12,
        GreaterEqual = 13,
        Greater = 15,
    }

    /// Scalar operations on floats, by their opcode.
    Sse {
        Sqrt = 0x51,
        Add = 0x58,
        Mul = 0x59,
        /// To the other format.
        Convert = 0x5a,
        Sub = 0x5c,
        Div = 0x5e,
    }
}

/// Width of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    W32,
    W64,
}

/// A vector register, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Xmm(pub(super) u8);

/// A place in the code that is jumped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A place in the data of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datum(pub(super) u32);

/// Code in the making.
#[derive(Debug, Default)]
pub(super) struct Code {
    bytes: Vec<u8>,
    labels: Vec<Option<usize>>,
    /// Displacements of jumps, and where they go.
    jumps: Vec<(usize, Label)>,
    /// Displacements of data, which, and the bytes of the instruction behind it.
    data: Vec<(usize, Datum, u32)>,
}

impl Code {
    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_le_bytes());
    }

    fn rex(&mut self, width: Width, reg: u8, index: u8, base: u8, always: bool) {
        let wide = u8::from(width == Width::W64);
        let rex = 0x40 | wide << 3 | reg << 2 | index << 1 | base;
        if rex != 0x40 || always {
            self.byte(rex);
        }
    }

    /// `opcode reg, rm` between registers; byte registers need the prefix to be the low ones.
    fn rr(&mut self, width: Width, opcode: &[u8], reg: u8, rm: Reg, bytes: bool) {
        self.rex(width, reg >> 3, 0, rm.high(), bytes);
        self.bytes.extend(opcode);
        self.byte(0xc0 | (reg & 7) << 3 | rm.low());
    }

    /// `opcode reg, [base + displacement]`; the bases that are used need no further byte.
    fn rm(&mut self, width: Width, opcode: &[u8], reg: u8, base: Reg, displacement: i32) {
        debug_assert!(base.low() != 4, "rsp and r12 need another form");
        self.rex(width, reg >> 3, 0, base.high(), false);
        self.bytes.extend(opcode);
        let low = (reg & 7) << 3 | base.low();
        if let Ok(short) = i8::try_from(displacement) {
            self.byte(0x40 | low);
            self.byte(short.cast_unsigned());
        } else {
            self.byte(0x80 | low);
            self.word(displacement.cast_unsigned());
        }
    }

    /// `opcode reg, [base + index]`
    fn rx(&mut self, width: Width, opcode: &[u8], reg: u8, base: Reg, index: Reg, bytes: bool) {
        debug_assert!(index.0 != 4, "rsp is no index");
        self.rex(width, reg >> 3, index.high(), base.high(), bytes);
        self.bytes.extend(opcode);
        self.byte(0x44 | (reg & 7) << 3);
        self.byte(index.low() << 3 | base.low());
        self.byte(0);
    }

    /// `opcode reg, [rip + datum]`, with as many bytes of an immediate behind it.
    fn rip(&mut self, width: Width, opcode: &[u8], reg: u8, datum: Datum, behind: u32) {
        self.rex(width, reg >> 3, 0, 0, false);
        self.bytes.extend(opcode);
        self.byte(0x05 | (reg & 7) << 3);
        self.data.push((self.bytes.len(), datum, behind));
        self.word(0);
    }

    /// `mov d, a`
    pub(super) fn mov(&mut self, width: Width, d: Reg, a: Reg) {
        if d != a || width == Width::W32 {
            self.rr(width, &[0x8b], d.0, a, false);
        }
    }

    /// `mov d, value`, by the shortest form.
    pub(super) fn constant(&mut self, d: Reg, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            self.rex(Width::W32, 0, 0, d.high(), false);
            self.byte(0xb8 | d.low());
            self.word(value);
        } else if let Ok(value) = i32::try_from(value.cast_signed()) {
            self.rr(Width::W64, &[0xc7], 0, d, false);
            self.word(value.cast_unsigned());
        } else {
            self.rex(Width::W64, 0, 0, d.high(), false);
            self.byte(0xb8 | d.low());
            self.bytes.extend(value.to_le_bytes());
        }
    }

    /// `op d, a`
    pub(super) fn alu(&mut self, op: Alu, width: Width, d: Reg, a: Reg) {
        self.rr(width, &[(op as u8) << 3 | 3], d.0, a, false);
    }

    /// `op d, imm`
    pub(super) fn alu_imm(&mut self, op: Alu, width: Width, d: Reg, imm: i32) {
        if let Ok(short) = i8::try_from(imm) {
            self.rr(width, &[0x83], op as u8, d, false);
            self.byte(short.cast_unsigned());
        } else {
            self.rr(width, &[0x81], op as u8, d, false);
            self.word(imm.cast_unsigned());
        }
    }

    /// `op d, [base + displacement]`
    pub(super) fn alu_mem(&mut self, op: Alu, d: Reg, base: Reg, displacement: i32) {
        self.rm(Width::W64, &[(op as u8) << 3 | 3], d.0, base, displacement);
    }

    /// `test a, b`
    pub(super) fn test(&mut self, width: Width, a: Reg, b: Reg) {
        self.rr(width, &[0x85], b.0, a, false);
    }

    /// `not d`
    pub(super) fn not(&mut self, d: Reg) {
        self.rr(Width::W64, &[0xf7], 2, d, false);
    }

    /// `mul a`: `rdx:rax` = `rax × a`, unsigned or signed
    pub(super) fn mul_wide(&mut self, width: Width, a: Reg, signed: bool) {
        self.rr(width, &[0xf7], if signed { 5 } else { 4 }, a, false);
    }

    /// `div a` or `idiv a`: `rax` and `rdx` = quotient and remainder of `rax`, extended, by `a`
    pub(super) fn divide(&mut self, width: Width, a: Reg, signed: bool) {
        if signed {
            // cdq, cqo
            self.rex(width, 0, 0, 0, false);
            self.byte(0x99);
        } else {
            self.alu(Alu::Xor, Width::W32, RDX, RDX);
        }
        self.rr(width, &[0xf7], if signed { 7 } else { 6 }, a, false);
    }

    /// `imul d, a`
    pub(super) fn mul(&mut self, width: Width, d: Reg, a: Reg) {
        self.rr(width, &[0x0f, 0xaf], d.0, a, false);
    }

    /// `op d, amount`
    pub(super) fn shift_imm(&mut self, op: Shift, width: Width, d: Reg, amount: u8) {
        self.rr(width, &[0xc1], op as u8, d, false);
        self.byte(amount);
    }

    /// `op d, cl`, where the amount counts modulo the width
    pub(super) fn shift_cl(&mut self, op: Shift, width: Width, d: Reg) {
        self.rr(width, &[0xd3], op as u8, d, false);
    }

    /// `bswap d`
    pub(super) fn bswap(&mut self, width: Width, d: Reg) {
        self.rex(width, 0, 0, d.high(), false);
        self.byte(0x0f);
        self.byte(0xc8 | d.low());
    }

    /// The low 8, 16 or 32 bits of `a`, extended to the word
    pub(super) fn extend(&mut self, d: Reg, a: Reg, bits: u32, signed: bool) {
        match (bits, signed) {
            (8, false) => self.rr(Width::W32, &[0x0f, 0xb6], d.0, a, true),
            (8, true) => self.rr(Width::W64, &[0x0f, 0xbe], d.0, a, true),
            (16, false) => self.rr(Width::W32, &[0x0f, 0xb7], d.0, a, false),
            (16, true) => self.rr(Width::W64, &[0x0f, 0xbf], d.0, a, false),
            (32, false) => self.mov(Width::W32, d, a),
            (32, true) => self.rr(Width::W64, &[0x63], d.0, a, false),
            _ => self.mov(Width::W64, d, a),
        }
    }

    /// `cmov d, a`
    pub(super) fn cmov(&mut self, cond: Cond, width: Width, d: Reg, a: Reg) {
        self.rr(width, &[0x0f, 0x40 | cond as u8], d.0, a, false);
    }

    /// `rax` = 1 if the condition holds, else 0
    pub(super) fn set_rax(&mut self, cond: Cond) {
        self.rr(Width::W32, &[0x0f, 0x90 | cond as u8], 0, RAX, true);
        self.rr(Width::W32, &[0x0f, 0xb6], 0, RAX, true);
    }

    /// `movq d, a`
    pub(super) fn set_xmm(&mut self, d: Xmm, a: Reg) {
        self.byte(0x66);
        self.rr(Width::W64, &[0x0f, 0x6e], d.0, a, false);
    }

    /// `movq d, a` or `movd d, a`, with zeros above
    pub(super) fn read_xmm(&mut self, width: Width, d: Reg, a: Xmm) {
        self.byte(0x66);
        self.rr(width, &[0x0f, 0x7e], a.0, d, false);
    }

    /// `op d, a`, on doubles or singles
    pub(super) fn sse(&mut self, op: Sse, wide: bool, d: Xmm, a: Xmm) {
        self.byte(if wide { 0xf2 } else { 0xf3 });
        self.rr(Width::W32, &[0x0f, op as u8], d.0, Reg(a.0), false);
    }

    /// `ucomis a, b`
    pub(super) fn compare(&mut self, wide: bool, a: Xmm, b: Xmm) {
        if wide {
            self.byte(0x66);
        }
        self.rr(Width::W32, &[0x0f, 0x2e], a.0, Reg(b.0), false);
    }

    /// `cvtsi2s d, a`
    pub(super) fn convert_from_int(&mut self, wide: bool, width: Width, d: Xmm, a: Reg) {
        self.byte(if wide { 0xf2 } else { 0xf3 });
        self.rr(width, &[0x0f, 0x2a], d.0, a, false);
    }

    /// `cvtts2si d, a`
    pub(super) fn convert_to_int(&mut self, wide: bool, width: Width, d: Reg, a: Xmm) {
        self.byte(if wide { 0xf2 } else { 0xf3 });
        self.rr(width, &[0x0f, 0x2c], d.0, Reg(a.0), false);
    }

    /// `xmm0` = `± xmm1 × xmm2 ± xmm0`, rounded once
    pub(super) fn fused(&mut self, wide: bool, negate_product: bool, negate_addend: bool) {
        let opcode = match (negate_product, negate_addend) {
            (false, false) => 0xb9,
            (false, true) => 0xbb,
            (true, false) => 0xbd,
            (true, true) => 0xbf,
        };
        self.bytes.extend([0xc4, 0xe2, if wide { 0xf1 } else { 0x71 }, opcode, 0xc2]);
    }

    /// `test byte [base + displacement], imm`
    pub(super) fn test_mem(&mut self, base: Reg, displacement: i32, imm: u8) {
        self.rm(Width::W32, &[0xf6], 0, base, displacement);
        self.byte(imm);
    }

    /// `lea d, [a + displacement]`
    pub(super) fn lea(&mut self, d: Reg, a: Reg, displacement: i32) {
        if a.low() == 4 {
            // This base needs an index byte that means none.
            self.rex(Width::W64, d.high(), 0, a.high(), false);
            self.bytes.extend([0x8d, 0x84 | d.low() << 3, 0x24]);
            self.word(displacement.cast_unsigned());
        } else {
            self.rm(Width::W64, &[0x8d], d.0, a, displacement);
        }
    }

    /// `mov d, [base + displacement]`
    pub(super) fn load(&mut self, d: Reg, base: Reg, displacement: i32) {
        self.rm(Width::W64, &[0x8b], d.0, base, displacement);
    }

    /// `mov [base + displacement], a`
    pub(super) fn store(&mut self, a: Reg, base: Reg, displacement: i32) {
        self.rm(Width::W64, &[0x89], a.0, base, displacement);
    }

    /// `mov dword [base + displacement], value`
    pub(super) fn store_zero(&mut self, base: Reg, displacement: i32) {
        self.rm(Width::W64, &[0xc7], 0, base, displacement);
        self.word(0);
    }

    /// The value of `bits` at `[base + index]`, extended to the word
    pub(super) fn load_sized(&mut self, d: Reg, base: Reg, index: Reg, bits: u64, signed: bool) {
        let (width, opcode): (Width, &[u8]) = match (bits, signed) {
            (8, false) => (Width::W32, &[0x0f, 0xb6]),
            (8, true) => (Width::W64, &[0x0f, 0xbe]),
            (16, false) => (Width::W32, &[0x0f, 0xb7]),
            (16, true) => (Width::W64, &[0x0f, 0xbf]),
            (32, false) => (Width::W32, &[0x8b]),
            (32, true) => (Width::W64, &[0x63]),
            _ => (Width::W64, &[0x8b]),
        };
        self.rx(width, opcode, d.0, base, index, false);
    }

    /// The low `bits` of `a` to `[base + index]`
    pub(super) fn store_sized(&mut self, a: Reg, base: Reg, index: Reg, bits: u64) {
        match bits {
            8 => self.rx(Width::W32, &[0x88], a.0, base, index, true),
            16 => {
                self.byte(0x66);
                self.rx(Width::W32, &[0x89], a.0, base, index, false);
            }
            32 => self.rx(Width::W32, &[0x89], a.0, base, index, false),
            _ => self.rx(Width::W64, &[0x89], a.0, base, index, false),
        }
    }

    /// `test byte [base + index], imm`
    pub(super) fn test_byte(&mut self, base: Reg, index: Reg, imm: u8) {
        self.rx(Width::W32, &[0xf6], 0, base, index, false);
        self.byte(imm);
    }

    /// `cmp byte [base], 0`
    pub(super) fn compare_byte_zero(&mut self, base: Reg) {
        self.rm(Width::W32, &[0x80], Alu::Cmp as u8, base, 0);
        self.byte(0);
    }

    /// `cmp dword [datum], 0`
    pub(super) fn compare_datum_zero(&mut self, datum: Datum) {
        self.rip(Width::W32, &[0x83], Alu::Cmp as u8, datum, 1);
        self.byte(0);
    }

    /// `dec dword [datum]`
    pub(super) fn count_down(&mut self, datum: Datum) {
        self.rip(Width::W32, &[0xff], 1, datum, 0);
    }

    /// `inc qword [base + displacement]`
    pub(super) fn count_up(&mut self, base: Reg, displacement: i32) {
        self.rm(Width::W64, &[0xff], 0, base, displacement);
    }

    /// `lea d, [datum]`
    pub(super) fn address_of(&mut self, d: Reg, datum: Datum) {
        self.rip(Width::W64, &[0x8d], d.0, datum, 0);
    }

    /// `jmp [datum]`
    pub(super) fn jump_datum(&mut self, datum: Datum) {
        self.rip(Width::W32, &[0xff], 4, datum, 0);
    }

    /// `jmp [base + displacement]`
    pub(super) fn jump_mem(&mut self, base: Reg, displacement: i32) {
        self.rm(Width::W32, &[0xff], 4, base, displacement);
    }

    /// `call [base + displacement]`
    pub(super) fn call_mem(&mut self, base: Reg, displacement: i32) {
        self.rm(Width::W32, &[0xff], 2, base, displacement);
    }

    /// `jmp a`
    pub(super) fn jump_to(&mut self, a: Reg) {
        self.rr(Width::W32, &[0xff], 4, a, false);
    }

    /// A label that is placed later.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts a label here.
    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.bytes.len());
    }

    /// `jmp label`
    pub(super) fn jump(&mut self, label: Label) {
        self.byte(0xe9);
        self.jumps.push((self.bytes.len(), label));
        self.word(0);
    }

    /// `call label`
    pub(super) fn call(&mut self, label: Label) {
        self.byte(0xe8);
        self.jumps.push((self.bytes.len(), label));
        self.word(0);
    }

    /// Goes on at a multiple of 16 bytes. What is skipped never runs.
    pub(super) fn align(&mut self) {
        const BREAKPOINT: u8 = 0xcc;
        self.bytes.resize(self.bytes.len().next_multiple_of(16), BREAKPOINT);
    }

    /// Code that was made elsewhere and needs no changes.
    pub(super) fn append(&mut self, code: &[u8]) {
        self.bytes.extend(code);
    }

    /// `jcc label`
    pub(super) fn branch(&mut self, cond: Cond, label: Label) {
        self.bytes.extend([0x0f, 0x80 | cond as u8]);
        self.jumps.push((self.bytes.len(), label));
        self.word(0);
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where a label is.
    pub(super) fn offset(&self, label: Label) -> usize {
        self.labels[label.0].unwrap_or_default()
    }

    /// The finished code, for the address `at`, with its data at `data`.
    pub(super) fn place(mut self, at: u64, data: u64) -> Vec<u8> {
        for (place, label) in std::mem::take(&mut self.jumps) {
            let distance =
                self.offset(label).cast_signed() as i64 - (place.cast_signed() as i64 + 4);
            self.patch(place, distance);
        }
        for (place, datum, behind) in std::mem::take(&mut self.data) {
            let target = data + u64::from(datum.0);
            let distance = target.wrapping_sub(at + place as u64 + 4 + u64::from(behind));
            self.patch(place, distance.cast_signed());
        }
        self.bytes
    }

    fn patch(&mut self, place: usize, distance: i64) {
        let distance = (distance as i32).to_le_bytes();
        self.bytes[place..place + 4].copy_from_slice(&distance);
    }
}
