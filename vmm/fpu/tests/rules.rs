//! What architectures choose: NaNs, flushing, tininess, integers, minima. Values are those of the manuals
//! named in the documentation of `Rules`.

mod support;

use cairn_fpu::*;

const QUIET: u32 = 0x7fc0_0000;
const INFINITY: u32 = 0x7f80_0000;
const SMALLEST_NORMAL: u32 = 0x0080_0000;

fn f32(bits: u32) -> F32 {
    F32::from_bits(bits)
}

#[test]
fn invalid_operations_make_the_default_nan() {
    for (rules, single, double) in [
        (&Rules::X86, 0xffc0_0000, 0xfff8_0000_0000_0000_u64),
        (&Rules::ARM, QUIET, 0x7ff8_0000_0000_0000),
        (&Rules::ARM_ALTERNATE, 0xffc0_0000, 0xfff8_0000_0000_0000),
        (&Rules::RISCV, QUIET, 0x7ff8_0000_0000_0000),
        (&Rules::POWERPC, QUIET, 0x7ff8_0000_0000_0000),
        (&Rules::MIPS_LEGACY, 0x7fbf_ffff, 0x7ff7_ffff_ffff_ffff),
        (&Rules::SH4, 0x7fbf_ffff, 0x7ff7_ffff_ffff_ffff),
        (&Rules::SPARC, 0x7fff_ffff, 0x7fff_ffff_ffff_ffff),
        (&Rules::HPPA, 0x7fa0_0000, 0x7ff4_0000_0000_0000),
        (&Rules::HEXAGON, 0xffff_ffff, 0xffff_ffff_ffff_ffff),
    ] {
        let mut env = Env::new(rules);
        let zero = F32::zero(false);
        assert_eq!(div(zero, zero, &mut env), f32(single), "{rules:?}");
        assert_eq!(env.take_flags(), Flags::INVALID | Flags::INVALID_ZERO_DIV);
        let infinity = F64::infinity(false);
        assert_eq!(sub(infinity, infinity, &mut env), F64::from_bits(double), "{rules:?}");
        assert_eq!(env.take_flags(), Flags::INVALID | Flags::INVALID_INF_SUB);
        assert!(!f32(single).is_signaling_nan(rules));
    }
    let mut env = Env::new(&Rules::X87);
    let root = sqrt(F80::new(0xbfff, 1 << 63), &mut env);
    assert_eq!(root.to_parts(), (0xffff, 3 << 62));
    assert_eq!(env.flags, Flags::INVALID | Flags::INVALID_SQRT);
}

#[test]
fn two_nan_operands_are_chosen_between() {
    let [quiet_1, quiet_2] = [0x7fc0_0001, 0xffc0_0002];
    let [signaling_1, signaling_2] = [0x7f80_0003, 0x7f80_0004];
    let quieted = |bits: u32| bits | 0x0040_0000;
    // Rules; results for (q1, q2), (q1, s2), (s1, q2), (s1, s2).
    for (rules, [qq, qs, sq, ss]) in [
        (&Rules::X86, [quiet_1, quiet_1, quieted(signaling_1), quieted(signaling_1)]),
        (&Rules::X87, [quiet_2, quiet_1, quiet_2, quieted(signaling_2)]),
        (&Rules::ARM, [quiet_1, quieted(signaling_2), quieted(signaling_1), quieted(signaling_1)]),
        (&Rules::POWERPC, [quiet_1, quiet_1, quieted(signaling_1), quieted(signaling_1)]),
        (
            &Rules::SPARC,
            [quiet_2, quieted(signaling_2), quieted(signaling_1), quieted(signaling_2)],
        ),
        (&Rules::ALPHA, [quiet_2, quieted(signaling_2), quiet_2, quieted(signaling_2)]),
        (&Rules::RISCV, [QUIET; 4]),
    ] {
        for (a, b, expected, invalid) in [
            (quiet_1, quiet_2, qq, false),
            (quiet_1, signaling_2, qs, true),
            (signaling_1, quiet_2, sq, true),
            (signaling_1, signaling_2, ss, true),
        ] {
            let mut env = Env::new(rules);
            assert_eq!(add(f32(a), f32(b), &mut env), f32(expected), "{a:#x} {b:#x} {rules:?}");
            assert_eq!(env.flags.contains(Flags::INVALID_SNAN), invalid);
            // Subtraction does not change the sign of a NaN.
            assert_eq!(sub(f32(a), f32(b), &mut env), f32(expected), "{a:#x} {b:#x} {rules:?}");
        }
    }
    let mut env = Env { default_nan: true, ..Env::new(&Rules::ARM) };
    assert_eq!(mul(f32(quiet_2), f32(quiet_1), &mut env), f32(QUIET));
    assert_eq!(env.flags, Flags::empty());
}

#[test]
fn signaling_nans_with_the_bit_set_become_quiet() {
    let one = F32::from(1.0);
    for (rules, expected) in [(&Rules::HPPA, 0x7fa0_0001), (&Rules::MIPS_LEGACY, 0x7fbf_ffff)] {
        let mut env = Env::new(rules);
        assert!(f32(0x7fc0_0001).is_signaling_nan(rules));
        assert_eq!(add(f32(0x7fc0_0001), one, &mut env), f32(expected));
        assert_eq!(env.take_flags(), Flags::INVALID | Flags::INVALID_SNAN);
        assert_eq!(add(f32(0x7f80_0001), one, &mut env), f32(0x7f80_0001));
        assert_eq!(env.flags, Flags::empty());
    }
}

#[test]
fn fused_operations_choose_among_three_nans() {
    let [a, b, c] = [0x7fc0_000a, 0x7fc0_000b, 0x7fc0_000c].map(f32);
    let signaling = f32(0x7f80_000b);
    for (rules, plain, with_signaling) in [
        (&Rules::X86, 0x7fc0_000a, 0x7fc0_000a),
        (&Rules::ARM, 0x7fc0_000c, 0x7fc0_000b),
        (&Rules::POWERPC, 0x7fc0_000a, 0x7fc0_000a),
        (&Rules::S390X, 0x7fc0_000a, 0x7fc0_000b),
        (&Rules::SPARC, 0x7fc0_000c, 0x7fc0_000b),
        (&Rules::RISCV, QUIET, QUIET),
    ] {
        let mut env = Env::new(rules);
        assert_eq!(fma(a, b, c, &mut env), f32(plain), "{rules:?}");
        assert_eq!(env.take_flags(), Flags::empty());
        assert_eq!(fma(a, signaling, c, &mut env), f32(with_signaling), "{rules:?}");
        assert_eq!(env.flags, Flags::INVALID | Flags::INVALID_SNAN);
        // Negations leave NaNs alone.
        let negate = Negate::all();
        assert_eq!(fma_with(a, b, c, negate, 0, &mut env), f32(plain), "{rules:?}");
    }
    // Power prefers the addend to the second factor.
    let one = F32::from(1.0);
    assert_eq!(fma(one, b, c, &mut Env::new(&Rules::POWERPC)), c);
    assert_eq!(fma(one, b, c, &mut Env::new(&Rules::X86)), b);
}

#[test]
fn infinity_times_zero_plus_nan() {
    let (infinity, zero) = (f32(INFINITY), F32::zero(true));
    let (quiet, signaling) = (f32(0x7fc0_0007), f32(0x7f80_0007));
    for (rules, of_quiet, of_signaling, invalid) in [
        (&Rules::X86, 0x7fc0_0007, 0x7fc0_0007, false),
        (&Rules::ARM, QUIET, 0x7fc0_0007, true),
        (&Rules::RISCV, QUIET, QUIET, true),
        (&Rules::POWERPC, 0x7fc0_0007, 0x7fc0_0007, true),
        (&Rules::S390X, QUIET, QUIET, true),
        (&Rules::MIPS_2008, 0x7fc0_0007, 0x7fc0_0007, true),
    ] {
        for (a, b) in [(infinity, zero), (zero, infinity)] {
            let mut env = Env::new(rules);
            assert_eq!(fma(a, b, quiet, &mut env), f32(of_quiet), "{rules:?}");
            assert_eq!(env.take_flags().contains(Flags::INVALID_INF_MUL), invalid, "{rules:?}");
            assert_eq!(fma(a, b, signaling, &mut env), f32(of_signaling), "{rules:?}");
            assert!(env.flags.contains(Flags::INVALID_SNAN));
        }
    }
}

#[test]
fn nans_keep_the_top_of_their_payload_in_conversions() {
    let mut env = Env::new(&Rules::ARM);
    let wide: F64 = convert(f32(0xffc1_2345), &mut env);
    assert_eq!(wide, F64::from_bits(0xfff8_2468_a000_0000));
    let narrow: F16 = convert(f32(0xffc1_2345), &mut env);
    assert_eq!(narrow, F16::from_bits(0xfe09));
    assert_eq!(env.flags, Flags::empty());
    let quieted: F64 = convert(f32(0x7f80_0001), &mut env);
    assert_eq!(quieted, F64::from_bits(0x7ff8_0000_2000_0000));
    assert_eq!(env.flags, Flags::INVALID | Flags::INVALID_SNAN);
    // A quiet NaN without its highest bit whose payload does not fit must stay a NaN.
    let mut env = Env::new(&Rules::HPPA);
    let narrow: F32 = convert(F64::from_bits(0x7ff0_0000_0000_0001), &mut env);
    assert!(narrow.is_nan());
}

#[test]
fn denormal_operands_are_used_or_flushed() {
    let (denormal, one) = (f32(1), F32::from(1.0));
    let mut env = Env::new(&Rules::X86);
    assert_eq!(mul(denormal, one, &mut env), denormal);
    assert_eq!(env.take_flags(), Flags::INPUT_DENORMAL);
    assert_eq!(add(denormal, f32(QUIET), &mut env), f32(QUIET));
    assert_eq!(env.take_flags(), Flags::empty());
    env.flush_inputs = true;
    assert_eq!(mul(denormal.negated(), one, &mut env), F32::zero(true));
    assert_eq!(env.take_flags(), Flags::INPUT_FLUSHED);
    assert_eq!(compare(denormal, F32::zero(true), &mut env), Relation::Equal);
    assert_eq!(div(one, denormal, &mut env), f32(INFINITY));
    assert!(env.flags.contains(Flags::DIVIDE_BY_ZERO));
}

#[test]
fn tiny_results_are_flushed_as_the_architecture_finds_them() {
    let half = F32::from(0.5);
    let normal = f32(SMALLEST_NORMAL);
    for (rules, flags) in [
        (&Rules::X86, Flags::OUTPUT_FLUSHED | Flags::UNDERFLOW | Flags::INEXACT),
        (&Rules::ARM, Flags::OUTPUT_FLUSHED | Flags::UNDERFLOW),
    ] {
        let mut env = Env { flush_outputs: true, ..Env::new(rules) };
        assert_eq!(mul(normal.negated(), half, &mut env), F32::zero(true));
        assert_eq!(env.take_flags(), flags);
        assert_eq!(add(normal, normal, &mut env), f32(2 * SMALLEST_NORMAL));
        assert_eq!(env.take_flags(), Flags::empty());
        // On the host fast path too.
        env.flags = Flags::INEXACT;
        assert_eq!(mul(normal, half, &mut env), F32::zero(false));
        assert!(env.flags.contains(flags));
    }
    // (1 + 2^-13)/2 × (2 − 2^-12) × 2^-126 = (1 − 2^-26) × 2^-126, which rounds to the smallest normal number.
    let (a, b) = (f32(0x3f00_0400), f32(0x00ff_f800));
    for (rules, expected, flags) in [
        (&Rules::X86, SMALLEST_NORMAL, Flags::INEXACT),
        (&Rules::ARM, 0, Flags::OUTPUT_FLUSHED | Flags::UNDERFLOW),
    ] {
        let mut env = Env { flush_outputs: true, ..Env::new(rules) };
        assert_eq!(mul(a, b, &mut env), f32(expected), "{rules:?}");
        assert_eq!(env.take_flags(), flags);
        env.flush_outputs = false;
        assert_eq!(mul(a, b, &mut env), f32(SMALLEST_NORMAL));
        let underflow = rules.tininess == Tininess::BeforeRounding;
        assert_eq!(env.flags.contains(Flags::UNDERFLOW), underflow);
    }
}

#[test]
fn unrepresentable_integers() {
    let [large, small, nan] = [F64::from(1e30), F64::from(-1e30), F64::from(f64::NAN)];
    for (rules, [of_large, of_small, of_nan], unsigned) in [
        (&Rules::X86, [i32::MIN; 3], [u32::MAX; 3]),
        (&Rules::ARM, [i32::MAX, i32::MIN, 0], [u32::MAX, 0, 0]),
        (&Rules::RISCV, [i32::MAX, i32::MIN, i32::MAX], [u32::MAX, 0, u32::MAX]),
        (&Rules::POWERPC, [i32::MAX, i32::MIN, i32::MIN], [u32::MAX, 0, 0]),
        (&Rules::MIPS_LEGACY, [i32::MAX; 3], [u32::MAX; 3]),
    ] {
        for (value, signed, unsigned) in [
            (large, of_large, unsigned[0]),
            (small, of_small, unsigned[1]),
            (nan, of_nan, unsigned[2]),
        ] {
            let mut env = Env::new(rules);
            assert_eq!(to_int::<_, i32>(value, Rounding::TowardZero, &mut env), signed);
            assert!(env.take_flags().contains(Flags::INVALID | Flags::INVALID_CONVERSION));
            assert_eq!(to_int::<_, u32>(value, Rounding::TowardZero, &mut env), unsigned);
        }
    }
    let mut env = Env::new(&Rules::ARM);
    let modular = |value: f64, env: &mut Env| {
        to_int_modular::<F64, i32>(value.into(), Rounding::TowardZero, env)
    };
    assert_eq!(modular(4_294_967_301.7, &mut env), 5);
    assert_eq!(env.take_flags(), Flags::INVALID | Flags::INVALID_CONVERSION);
    assert_eq!((modular(f64::NAN, &mut env), modular(f64::INFINITY, &mut env)), (0, 0));
    assert_eq!(to_int::<_, u8>(F64::from(-0.75), Rounding::TowardZero, &mut env), 0);
    env.take_flags();
    assert_eq!(to_int::<_, u8>(F64::from(-0.75), Rounding::NearestEven, &mut env), 0);
    assert_eq!(env.flags, Flags::INVALID | Flags::INVALID_CONVERSION);
}

#[test]
fn comparisons() {
    let (one, two, nan) = (F32::from(1.0), F32::from(2.0), f32(QUIET));
    let mut env = Env::new(&Rules::RISCV);
    for (a, b, expected) in [
        (one, two, Relation::Less),
        (two.negated(), one.negated(), Relation::Less),
        (one, two.negated(), Relation::Greater),
        (F32::zero(true), F32::zero(false), Relation::Equal),
        (F32::zero(true), one.negated(), Relation::Greater),
        (f32(1), F32::zero(false), Relation::Greater),
        (f32(INFINITY), f32(0x7f7f_ffff), Relation::Greater),
    ] {
        assert_eq!(compare(a, b, &mut env), expected);
        assert_eq!(compare_quiet(a, b, &mut env), expected);
    }
    assert_eq!(env.take_flags(), Flags::INPUT_DENORMAL);
    assert_eq!(compare_quiet(nan, one, &mut env), Relation::Unordered);
    assert_eq!(env.take_flags(), Flags::empty());
    assert_eq!(compare(one, nan, &mut env), Relation::Unordered);
    assert_eq!(env.take_flags(), Flags::INVALID | Flags::INVALID_COMPARE);
    assert_eq!(compare_quiet(one, f32(0x7f80_0001), &mut env), Relation::Unordered);
    assert_eq!(env.take_flags(), Flags::INVALID | Flags::INVALID_SNAN);
}

#[test]
fn minima_and_maxima() {
    use MinMaxRule::*;
    let (one, minus_two) = (F32::from(1.0), F32::from(-2.0));
    let (plus, minus) = (F32::zero(false), F32::zero(true));
    let (quiet, signaling) = (f32(0x7fc0_0001), f32(0x7f80_0001));
    let quieted = f32(0x7fc0_0001);
    let run = |a, b, extremum, rule| {
        let mut env = Env::new(&Rules::ARM);
        let result = min_max(a, b, extremum, rule, &mut env);
        (result, env.flags.contains(Flags::INVALID))
    };
    for rule in [Number2008, Magnitude2008, Number2019, Magnitude2019, Propagate2019, X86] {
        let magnitude = matches!(rule, Magnitude2008 | Magnitude2019);
        let (min, max) = if magnitude { (one, minus_two) } else { (minus_two, one) };
        assert_eq!(run(one, minus_two, Extremum::Min, rule), (min, false));
        assert_eq!(run(minus_two, one, Extremum::Max, rule), (max, false));
        let smaller = if rule == X86 { plus } else { minus };
        assert_eq!(run(minus, plus, Extremum::Min, rule), (smaller, false));
        assert_eq!(run(plus, minus, Extremum::Max, rule).0, if rule == X86 { minus } else { plus });
    }
    for (rule, with_quiet, with_signaling) in [
        (Number2008, (one, false), (quieted, true)),
        (Number2019, (one, false), (one, true)),
        (Propagate2019, (quiet, false), (quieted, true)),
        (X86, (one, true), (one, true)),
    ] {
        assert_eq!(run(quiet, one, Extremum::Max, rule), with_quiet, "{rule:?}");
        assert_eq!(run(signaling, one, Extremum::Min, rule), with_signaling, "{rule:?}");
    }
    assert_eq!(run(one, signaling, Extremum::Min, X86), (signaling, true));
    assert_eq!(run(quiet, quiet, Extremum::Min, Number2019), (quiet, false));
}

#[test]
fn the_x87_refuses_contradictory_encodings() {
    let one = F80::new(0x3fff, 1 << 63);
    let default = (0xffff, 3 << 62);
    // An unnormal, a pseudo-infinity and a pseudo-NaN.
    for (exponent, significand) in [(0x3fff, 1 << 62), (0x7fff, 0), (0x7fff, 1)] {
        let bad = F80::new(exponent, significand);
        let mut env = Env::new(&Rules::X87);
        for result in [add(bad, one, &mut env), mul(one, bad, &mut env), sqrt(bad, &mut env)] {
            assert_eq!(result.to_parts(), default);
            assert_eq!(env.take_flags(), Flags::INVALID);
            env.flags = Flags::empty();
            div(bad, one, &mut env);
        }
        assert_eq!(compare_quiet(bad, one, &mut env), Relation::Unordered);
        assert!(env.flags.contains(Flags::INVALID));
    }
    // A pseudo-denormal is the smallest normal number.
    let mut env = Env::new(&Rules::X87);
    let normal = add(F80::new(0, 1 << 63), F80::zero(false), &mut env);
    assert_eq!(normal.to_parts(), (1, 1 << 63));
    assert_eq!(env.flags, Flags::INPUT_DENORMAL);
}

#[test]
fn precision_control_rounds_as_the_narrow_format_in_its_range() {
    let mut random = support::Random::new(41);
    for _ in 0..support::cases(2000) {
        let (a, b): (F64, F64) = (random.float(), random.float());
        let mut env = Env { rounding: random.rounding(), ..Env::new(&Rules::X87) };
        let wide = |value: F64| convert::<F64, F80>(value, &mut Env::new(&Rules::X87));
        for op in
            [add::<F64>, mul::<F64>, div::<F64>].iter().zip([add::<F80>, mul::<F80>, div::<F80>])
        {
            env.take_flags();
            let narrow = (op.0)(a, b, &mut env);
            if narrow.is_nan()
                || narrow.is_denormal()
                || env.flags.intersects(Flags::OVERFLOW | Flags::UNDERFLOW)
            {
                continue;
            }
            let mut control = Env { precision: Precision::Double, ..env };
            control.take_flags();
            assert_eq!((op.1)(wide(a), wide(b), &mut control), wide(narrow), "{a:?} {b:?}");
            assert_eq!(control.flags & support::IEEE, env.flags & support::IEEE);
        }
    }
}

#[test]
fn rounding_to_odd_makes_double_rounding_harmless() {
    let mut random = support::Random::new(42);
    for _ in 0..support::cases(2000) {
        let value: F128 = random.float();
        if value.is_nan() {
            continue;
        }
        let mut odd = Env { rounding: Rounding::Odd, ..Env::new(&Rules::ARM) };
        let middle: F64 = convert(value, &mut odd);
        for rounding in [Rounding::NearestEven, Rounding::Up, Rounding::TowardZero] {
            let mut env = Env { rounding, ..Env::new(&Rules::ARM) };
            let once: F32 = convert(value, &mut env);
            let twice: F32 = convert(middle, &mut env);
            assert_eq!(twice, once, "{value:?} {rounding:?}");
        }
    }
}

#[test]
fn exact_zero_sums_are_negative_when_rounding_down() {
    let one = F64::from(1.0);
    for rounding in support::ROUNDINGS {
        let mut env = Env { rounding, ..Env::new(&Rules::ARM) };
        let negative = rounding == Rounding::Down;
        assert_eq!(sub(one, one, &mut env), F64::zero(negative));
        assert_eq!(fma(one, one, one.negated(), &mut env), F64::zero(negative));
        assert_eq!(add(F64::zero(true), F64::zero(false), &mut env), F64::zero(negative));
        assert_eq!(add(F64::zero(true), F64::zero(true), &mut env), F64::zero(true));
        assert_eq!(env.flags, Flags::empty());
    }
}
