// Generated from groups.decode. Do not edit.

/// Arguments `&last`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsLast {
    pub(crate) imm: i64,
    pub(crate) flag: bool,
    pub(crate) big: u64,
    pub(crate) minus: i8,
}

/// Arguments `&pair_a`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsPairA {
    pub(crate) a: i32,
}

/// Arguments `&type`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsType {
    pub(crate) size: i32,
}

/// Arguments `&move`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsMove {
    pub(crate) amount: i32,
    pub(crate) m: i32,
    pub(crate) size: i32,
}

/// What a translator does with decoded instructions.
///
/// A pattern's method returns false to refuse the instruction; the next pattern that
/// overlaps it is tried then, and the instruction is undefined if none is left.
#[allow(non_snake_case)]
pub(crate) trait Decode {
    /// A value that is not part of the instruction.
    fn mode(&mut self) -> i64;
    /// Converts the bits of a field.
    fn scale(&mut self, value: i64) -> i64;

    /// `000-....--------`
    fn pair_a(&mut self, args: ArgsPairA) -> bool;
    /// `1-0-....--------`
    fn pair_b(&mut self, args: ArgsPairA) -> bool;
    /// `-11-....--------`
    fn pair_c(&mut self, args: ArgsPairA) -> bool;
    /// `0011..---------0`
    fn r#type(&mut self, args: ArgsType) -> bool;
    /// `0011..---------1`
    fn r#match(&mut self, args: ArgsType) -> bool;
    /// `0011..--...----0`\
    /// `0011..--...-----`
    fn r#move(&mut self, args: ArgsMove) -> bool;
    /// `010----.........`
    fn last(&mut self, args: ArgsLast) -> bool;
}

/// Decodes an instruction of 16 bits; false if it is undefined.
#[allow(clippy::unreadable_literal)]
pub(crate) fn decode<D: Decode + ?Sized>(cx: &mut D, insn: u16) -> bool {
    let insn = u64::from(insn);
    if insn & 0x2000 == 0 {
        if insn & 0x8000 == 0 {
            if insn & 0x4000 == 0 {
                cx.pair_a(extract_pair_a(insn))
            } else {
                cx.last(extract_last(insn))
            }
        } else {
            cx.pair_b(extract_pair_a(insn))
        }
    } else {
        if insn & 0x4000 == 0 {
            insn & 0x9000 == 0x1000 && ((if insn & 0x1 == 0 {
                cx.r#type(extract_type(insn))
                    || { let args = extract_move(cx, insn); cx.r#move(args) }
            } else {
                cx.r#match(extract_type(insn))
            })
                || { let args = extract_move(cx, insn); cx.r#move(args) })
        } else {
            cx.pair_c(extract_pair_a(insn))
        }
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_pair_a(insn: u64) -> ArgsPairA {
    ArgsPairA {
        a: bits(insn, 8, 4) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_type(insn: u64) -> ArgsType {
    ArgsType {
        size: bits(insn, 10, 2) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_move<D: Decode + ?Sized>(cx: &mut D, insn: u64) -> ArgsMove {
    let raw_1: i64 = cx.mode();
    let raw_2: i64 = bits(insn, 10, 2);
    let raw_0: i64 = cx.scale((bits(insn, 5, 3) << 2) | bits(raw_2.cast_unsigned(), 0, 2));
    ArgsMove {
        amount: raw_0 as i32,
        m: raw_1 as i32,
        size: raw_2 as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_last(insn: u64) -> ArgsLast {
    ArgsLast {
        imm: sbits(insn, 0, 9),
        flag: true,
        big: 9223372036854775807,
        minus: -1,
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
