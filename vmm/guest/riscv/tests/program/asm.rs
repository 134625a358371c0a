//! A few instructions of RV64I.

// No test uses all of them.
#![allow(dead_code)]

// Registers.
pub(crate) const RA: u32 = 1;
pub(crate) const T0: u32 = 5;
pub(crate) const T1: u32 = 6;
pub(crate) const T2: u32 = 7;
pub(crate) const A0: u32 = 10;
pub(crate) const A1: u32 = 11;

pub(crate) const ECALL: u32 = 0x73;
pub(crate) const FENCE_I: u32 = 0x100f;

pub(crate) fn i(opcode: u32, funct: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    (imm.cast_unsigned() & 0xfff) << 20 | rs1 << 15 | funct << 12 | rd << 7 | opcode
}

pub(crate) fn addi(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x13, 0, rd, rs1, imm)
}

pub(crate) fn addiw(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x1b, 0, rd, rs1, imm)
}

pub(crate) fn add(rd: u32, rs1: u32, rs2: u32) -> u32 {
    i(0x33, 0, rd, rs1, rs2.cast_signed())
}

pub(crate) fn ld(rd: u32, rs1: u32) -> u32 {
    i(0x03, 3, rd, rs1, 0)
}

pub(crate) fn sd(rs2: u32, rs1: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | 3 << 12 | 0x23
}

pub(crate) fn sw(rs2: u32, rs1: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | 2 << 12 | 0x23
}

pub(crate) fn jalr(rd: u32, rs1: u32) -> u32 {
    i(0x67, 0, rd, rs1, 0)
}

/// `bne rs1, rs2, offset`
pub(crate) fn bne(rs1: u32, rs2: u32, offset: i32) -> u32 {
    let bits = offset.cast_unsigned();
    (bits >> 12 & 1) << 31
        | (bits >> 5 & 0x3f) << 25
        | rs2 << 20
        | rs1 << 15
        | 1 << 12
        | (bits >> 1 & 0xf) << 8
        | (bits >> 11 & 1) << 7
        | 0x63
}

/// `lui rd, address`, for addresses of whole pages.
pub(crate) fn lui(rd: u32, address: u64) -> u32 {
    u32::try_from(address).unwrap() & !0xfff | rd << 7 | 0x37
}

/// `jal rd, offset`, for small offsets.
pub(crate) fn jal(rd: u32, offset: i32) -> u32 {
    let bits = offset.cast_unsigned();
    (bits >> 20 & 1) << 31
        | (bits >> 1 & 0x3ff) << 21
        | (bits >> 11 & 1) << 20
        | (bits >> 12 & 0xff) << 12
        | rd << 7
        | 0x6f
}

/// `blt rs1, rs2, offset`
pub(crate) fn blt(rs1: u32, rs2: u32, offset: i32) -> u32 {
    bne(rs1, rs2, offset) ^ (1 ^ 4) << 12
}

/// `slli rd, rs1, amount`
pub(crate) fn slli(rd: u32, rs1: u32, amount: i32) -> u32 {
    i(0x13, 1, rd, rs1, amount)
}

/// `andi rd, rs1, imm`
pub(crate) fn andi(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x13, 7, rd, rs1, imm)
}

/// `jalr rd, offset(rs1)`
pub(crate) fn jalr_at(rd: u32, rs1: u32, offset: i32) -> u32 {
    i(0x67, 0, rd, rs1, offset)
}
