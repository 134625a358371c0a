//! What architectures choose where IEEE 754 leaves the choice.
//!
//! Sources: Intel SDM vol. 1 (4.8, 8.5, 11.5, 14.5), Arm ARM (A1.5, `FPProcessNaNs`, `FPMulAdd`), RISC-V vol. I
//! (11.3), Power ISA Book I (4.3), MIPS vol. I-A (5.5, 5.8), z/Architecture PoP chapter 9, SPARC V9 (B), PA-RISC 2.0
//! (chapters 8 and 10), LoongArch vol. 1 (3.1), M68000 PRM (1.6), Alpha AHB (4.7), SH-4 software manual (6).

use crate::env::Flags;

/// When a result counts as tiny (IEEE 754-2019, 7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tininess {
    /// The exact result lies below the smallest normal number.
    BeforeRounding,
    /// The result rounded as if the exponent had no lower bound does.
    AfterRounding,
}

/// The NaN that operations make; its sign and its significand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultNan {
    /// Only the highest fraction bit is set.
    HighestBit {
        /// Sign bit.
        negative: bool,
    },
    /// All fraction bits are set.
    AllOnes {
        /// Sign bit.
        negative: bool,
    },
    /// Positive, all fraction bits but the highest are set.
    AllButHighest,
    /// Positive, only the second highest fraction bit is set.
    SecondBit,
}

/// Which NaNs are signaling, and how one becomes quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quieting {
    /// The highest fraction bit is clear in signaling NaNs; it is set.
    SetHighest,
    /// The highest fraction bit is set in signaling NaNs; it is cleared, and the next one set.
    ClearHighest,
    /// The highest fraction bit is set in signaling NaNs; the default NaN takes their place.
    Replace,
}

impl Quieting {
    /// Whether a signaling NaN has the highest fraction bit set.
    pub fn signaling_bit(self) -> bool {
        !matches!(self, Quieting::SetHighest)
    }
}

/// Which of two NaN operands gives the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NanOrder {
    /// The first one.
    First,
    /// The second one.
    Second,
    /// The first signaling one, else the first.
    SignalingThenFirst,
    /// The last signaling one, else the second.
    SignalingThenSecond,
    /// The x87 rule: a quiet NaN before a signaling one, else the larger significand, else the positive one.
    LargerSignificand,
}

/// Order of preference among the operands of `a × b + c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Order {
    Abc,
    Acb,
    Cab,
    Cba,
}

/// Which of three NaN operands gives the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusedNan {
    /// Order of preference.
    pub order: Order,
    /// Whether signaling NaNs come before quiet ones.
    pub signaling_first: bool,
}

/// `∞ × 0 + NaN` in a fused operation (IEEE 754-2019, 7.2 c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfTimesZero {
    /// Whether a quiet addend is replaced by the default NaN.
    pub default_if_quiet: bool,
    /// Whether a signaling addend is.
    pub default_if_signaling: bool,
    /// Whether a quiet addend lets the operation signal invalid.
    pub invalid_if_quiet: bool,
}

/// Integer results of NaNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NanToInt {
    /// Zero.
    Zero,
    /// The smallest integer.
    Min,
    /// The largest integer.
    Max,
    /// The smallest or the largest integer, by the sign of the NaN.
    BySign,
}

/// Integer results of values that the integer type cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOverflow {
    /// The integer nearest to the value.
    Saturate(NanToInt),
    /// For signed types the smallest integer, for unsigned ones the largest, whatever the value.
    Indefinite,
    /// The largest integer, whatever the value.
    Max,
}

/// The choices of one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The NaN that invalid operations make.
    pub default_nan: DefaultNan,
    /// Whether every NaN result is the default NaN.
    pub always_default_nan: bool,
    /// Signaling NaNs.
    pub quieting: Quieting,
    /// NaN result of two operands.
    pub nan_order: NanOrder,
    /// NaN result of fused operations.
    pub fused_nan: FusedNan,
    /// `∞ × 0 + NaN`.
    pub inf_times_zero: InfTimesZero,
    /// When underflow is detected.
    pub tininess: Tininess,
    /// When a tiny result is found that is to be flushed.
    pub flush: Tininess,
    /// What flushing a result signals in addition to [`Flags::OUTPUT_FLUSHED`].
    pub flush_flags: Flags,
    /// Conversion to integers.
    pub int_overflow: IntOverflow,
}

const RETURN_NAN: InfTimesZero =
    InfTimesZero { default_if_quiet: false, default_if_signaling: false, invalid_if_quiet: true };

const fn fused(order: Order, signaling_first: bool) -> FusedNan {
    FusedNan { order, signaling_first }
}

impl Rules {
    /// What IEEE 754-2008 recommends; the base of the others.
    const BASE: Rules = Rules {
        default_nan: DefaultNan::HighestBit { negative: false },
        always_default_nan: false,
        quieting: Quieting::SetHighest,
        nan_order: NanOrder::SignalingThenFirst,
        fused_nan: fused(Order::Abc, true),
        inf_times_zero: RETURN_NAN,
        tininess: Tininess::AfterRounding,
        flush: Tininess::AfterRounding,
        flush_flags: Flags::UNDERFLOW.union(Flags::INEXACT),
        int_overflow: IntOverflow::Saturate(NanToInt::Max),
    };

    /// SSE, AVX and FMA.
    pub const X86: Rules = Rules {
        default_nan: DefaultNan::HighestBit { negative: true },
        nan_order: NanOrder::First,
        fused_nan: fused(Order::Abc, false),
        inf_times_zero: InfTimesZero { invalid_if_quiet: false, ..RETURN_NAN },
        int_overflow: IntOverflow::Indefinite,
        ..Rules::BASE
    };

    /// The x87 unit.
    pub const X87: Rules = Rules { nan_order: NanOrder::LargerSignificand, ..Rules::X86 };

    /// A-profile with FPCR.AH = 0, and M-profile.
    pub const ARM: Rules = Rules {
        fused_nan: fused(Order::Cab, true),
        inf_times_zero: InfTimesZero { default_if_quiet: true, ..RETURN_NAN },
        tininess: Tininess::BeforeRounding,
        flush: Tininess::BeforeRounding,
        flush_flags: Flags::UNDERFLOW,
        int_overflow: IntOverflow::Saturate(NanToInt::Zero),
        ..Rules::BASE
    };

    /// A-profile with FPCR.AH = 1.
    pub const ARM_ALTERNATE: Rules = Rules {
        default_nan: DefaultNan::HighestBit { negative: true },
        nan_order: NanOrder::First,
        fused_nan: fused(Order::Abc, false),
        inf_times_zero: InfTimesZero { invalid_if_quiet: false, ..RETURN_NAN },
        flush_flags: Flags::UNDERFLOW.union(Flags::INEXACT),
        tininess: Tininess::AfterRounding,
        flush: Tininess::AfterRounding,
        ..Rules::ARM
    };

    /// RISC-V F, D, Q, Zfh and Zfbfmin.
    pub const RISCV: Rules = Rules { always_default_nan: true, ..Rules::BASE };

    /// Power ISA scalar and VSX.
    pub const POWERPC: Rules = Rules {
        nan_order: NanOrder::First,
        fused_nan: fused(Order::Acb, false),
        tininess: Tininess::BeforeRounding,
        flush: Tininess::BeforeRounding,
        int_overflow: IntOverflow::Saturate(NanToInt::Min),
        ..Rules::BASE
    };

    /// MIPS before release 6, with signaling NaNs that have the highest fraction bit set.
    pub const MIPS_LEGACY: Rules = Rules {
        default_nan: DefaultNan::AllButHighest,
        quieting: Quieting::Replace,
        inf_times_zero: InfTimesZero {
            default_if_quiet: true,
            default_if_signaling: true,
            invalid_if_quiet: true,
        },
        int_overflow: IntOverflow::Max,
        ..Rules::BASE
    };

    /// MIPS with FCSR.NAN2008.
    pub const MIPS_2008: Rules = Rules {
        fused_nan: fused(Order::Cab, true),
        int_overflow: IntOverflow::Saturate(NanToInt::Zero),
        ..Rules::BASE
    };

    /// z/Architecture binary floating point.
    pub const S390X: Rules = Rules {
        inf_times_zero: InfTimesZero {
            default_if_quiet: true,
            default_if_signaling: true,
            invalid_if_quiet: true,
        },
        tininess: Tininess::BeforeRounding,
        flush: Tininess::BeforeRounding,
        int_overflow: IntOverflow::Saturate(NanToInt::Min),
        ..Rules::BASE
    };

    /// SPARC V8 and V9.
    pub const SPARC: Rules = Rules {
        default_nan: DefaultNan::AllOnes { negative: false },
        nan_order: NanOrder::SignalingThenSecond,
        fused_nan: fused(Order::Cba, true),
        tininess: Tininess::BeforeRounding,
        flush: Tininess::BeforeRounding,
        int_overflow: IntOverflow::Saturate(NanToInt::BySign),
        ..Rules::BASE
    };

    /// PA-RISC.
    pub const HPPA: Rules = Rules {
        default_nan: DefaultNan::SecondBit,
        quieting: Quieting::ClearHighest,
        tininess: Tininess::BeforeRounding,
        flush: Tininess::BeforeRounding,
        ..Rules::BASE
    };

    /// LoongArch.
    pub const LOONGARCH: Rules = Rules {
        fused_nan: fused(Order::Cab, true),
        int_overflow: IntOverflow::Saturate(NanToInt::Zero),
        ..Rules::BASE
    };

    /// M68881 and later, but for its 80-bit denormals and unnormals.
    pub const M68K: Rules = Rules {
        default_nan: DefaultNan::AllOnes { negative: false },
        nan_order: NanOrder::First,
        ..Rules::BASE
    };

    /// Alpha.
    pub const ALPHA: Rules = Rules {
        default_nan: DefaultNan::HighestBit { negative: true },
        nan_order: NanOrder::Second,
        int_overflow: IntOverflow::Saturate(NanToInt::Zero),
        ..Rules::BASE
    };

    /// SH-4.
    pub const SH4: Rules = Rules {
        default_nan: DefaultNan::AllButHighest,
        always_default_nan: true,
        quieting: Quieting::Replace,
        ..Rules::BASE
    };

    /// MicroBlaze.
    pub const MICROBLAZE: Rules = Rules {
        default_nan: DefaultNan::HighestBit { negative: true },
        always_default_nan: true,
        ..Rules::BASE
    };

    /// Hexagon.
    pub const HEXAGON: Rules = Rules {
        default_nan: DefaultNan::AllOnes { negative: true },
        always_default_nan: true,
        ..Rules::BASE
    };

    /// OpenRISC.
    pub const OPENRISC: Rules = Rules { nan_order: NanOrder::First, ..Rules::BASE };

    /// RX.
    pub const RX: Rules = Rules { nan_order: NanOrder::First, ..Rules::BASE };

    /// TriCore.
    pub const TRICORE: Rules = Rules { always_default_nan: true, ..Rules::BASE };

    /// Xtensa with the double-precision unit.
    pub const XTENSA: Rules =
        Rules { nan_order: NanOrder::Second, fused_nan: fused(Order::Cba, false), ..Rules::BASE };
}
