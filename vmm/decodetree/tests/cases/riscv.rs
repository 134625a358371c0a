// Generated from insn32.decode, insn16.decode. Do not edit.

/// Arguments `&r`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsR {
    pub(crate) rd: i32,
    pub(crate) rs1: i32,
    pub(crate) rs2: i32,
}

/// Arguments `&i`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsI {
    pub(crate) imm: i32,
    pub(crate) rd: i32,
    pub(crate) rs1: i32,
}

/// Arguments `&s`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsS {
    pub(crate) imm: i32,
    pub(crate) rs1: i32,
    pub(crate) rs2: i32,
}

/// Arguments `&j`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsJ {
    pub(crate) imm: i32,
    pub(crate) rd: i32,
}

/// Arguments `&b`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsB {
    pub(crate) imm: i32,
    pub(crate) rs1: i32,
    pub(crate) rs2: i32,
}

/// Arguments `&u_raw`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsURaw {
    pub(crate) imm: u32,
    pub(crate) rd: u8,
}

/// Arguments `&sh`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsSh {
    pub(crate) rd: i32,
    pub(crate) rs1: i32,
    pub(crate) shamt: i32,
}

/// Arguments `&fence`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsFence {
    pub(crate) pred: i32,
    pub(crate) succ: i32,
}

/// What a translator does with decoded instructions.
///
/// A pattern's method returns false to refuse the instruction; the next pattern that
/// overlaps it is tried then, and the instruction is undefined if none is left.
#[allow(non_snake_case)]
pub(crate) trait Decode {
    /// Converts the bits of a field.
    fn compressed(&mut self, value: i64) -> i64;
    /// Converts the bits of a field.
    fn times_2(&mut self, value: i64) -> i64;
    /// Converts the bits of a field.
    fn times_4(&mut self, value: i64) -> i64;
    /// Converts the bits of a field.
    fn times_4096(&mut self, value: i64) -> i64;

    /// `.........................0110111`
    fn lui(&mut self, args: ArgsURaw) -> bool;
    /// `.........................0010111`
    fn auipc(&mut self, args: ArgsJ) -> bool;
    /// `.........................1101111`
    fn jal(&mut self, args: ArgsJ) -> bool;
    /// `.................000.....1100111`\
    /// `1001.....0000010`
    fn jalr(&mut self, args: ArgsI) -> bool;
    /// `.................000.....1100011`
    fn beq(&mut self, args: ArgsB) -> bool;
    /// `.................001.....1100011`
    fn bne(&mut self, args: ArgsB) -> bool;
    /// `.................010.....0000011`\
    /// `010...........00`
    fn lw(&mut self, args: ArgsI) -> bool;
    /// `.................010.....0100011`
    fn sw(&mut self, args: ArgsS) -> bool;
    /// `.................000.....0010011`\
    /// `000...........01`\
    /// `010...........01`
    fn addi(&mut self, args: ArgsI) -> bool;
    /// `000000...........001.....0010011`
    fn slli(&mut self, args: ArgsSh) -> bool;
    /// `000000...........101.....0010011`
    fn srli(&mut self, args: ArgsSh) -> bool;
    /// `010000...........101.....0010011`
    fn srai(&mut self, args: ArgsSh) -> bool;
    /// `0000000..........000.....0110011`\
    /// `1001..........10`
    fn add(&mut self, args: ArgsR) -> bool;
    /// `0100000..........000.....0110011`
    fn sub(&mut self, args: ArgsR) -> bool;
    /// `00000001000000000000000000001111`
    fn pause(&mut self) -> bool;
    /// `10000011001100000000000000001111`
    fn tso(&mut self) -> bool;
    /// `----........-----000-----0001111`
    fn fence(&mut self, args: ArgsFence) -> bool;
    /// `00000000000000000000000001110011`
    fn ecall(&mut self) -> bool;
    /// `00000000000100000000000001110011`\
    /// `1001000000000010`
    fn ebreak(&mut self) -> bool;
    /// `000-00000-----01`
    fn nop(&mut self) -> bool;
}

/// Decodes an instruction of 32 bits; false if it is undefined.
#[allow(clippy::unreadable_literal)]
pub(crate) fn decode32<D: Decode + ?Sized>(cx: &mut D, insn: u32) -> bool {
    let insn = u64::from(insn);
    match insn & 0x7f {
        0x3 => insn & 0x7000 == 0x2000 && cx.lw(extract_i(insn)),
        0xf => insn & 0x7000 == 0x0 && (insn & 0xf80 == 0x0 && match (insn >> 15) & 0x1ffff {
            0x200 => cx.pause(),
            0x10660 => cx.tso(),
            _ => false,
        }
            || cx.fence(extract_fence(insn))),
        0x13 => match (insn >> 12) & 0x7 {
            0x0 => cx.addi(extract_i(insn)),
            0x1 => insn & 0xfc000000 == 0x0 && cx.slli(extract_sh(insn)),
            0x5 => match (insn >> 26) & 0x3f {
                0x0 => cx.srli(extract_sh(insn)),
                0x10 => cx.srai(extract_sh(insn)),
                _ => false,
            },
            _ => false,
        },
        0x17 => { let args = extract_auipc(cx, insn); cx.auipc(args) },
        0x23 => insn & 0x7000 == 0x2000 && cx.sw(extract_s(insn)),
        0x33 => insn & 0x7000 == 0x0 && match (insn >> 25) & 0x7f {
            0x0 => cx.add(extract_r(insn)),
            0x20 => cx.sub(extract_r(insn)),
            _ => false,
        },
        0x37 => cx.lui(extract_lui(insn)),
        0x63 => match (insn >> 12) & 0x7 {
            0x0 => { let args = extract_b(cx, insn); cx.beq(args) },
            0x1 => { let args = extract_b(cx, insn); cx.bne(args) },
            _ => false,
        },
        0x67 => insn & 0x7000 == 0x0 && cx.jalr(extract_i(insn)),
        0x6f => { let args = extract_jal(cx, insn); cx.jal(args) },
        0x73 => match (insn >> 7) & 0x1ffffff {
            0x0 => cx.ecall(),
            0x2000 => cx.ebreak(),
            _ => false,
        },
        _ => false,
    }
}

/// Decodes an instruction of 16 bits; false if it is undefined.
#[allow(clippy::unreadable_literal)]
pub(crate) fn decode16<D: Decode + ?Sized>(cx: &mut D, insn: u16) -> bool {
    let insn = u64::from(insn);
    match (insn >> 13) & 0x7 {
        0x0 => insn & 0x3 == 0x1 && (insn & 0xf80 == 0x0 && cx.nop()
            || cx.addi(extract_ci(insn))),
        0x2 => match insn & 0x3 {
            0x0 => { let args = extract_lw(cx, insn); cx.lw(args) },
            0x1 => cx.addi(extract_addi(insn)),
            _ => false,
        },
        0x4 => insn & 0x1003 == 0x1002 && (insn & 0x7c == 0x0 && (insn & 0xf80 == 0x0 && cx.ebreak()
            || cx.jalr(extract_jalr(insn)))
            || cx.add(extract_cr(insn))),
        _ => false,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_lui(insn: u64) -> ArgsURaw {
    ArgsURaw {
        imm: bits(insn, 12, 20) as u32,
        rd: bits(insn, 7, 5) as u8,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_auipc<D: Decode + ?Sized>(cx: &mut D, insn: u64) -> ArgsJ {
    ArgsJ {
        imm: cx.times_4096(sbits(insn, 12, 20)) as i32,
        rd: bits(insn, 7, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_jal<D: Decode + ?Sized>(cx: &mut D, insn: u64) -> ArgsJ {
    ArgsJ {
        imm: cx.times_2((sbits(insn, 31, 1) << 19) | (bits(insn, 12, 8) << 11) | (bits(insn, 20, 1) << 10) | bits(insn, 21, 10)) as i32,
        rd: bits(insn, 7, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_i(insn: u64) -> ArgsI {
    ArgsI {
        imm: sbits(insn, 20, 12) as i32,
        rd: bits(insn, 7, 5) as i32,
        rs1: bits(insn, 15, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_b<D: Decode + ?Sized>(cx: &mut D, insn: u64) -> ArgsB {
    ArgsB {
        imm: cx.times_2((sbits(insn, 31, 1) << 11) | (bits(insn, 7, 1) << 10) | (bits(insn, 25, 6) << 4) | bits(insn, 8, 4)) as i32,
        rs1: bits(insn, 15, 5) as i32,
        rs2: bits(insn, 20, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_s(insn: u64) -> ArgsS {
    ArgsS {
        imm: ((sbits(insn, 25, 7) << 5) | bits(insn, 7, 5)) as i32,
        rs1: bits(insn, 15, 5) as i32,
        rs2: bits(insn, 20, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_sh(insn: u64) -> ArgsSh {
    ArgsSh {
        rd: bits(insn, 7, 5) as i32,
        rs1: bits(insn, 15, 5) as i32,
        shamt: bits(insn, 20, 6) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_r(insn: u64) -> ArgsR {
    ArgsR {
        rd: bits(insn, 7, 5) as i32,
        rs1: bits(insn, 15, 5) as i32,
        rs2: bits(insn, 20, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_fence(insn: u64) -> ArgsFence {
    ArgsFence {
        pred: bits(insn, 24, 4) as i32,
        succ: bits(insn, 20, 4) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_lw<D: Decode + ?Sized>(cx: &mut D, insn: u64) -> ArgsI {
    ArgsI {
        imm: cx.times_4((bits(insn, 5, 1) << 4) | (bits(insn, 10, 3) << 1) | bits(insn, 6, 1)) as i32,
        rd: cx.compressed(bits(insn, 2, 3)) as i32,
        rs1: cx.compressed(bits(insn, 7, 3)) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_ci(insn: u64) -> ArgsI {
    ArgsI {
        imm: ((sbits(insn, 12, 1) << 5) | bits(insn, 2, 5)) as i32,
        rd: bits(insn, 7, 5) as i32,
        rs1: bits(insn, 7, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_jalr(insn: u64) -> ArgsI {
    ArgsI {
        imm: 0,
        rd: 1,
        rs1: bits(insn, 7, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_cr(insn: u64) -> ArgsR {
    ArgsR {
        rd: bits(insn, 7, 5) as i32,
        rs1: bits(insn, 7, 5) as i32,
        rs2: bits(insn, 2, 5) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_addi(insn: u64) -> ArgsI {
    ArgsI {
        imm: ((sbits(insn, 12, 1) << 5) | bits(insn, 2, 5)) as i32,
        rd: bits(insn, 7, 5) as i32,
        rs1: 0,
    }
}

/// `len` bits of `word` from bit `shift` up.
#[inline]
const fn bits(word: u64, shift: u32, len: u32) -> i64 {
    ((word >> shift) & (u64::MAX >> (64 - len))).cast_signed()
}

/// `len` bits of `word` from bit `shift` up, of which the highest is the sign.
#[inline]
const fn sbits(word: u64, shift: u32, len: u32) -> i64 {
    (word << (64 - len - shift)).cast_signed() >> (64 - len)
}
