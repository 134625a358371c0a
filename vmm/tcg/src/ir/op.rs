//! The operations.

/// Which fields of a [`Uop`](super::Uop) an operation uses, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `d` gets the 64 bits in `a`, `b` and `imm`.
    Const,
    /// `d` from `a`.
    Unary,
    /// `d` from `a` and `b`, where `b` may be the immediate.
    Binary,
    /// `d` from `a`, `b` and the slot in `imm`.
    Select,
    /// `d` from memory at `a` plus an offset, by the [`MemOp`](super::MemOp) in `imm`.
    Load,
    /// `b` to memory at `a` plus an offset.
    Store,
    /// `d` from memory at `a`, which is combined with `b`.
    Rmw,
    /// `d` from memory at `a`, compared with `b`, replaced by the slot in `imm`.
    Cas,
    /// As `Cas`, with each value in two slots in a row.
    CasPair,
    /// No operands.
    Fence,
    /// `d` from `a`, by the [`FloatOp`](super::FloatOp) in `imm`.
    FloatUnary,
    /// `d` from `a` and `b`.
    FloatBinary,
    /// `d` from `a`, `b` and the slot in `imm`.
    FloatFused,
    /// To the operation with the number in `d` if `a` and `b` compare so; `b` may be the immediate.
    Branch,
    /// To the operation with the number in `d`.
    Jump,
    /// Leaves to the 64-bit address in `a`, `b` and `imm`; `d` numbers the exit.
    Exit,
    /// Leaves to the address in `a`.
    ExitTo,
    /// Leaves with the event in `imm`.
    Raise,
    /// `d` from `a` and `b` by the helper with the number in `imm`.
    Call,
}

macro_rules! ops {
    ($( $(#[$doc:meta])* $name:ident $text:literal $shape:ident )*) => {
        /// What a micro-operation does.
        ///
        /// Integer operations have a type: `I64` uses whole words; `I32` uses the low halves of its operands and
        /// clears the high half of its result. All of them are total.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Op {
            $( $(#[$doc])* $name, )*
        }

        impl Op {
            /// All operations.
            pub const ALL: &'static [Op] = &[$(Op::$name),*];

            /// Name in listings.
            pub fn name(self) -> &'static str {
                match self { $(Op::$name => $text,)* }
            }

            /// How the operation uses its fields.
            #[inline]
            pub fn shape(self) -> Shape {
                match self { $(Op::$name => Shape::$shape,)* }
            }
        }
    };
}

ops! {
    /// A constant.
    Const "const" Const
    /// `a`
    Mov "mov" Unary
    /// `!a`
    Not "not" Unary
    /// Leading zeros; the width of the type for zero.
    Clz "clz" Unary
    /// Trailing zeros; the width of the type for zero.
    Ctz "ctz" Unary
    /// Bits that are set.
    Popcnt "popcnt" Unary
    /// Bytes in reverse.
    Bswap "bswap" Unary
    /// The low 8, 16 or 32 bits (the type), sign-extended to the word.
    Sext "sext" Unary
    /// The low 8, 16 or 32 bits (the type), zero-extended to the word.
    Zext "zext" Unary
    /// A float of the type with ones above it, as a word holds narrow floats on some architectures.
    BoxNan "box" Unary
    /// The float of the type in a word with ones above it, else the default NaN.
    UnboxNan "unbox" Unary

    /// `a + b`
    Add "add" Binary
    /// `a - b`
    Sub "sub" Binary
    /// `a × b`, low half
    Mul "mul" Binary
    /// `a × b`, high half, signed
    MulHiS "mulhis" Binary
    /// `a × b`, high half, unsigned
    MulHiU "mulhiu" Binary
    /// `a × b`, high half, of signed `a` and unsigned `b`
    MulHiSU "mulhisu" Binary
    /// Carry-less product, low half
    ClMul "clmul" Binary
    /// Carry-less product, high half
    ClMulHi "clmulhi" Binary
    /// Signed quotient; all ones for a zero divisor, the dividend if the quotient does not fit
    DivS "divs" Binary
    /// Unsigned quotient; all ones for a zero divisor
    DivU "divu" Binary
    /// Signed remainder; the dividend for a zero divisor, zero if the quotient does not fit
    RemS "rems" Binary
    /// Unsigned remainder; the dividend for a zero divisor
    RemU "remu" Binary
    /// `a & b`
    And "and" Binary
    /// `a & !b`
    AndNot "andnot" Binary
    /// `a | b`
    Or "or" Binary
    /// `a ^ b`
    Xor "xor" Binary
    /// `a << b`, with `b` modulo the width
    Shl "shl" Binary
    /// `a >> b`, zeros coming in
    Shr "shr" Binary
    /// `a >> b`, copies of the sign coming in
    Sar "sar" Binary
    /// `a` rotated left by `b`
    Rotl "rotl" Binary
    /// `a` rotated right by `b`
    Rotr "rotr" Binary
    /// The signed minimum
    MinS "mins" Binary
    /// The unsigned minimum
    MinU "minu" Binary
    /// The signed maximum
    MaxS "maxs" Binary
    /// The unsigned maximum
    MaxU "maxu" Binary
    /// 1 if `a == b`, else 0
    SetEq "seteq" Binary
    /// 1 if `a != b`, else 0
    SetNe "setne" Binary
    /// 1 if `a < b`, signed, else 0
    SetLt "setlt" Binary
    /// 1 if `a >= b`, signed, else 0
    SetGe "setge" Binary
    /// 1 if `a < b`, unsigned, else 0
    SetLtU "setltu" Binary
    /// 1 if `a >= b`, unsigned, else 0
    SetGeU "setgeu" Binary
    /// `b` if `a` is not zero, else the slot in `imm`
    Select "select" Select

    /// A load.
    Load "load" Load
    /// A store.
    Store "store" Store
    /// An atomic read-modify-write.
    AtomicRmw "rmw" Rmw
    /// An atomic compare-and-swap.
    AtomicCas "cas" Cas
    /// An atomic compare-and-swap of 16 bytes, aligned.
    AtomicCasPair "caspair" CasPair
    /// Orders all accesses before it with all behind it.
    Fence "fence" Fence
    /// Lets instruction fetches from here on see earlier stores. The block must end behind it.
    FenceCode "fencecode" Fence

    /// Square root.
    FSqrt "fsqrt" FloatUnary
    /// Conversion of the type to the integer in `imm`.
    FToInt "ftoint" FloatUnary
    /// Conversion of the integer in `imm` to the type.
    FFromInt "ffromint" FloatUnary
    /// Conversion of the type to the one in `imm`.
    FConvert "fconvert" FloatUnary
    /// Sum.
    FAdd "fadd" FloatBinary
    /// Difference.
    FSub "fsub" FloatBinary
    /// Product.
    FMul "fmul" FloatBinary
    /// Quotient.
    FDiv "fdiv" FloatBinary
    /// `minimumNumber` of IEEE 754-2019.
    FMin "fmin" FloatBinary
    /// `maximumNumber` of IEEE 754-2019.
    FMax "fmax" FloatBinary
    /// 1 if equal, else 0; only signaling NaNs are invalid.
    FSetEq "fseteq" FloatBinary
    /// 1 if `a < b`, else 0; NaNs are invalid.
    FSetLt "fsetlt" FloatBinary
    /// 1 if `a <= b`, else 0; NaNs are invalid.
    FSetLe "fsetle" FloatBinary
    /// `a × b + c`, rounded once, with the signs that `imm` says.
    FFused "ffused" FloatFused

    /// Branches if `a == b`.
    BrEq "breq" Branch
    /// Branches if `a != b`.
    BrNe "brne" Branch
    /// Branches if `a < b`, signed.
    BrLt "brlt" Branch
    /// Branches if `a >= b`, signed.
    BrGe "brge" Branch
    /// Branches if `a < b`, unsigned.
    BrLtU "brltu" Branch
    /// Branches if `a >= b`, unsigned.
    BrGeU "brgeu" Branch
    /// Branches always.
    Jump "jump" Jump
    /// Goes to a constant address.
    Exit "exit" Exit
    /// Goes to a computed address.
    ExitTo "exitto" ExitTo
    /// Raises an event at this instruction.
    Raise "raise" Raise
    /// Calls a helper.
    Call "call" Call
}

impl Op {
    /// The comparison that a conditional branch makes.
    pub(crate) fn condition(self) -> Option<Op> {
        Some(match self {
            Op::BrEq => Op::SetEq,
            Op::BrNe => Op::SetNe,
            Op::BrLt => Op::SetLt,
            Op::BrGe => Op::SetGe,
            Op::BrLtU => Op::SetLtU,
            Op::BrGeU => Op::SetGeU,
            _ => return None,
        })
    }

    /// Whether control never goes on behind the operation.
    pub fn ends(self) -> bool {
        matches!(self.shape(), Shape::Jump | Shape::Exit | Shape::ExitTo | Shape::Raise)
    }

    /// Whether the only effect is the value of `d`.
    pub fn is_pure(self) -> bool {
        matches!(self.shape(), Shape::Const | Shape::Unary | Shape::Binary | Shape::Select)
    }

    /// Whether the guest's state may be looked at here: the operation may fault, leave, or call a helper.
    pub fn observes(self) -> bool {
        match self.shape() {
            Shape::Load
            | Shape::Store
            | Shape::Rmw
            | Shape::Cas
            | Shape::CasPair
            | Shape::Exit
            | Shape::ExitTo
            | Shape::Raise
            | Shape::Call => true,
            Shape::Const
            | Shape::Unary
            | Shape::Binary
            | Shape::Select
            | Shape::Fence
            | Shape::FloatUnary
            | Shape::FloatBinary
            | Shape::FloatFused
            | Shape::Branch
            | Shape::Jump => false,
        }
    }
}
