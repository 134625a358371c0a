//! Any operands, encodings that the formats do not define among them, under any modes.

mod support;

use cairn_fpu::*;
use support::{Random, cases};

const RULES: [&Rules; 10] = [
    &Rules::X86,
    &Rules::X87,
    &Rules::ARM,
    &Rules::ARM_ALTERNATE,
    &Rules::RISCV,
    &Rules::POWERPC,
    &Rules::MIPS_LEGACY,
    &Rules::S390X,
    &Rules::SPARC,
    &Rules::HPPA,
];

fn any_env(random: &mut Random) -> Env {
    let rules = random.pick(&RULES);
    let coin = |random: &mut Random| random.below(2) == 1;
    Env {
        rounding: random.rounding(),
        flags: if coin(random) { Flags::INEXACT } else { Flags::empty() },
        flush_inputs: coin(random),
        flush_outputs: coin(random),
        default_nan: rules.always_default_nan || coin(random),
        precision: random.pick(&[Precision::Single, Precision::Double, Precision::Extended]),
        ..Env::new(rules)
    }
}

fn any_float<F: Float>(random: &mut Random) -> F {
    if random.below(2) == 0 { F::from_raw(random.wide()) } else { random.float() }
}

/// The NaN that `env` asks for.
fn default_nan<F: Float>(env: &Env) -> F {
    sub(F::infinity(false), F::infinity(false), &mut Env::new(env.rules))
}

/// Results are encodings of the format, NaNs are quiet, tiny ones and NaNs replaced where that is asked for.
fn check<F: Float>(result: F, env: &Env) {
    assert!(!result.is_signaling_nan(env.rules), "{result:?} {env:?}");
    let mut neutral = Env::new(&Rules::X87);
    compare_quiet(result, result, &mut neutral);
    let nan = result.is_nan();
    assert!(nan || !neutral.flags.contains(Flags::INVALID), "{result:?} {env:?}");
    if nan && env.default_nan {
        assert_eq!(result, default_nan(env), "{env:?}");
    }
    if env.flush_outputs {
        assert!(!result.is_denormal(), "{result:?} {env:?}");
    }
}

fn convert_all<F: Float>(a: F, random: &mut Random, env: &mut Env) {
    check(convert::<F, F16>(a, env), env);
    check(convert::<F, Bf16>(a, env), env);
    check(convert::<F, F32>(a, env), env);
    check(convert::<F, F64>(a, env), env);
    check(convert::<F, F80>(a, env), env);
    check(convert::<F, F128>(a, env), env);
    let scale = random.pick(&[i32::MIN, -40, 0, 40, i32::MAX]);
    to_int_scaled::<F, i32>(a, scale, random.rounding(), env);
    to_int_scaled::<F, u64>(a, scale, random.rounding(), env);
    to_int_scaled::<F, i128>(a, scale, random.rounding(), env);
    to_int_modular::<F, i64>(a, random.rounding(), env);
    check(from_int_scaled::<u128, F>(random.wide(), scale, env), env);
    check(scalbn(a, scale, env), env);
}

fn all<F: Float>(seed: u64) {
    let mut random = Random::new(seed);
    for _ in 0..cases(3000) {
        let env = &mut any_env(&mut random);
        let [a, b, c] = [(); 3].map(|()| any_float::<F>(&mut random));
        check(add(a, b, env), env);
        check(sub(a, b, env), env);
        check(mul(a, b, env), env);
        check(div(a, b, env), env);
        check(sqrt(a, env), env);
        let negate = Negate::from_bits_truncate(u8::try_from(random.below(8)).unwrap());
        let negated = fma_with(a, b, c, negate, random.pick(&[0, -1, i32::MAX]), env);
        check(negated, env);
        check(fma(a, b, c, env), env);
        check(remainder(a, b, Quotient::Nearest, env).0, env);
        check(round_to_int(a, random.rounding(), env), env);
        let rule = random.pick(&[MinMaxRule::Number2008, MinMaxRule::Magnitude2019]);
        let extreme = min_max(a, b, Extremum::Max, rule, env);
        assert!(extreme.is_nan() || extreme == a || extreme == b || extreme.is_zero());
        assert_eq!(compare(a, b, env), compare_quiet(a, b, env));
        convert_all(a, &mut random, env);
    }
}

#[test]
fn any_operands_give_defined_results() {
    all::<F16>(51);
    all::<Bf16>(52);
    all::<F32>(53);
    all::<F64>(54);
    all::<F80>(55);
    all::<F128>(56);
}
