//! The table from patterns to the functions that translate them.

use cairn_fpu::Negate;
use cairn_tcg::ir::{IntKind, Rmw, Size};
use cairn_tcg::{Event, Op, Ty};

use crate::cpu::Extensions;
use crate::lift::Lifter;
use crate::lift::decode::{self, Decode};
use crate::lift_bits::ShiftAdd;
use crate::lift_float::Sign;
use crate::lift_int::Width;
use crate::lift_system::CsrOp;

/// One method for each pattern: its name and arguments, the function, and what that is told.
macro_rules! patterns {
    ($($extension:ident { $($name:ident $args:ident $target:ident($($extra:expr),*))* })*) => {
        $($(
            fn $name(&mut self, args: decode::$args) -> bool {
                self.has(Extensions::$extension) && self.$target(args, $($extra),*)
            }
        )*)*
    };
}

/// As [`patterns`], for three formats at once: single, double, half. The type is the last that the function is told.
macro_rules! float_patterns {
    ($([$s:ident $d:ident $h:ident] $args:ident $target:ident($($extra:expr),*))*) => {
        patterns! {
            F { $($s $args $target($($extra,)* Ty::F32))* }
            D { $($d $args $target($($extra,)* Ty::F64))* }
            ZFH { $($h $args $target($($extra,)* Ty::F16))* }
        }
    };
}

/// The base is always there.
impl Extensions {
    const BASE: Extensions = Extensions::empty();
}

use Width::{Register, Word};

impl Decode for Lifter<'_, '_> {
    fn times_2(&mut self, value: i64) -> i64 {
        value * 2
    }

    fn times_4(&mut self, value: i64) -> i64 {
        value * 4
    }

    fn times_8(&mut self, value: i64) -> i64 {
        value * 8
    }

    fn times_16(&mut self, value: i64) -> i64 {
        value * 16
    }

    fn times_4096(&mut self, value: i64) -> i64 {
        value * 4096
    }

    fn compressed(&mut self, value: i64) -> i64 {
        value + 8
    }

    fn illegal(&mut self) -> bool {
        self.event(Event::Illegal)
    }

    fn ecall(&mut self) -> bool {
        self.event(Event::Syscall)
    }

    fn ebreak(&mut self) -> bool {
        self.event(Event::Breakpoint)
    }

    fn fence(&mut self) -> bool {
        self.cx.fence(Op::Fence);
        true
    }

    fn fence_i(&mut self) -> bool {
        self.cx.fence(Op::FenceCode);
        self.leave();
        true
    }

    fn pause(&mut self) -> bool {
        true
    }

    fn wrs_nto(&mut self) -> bool {
        self.wait_on_reservation()
    }

    fn wrs_sto(&mut self) -> bool {
        self.wait_on_reservation()
    }

    float_patterns! {
        [flw fld flh] ArgsI float_load()
        [fsw fsd fsh] ArgsS float_store()
        [fmadd_s fmadd_d fmadd_h] ArgsFr4 fused(Negate::empty())
        [fmsub_s fmsub_d fmsub_h] ArgsFr4 fused(Negate::ADDEND)
        [fnmsub_s fnmsub_d fnmsub_h] ArgsFr4 fused(Negate::PRODUCT)
        [fnmadd_s fnmadd_d fnmadd_h] ArgsFr4 fused(Negate::PRODUCT.union(Negate::ADDEND))
        [fadd_s fadd_d fadd_h] ArgsFr arithmetic(Op::FAdd)
        [fsub_s fsub_d fsub_h] ArgsFr arithmetic(Op::FSub)
        [fmul_s fmul_d fmul_h] ArgsFr arithmetic(Op::FMul)
        [fdiv_s fdiv_d fdiv_h] ArgsFr arithmetic(Op::FDiv)
        [fsqrt_s fsqrt_d fsqrt_h] ArgsFr2 square_root()
        [fsgnj_s fsgnj_d fsgnj_h] ArgsR sign(Sign::Copy)
        [fsgnjn_s fsgnjn_d fsgnjn_h] ArgsR sign(Sign::CopyNegated)
        [fsgnjx_s fsgnjx_d fsgnjx_h] ArgsR sign(Sign::Xor)
        [fmin_s fmin_d fmin_h] ArgsR extremum(Op::FMin)
        [fmax_s fmax_d fmax_h] ArgsR extremum(Op::FMax)
        [fle_s fle_d fle_h] ArgsR compare(Op::FSetLe)
        [flt_s flt_d flt_h] ArgsR compare(Op::FSetLt)
        [feq_s feq_d feq_h] ArgsR compare(Op::FSetEq)
        [fclass_s fclass_d fclass_h] ArgsR2 classify()
        [fmv_x_w fmv_x_d fmv_x_h] ArgsR2 move_to_x()
        [fmv_w_x fmv_d_x fmv_h_x] ArgsR2 move_from_x()
        [fcvt_w_s fcvt_w_d fcvt_w_h] ArgsFr2 convert_to_integer(IntKind::I32)
        [fcvt_wu_s fcvt_wu_d fcvt_wu_h] ArgsFr2 convert_to_integer(IntKind::U32)
        [fcvt_l_s fcvt_l_d fcvt_l_h] ArgsFr2 convert_to_integer(IntKind::I64)
        [fcvt_lu_s fcvt_lu_d fcvt_lu_h] ArgsFr2 convert_to_integer(IntKind::U64)
        [fcvt_s_w fcvt_d_w fcvt_h_w] ArgsFr2 convert_from_integer(IntKind::I32)
        [fcvt_s_wu fcvt_d_wu fcvt_h_wu] ArgsFr2 convert_from_integer(IntKind::U32)
        [fcvt_s_l fcvt_d_l fcvt_h_l] ArgsFr2 convert_from_integer(IntKind::I64)
        [fcvt_s_lu fcvt_d_lu fcvt_h_lu] ArgsFr2 convert_from_integer(IntKind::U64)
    }

    patterns! {
        BASE {
            lui ArgsU upper()
            auipc ArgsU upper_pc()
            jal ArgsJ jump_and_link()
            jalr ArgsI jump_register()
            beq ArgsB conditional(Op::BrEq)
            bne ArgsB conditional(Op::BrNe)
            blt ArgsB conditional(Op::BrLt)
            bge ArgsB conditional(Op::BrGe)
            bltu ArgsB conditional(Op::BrLtU)
            bgeu ArgsB conditional(Op::BrGeU)
            lb ArgsI load(Size::B1, true)
            lh ArgsI load(Size::B2, true)
            lw ArgsI load(Size::B4, true)
            ld ArgsI load(Size::B8, true)
            ld_c ArgsI load_compressed()
            lbu ArgsI load(Size::B1, false)
            lhu ArgsI load(Size::B2, false)
            lwu ArgsI load(Size::B4, false)
            sb ArgsS store(Size::B1)
            sh ArgsS store(Size::B2)
            sw ArgsS store(Size::B4)
            sd ArgsS store(Size::B8)
            addi ArgsI immediate(Op::Add, Register)
            slti ArgsI immediate(Op::SetLt, Register)
            sltiu ArgsI immediate(Op::SetLtU, Register)
            xori ArgsI immediate(Op::Xor, Register)
            ori ArgsI immediate(Op::Or, Register)
            andi ArgsI immediate(Op::And, Register)
            addiw ArgsI immediate(Op::Add, Word)
            addiw_c ArgsI add_word_compressed()
            slli ArgsSh shift(Op::Shl, Register)
            srli ArgsSh shift(Op::Shr, Register)
            srai ArgsSh shift(Op::Sar, Register)
            slliw ArgsSh shift(Op::Shl, Word)
            srliw ArgsSh shift(Op::Shr, Word)
            sraiw ArgsSh shift(Op::Sar, Word)
            add ArgsR register(Op::Add, Register)
            sub ArgsR register(Op::Sub, Register)
            sll ArgsR register(Op::Shl, Register)
            slt ArgsR register(Op::SetLt, Register)
            sltu ArgsR register(Op::SetLtU, Register)
            xor ArgsR register(Op::Xor, Register)
            srl ArgsR register(Op::Shr, Register)
            sra ArgsR register(Op::Sar, Register)
            or ArgsR register(Op::Or, Register)
            and ArgsR register(Op::And, Register)
            addw ArgsR register(Op::Add, Word)
            subw ArgsR register(Op::Sub, Word)
            sllw ArgsR register(Op::Shl, Word)
            srlw ArgsR register(Op::Shr, Word)
            sraw ArgsR register(Op::Sar, Word)
            csrrw ArgsCsr csr_register(CsrOp::Write)
            csrrs ArgsCsr csr_register(CsrOp::Set)
            csrrc ArgsCsr csr_register(CsrOp::Clear)
            csrrwi ArgsCsr csr_immediate(CsrOp::Write)
            csrrsi ArgsCsr csr_immediate(CsrOp::Set)
            csrrci ArgsCsr csr_immediate(CsrOp::Clear)
        }
        M {
            mul ArgsR register(Op::Mul, Register)
            mulh ArgsR register(Op::MulHiS, Register)
            mulhsu ArgsR register(Op::MulHiSU, Register)
            mulhu ArgsR register(Op::MulHiU, Register)
            div ArgsR register(Op::DivS, Register)
            divu ArgsR register(Op::DivU, Register)
            rem ArgsR register(Op::RemS, Register)
            remu ArgsR register(Op::RemU, Register)
            mulw ArgsR register(Op::Mul, Word)
            divw ArgsR register(Op::DivS, Word)
            divuw ArgsR register(Op::DivU, Word)
            remw ArgsR register(Op::RemS, Word)
            remuw ArgsR register(Op::RemU, Word)
        }
        A {
            lr_w ArgsAmo load_reserved(Size::B4)
            lr_d ArgsAmo load_reserved(Size::B8)
            sc_w ArgsAmo store_conditional(Size::B4)
            sc_d ArgsAmo store_conditional(Size::B8)
            amoswap_w ArgsAmo atomic(Rmw::Swap, Size::B4)
            amoadd_w ArgsAmo atomic(Rmw::Add, Size::B4)
            amoxor_w ArgsAmo atomic(Rmw::Xor, Size::B4)
            amoand_w ArgsAmo atomic(Rmw::And, Size::B4)
            amoor_w ArgsAmo atomic(Rmw::Or, Size::B4)
            amomin_w ArgsAmo atomic(Rmw::MinS, Size::B4)
            amomax_w ArgsAmo atomic(Rmw::MaxS, Size::B4)
            amominu_w ArgsAmo atomic(Rmw::MinU, Size::B4)
            amomaxu_w ArgsAmo atomic(Rmw::MaxU, Size::B4)
            amoswap_d ArgsAmo atomic(Rmw::Swap, Size::B8)
            amoadd_d ArgsAmo atomic(Rmw::Add, Size::B8)
            amoxor_d ArgsAmo atomic(Rmw::Xor, Size::B8)
            amoand_d ArgsAmo atomic(Rmw::And, Size::B8)
            amoor_d ArgsAmo atomic(Rmw::Or, Size::B8)
            amomin_d ArgsAmo atomic(Rmw::MinS, Size::B8)
            amomax_d ArgsAmo atomic(Rmw::MaxS, Size::B8)
            amominu_d ArgsAmo atomic(Rmw::MinU, Size::B8)
            amomaxu_d ArgsAmo atomic(Rmw::MaxU, Size::B8)
        }
        ZACAS {
            amocas_w ArgsAmo compare_and_swap(Size::B4)
            amocas_d ArgsAmo compare_and_swap(Size::B8)
            amocas_q ArgsAmo compare_and_swap_quad()
        }
        D {
            fcvt_s_d ArgsFr2 convert(Ty::F64, Ty::F32)
            fcvt_d_s ArgsFr2 convert(Ty::F32, Ty::F64)
        }
        ZFH {
            fcvt_s_h ArgsFr2 convert(Ty::F16, Ty::F32)
            fcvt_h_s ArgsFr2 convert(Ty::F32, Ty::F16)
            fcvt_d_h ArgsFr2 convert(Ty::F16, Ty::F64)
            fcvt_h_d ArgsFr2 convert(Ty::F64, Ty::F16)
        }
        ZBA {
            sh1add ArgsR shift_add(ShiftAdd { amount: 1, word: false })
            sh2add ArgsR shift_add(ShiftAdd { amount: 2, word: false })
            sh3add ArgsR shift_add(ShiftAdd { amount: 3, word: false })
            add_uw ArgsR shift_add(ShiftAdd { amount: 0, word: true })
            sh1add_uw ArgsR shift_add(ShiftAdd { amount: 1, word: true })
            sh2add_uw ArgsR shift_add(ShiftAdd { amount: 2, word: true })
            sh3add_uw ArgsR shift_add(ShiftAdd { amount: 3, word: true })
            slli_uw ArgsSh shift_unsigned_word()
        }
        ZBB {
            andn ArgsR register(Op::AndNot, Register)
            orn ArgsR or_not()
            xnor ArgsR xor_not()
            clz ArgsR2 count(Op::Clz, Register)
            ctz ArgsR2 count(Op::Ctz, Register)
            cpop ArgsR2 count(Op::Popcnt, Register)
            clzw ArgsR2 count(Op::Clz, Word)
            ctzw ArgsR2 count(Op::Ctz, Word)
            cpopw ArgsR2 count(Op::Popcnt, Word)
            sext_b ArgsR2 narrow(Op::Sext, Ty::I8)
            sext_h ArgsR2 narrow(Op::Sext, Ty::I16)
            zext_h_32 ArgsR2 zero_extend_half(Ty::I32)
            zext_h_64 ArgsR2 zero_extend_half(Ty::I64)
            max ArgsR register(Op::MaxS, Register)
            maxu ArgsR register(Op::MaxU, Register)
            min ArgsR register(Op::MinS, Register)
            minu ArgsR register(Op::MinU, Register)
            rol ArgsR register(Op::Rotl, Register)
            ror ArgsR register(Op::Rotr, Register)
            rori ArgsSh shift(Op::Rotr, Register)
            rolw ArgsR register(Op::Rotl, Word)
            rorw ArgsR register(Op::Rotr, Word)
            roriw ArgsSh shift(Op::Rotr, Word)
            orc_b ArgsR2 or_combine_bytes()
            rev8_32 ArgsR2 reverse_bytes(Ty::I32)
            rev8_64 ArgsR2 reverse_bytes(Ty::I64)
        }
        ZBC {
            clmul ArgsR register(Op::ClMul, Register)
            clmulh ArgsR register(Op::ClMulHi, Register)
            clmulr ArgsR carryless_reversed()
        }
        ZBS {
            bclr ArgsR bit(Op::AndNot)
            binv ArgsR bit(Op::Xor)
            bset ArgsR bit(Op::Or)
            bext ArgsR extract_bit()
            bclri ArgsSh bit_immediate(Op::AndNot)
            binvi ArgsSh bit_immediate(Op::Xor)
            bseti ArgsSh bit_immediate(Op::Or)
            bexti ArgsSh extract_bit_immediate()
        }
        ZICOND {
            czero_eqz ArgsR conditional_zero(true)
            czero_nez ArgsR conditional_zero(false)
        }
        ZICBOM {
            cbo_inval ArgsCbo cache_block()
            cbo_clean ArgsCbo cache_block()
            cbo_flush ArgsCbo cache_block()
        }
        ZICBOZ {
            cbo_zero ArgsCbo zero_cache_block()
        }
    }
}
