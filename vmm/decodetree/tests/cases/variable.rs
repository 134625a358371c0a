// Generated from variable.decode. Do not edit.

/// Arguments `&mem`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsMem {
    pub(crate) base: i32,
    pub(crate) disp: i16,
    pub(crate) load: bool,
}

/// Arguments `&mov`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsMov {
    pub(crate) rd: i32,
    pub(crate) rs: i32,
}

/// Arguments `&clr`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsClr {
    pub(crate) rd: i32,
}

/// Arguments `&set`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsSet {
    pub(crate) imm: i32,
    pub(crate) rd: i32,
}

/// Arguments `&bra`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsBra {
    pub(crate) disp: i32,
}

/// Arguments `&push`.
#[allow(missing_docs, non_snake_case)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgsPush {
    pub(crate) a: i32,
}

/// What a translator does with decoded instructions.
///
/// A pattern's method returns false to refuse the instruction; the next pattern that
/// overlaps it is tried then, and the instruction is undefined if none is left.
#[allow(non_snake_case)]
pub(crate) trait Decode {
    /// Why an instruction could not be fetched.
    type Fault;
    /// The next `bits` bits of the instruction, right-justified.
    fn fetch(&mut self, bits: u32) -> Result<u64, Self::Fault>;

    /// `00000000`
    fn nop(&mut self) -> bool;
    /// `00000001`
    fn brk(&mut self) -> bool;
    /// `0001....`
    fn mov(&mut self, args: ArgsMov) -> bool;
    /// `0010....`
    fn clr(&mut self, args: ArgsClr) -> bool;
    /// `0010............`
    fn set(&mut self, args: ArgsSet) -> bool;
    /// `01000000........`
    fn bra(&mut self, args: ArgsBra) -> bool;
    /// `01000001........................`
    fn jmp(&mut self, args: ArgsBra) -> bool;
    /// `010001--................`
    fn call(&mut self, args: ArgsBra) -> bool;
    /// `1000....00000001................`
    fn load(&mut self, args: ArgsMem) -> bool;
    /// `1000....00000010................`
    fn store(&mut self, args: ArgsMem) -> bool;
    /// `1001....`
    fn push(&mut self, args: ArgsPush) -> bool;
}

/// Fetches and decodes an instruction of 8 to 32 bits; false if it is undefined.
#[allow(clippy::unreadable_literal)]
pub(crate) fn decode<D: Decode + ?Sized>(cx: &mut D) -> Result<bool, D::Fault> {
    let mut have = 0;
    let mut insn = 0;
    more(cx, &mut insn, &mut have, 8, 32)?;
    Ok(match (insn >> 28) & 0xf {
        0x0 => match (insn >> 24) & 0xf {
            0x0 => cx.nop(),
            0x1 => cx.brk(),
            _ => false,
        },
        0x1 => cx.mov(extract_mov(insn)),
        0x2 => cx.clr(extract_clr(insn))
            || {
                more(cx, &mut insn, &mut have, 16, 32)?;
                cx.set(extract_set(insn))
            },
        0x4 => match (insn >> 26) & 0x3 {
            0x0 => match (insn >> 24) & 0x3 {
                0x0 => {
                    more(cx, &mut insn, &mut have, 16, 32)?;
                    cx.bra(extract_bra(insn))
                },
                0x1 => {
                    more(cx, &mut insn, &mut have, 32, 32)?;
                    cx.jmp(extract_jmp(insn))
                },
                _ => false,
            },
            0x1 => {
                more(cx, &mut insn, &mut have, 24, 32)?;
                cx.call(extract_call(insn))
            },
            _ => false,
        },
        0x8 => {
            more(cx, &mut insn, &mut have, 16, 32)?;
            match (insn >> 16) & 0xff {
                0x1 => {
                    more(cx, &mut insn, &mut have, 32, 32)?;
                    cx.load(extract_load(insn))
                },
                0x2 => {
                    more(cx, &mut insn, &mut have, 32, 32)?;
                    cx.store(extract_store(insn))
                },
                _ => false,
            }
        },
        0x9 => cx.push(extract_push(insn)),
        _ => false,
    })
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_mov(insn: u64) -> ArgsMov {
    ArgsMov {
        rd: bits(insn, 26, 2) as i32,
        rs: bits(insn, 24, 2) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_clr(insn: u64) -> ArgsClr {
    ArgsClr {
        rd: bits(insn, 24, 4) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_set(insn: u64) -> ArgsSet {
    ArgsSet {
        imm: sbits(insn, 16, 8) as i32,
        rd: bits(insn, 24, 4) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_bra(insn: u64) -> ArgsBra {
    ArgsBra {
        disp: sbits(insn, 16, 8) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_jmp(insn: u64) -> ArgsBra {
    ArgsBra {
        disp: sbits(insn, 0, 24) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_call(insn: u64) -> ArgsBra {
    ArgsBra {
        disp: sbits(insn, 8, 16) as i32,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_load(insn: u64) -> ArgsMem {
    ArgsMem {
        base: bits(insn, 24, 4) as i32,
        disp: sbits(insn, 0, 16) as i16,
        load: true,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_store(insn: u64) -> ArgsMem {
    ArgsMem {
        base: bits(insn, 24, 4) as i32,
        disp: sbits(insn, 0, 16) as i16,
        load: false,
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::unreadable_literal)]
fn extract_push(insn: u64) -> ArgsPush {
    ArgsPush {
        a: bits(insn, 24, 4) as i32,
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

/// Makes sure that the highest `want` bits of a word of `max` bits are fetched.
#[inline]
fn more<D: Decode + ?Sized>(
    cx: &mut D,
    insn: &mut u64,
    have: &mut u32,
    want: u32,
    max: u32,
) -> Result<(), D::Fault> {
    if *have < want {
        *insn |= cx.fetch(want - *have)? << (max - want);
        *have = want;
    }
    Ok(())
}
