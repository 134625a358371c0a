//! Generated decoders against run-time decoding of the same pattern files.

mod support;

use std::collections::BTreeSet;

use cairn_decodetree::runtime::{Decoded, Functions};
use cairn_decodetree::{ArgType, Decoder, Pattern, Unit, random};
use proptest::prelude::*;

/// What the generated code called: the pattern's name and its arguments.
type Call = (String, String);

/// A translator that notes the first instruction it does not refuse.
#[derive(Default)]
struct Recorder {
    refused: BTreeSet<String>,
    call: Option<Call>,
    /// Instruction bits not fetched yet, left-justified in 64 bits, and how many were fetched.
    stream: u64,
    fetched: u32,
}

impl Recorder {
    fn note(&mut self, name: &str, args: String) -> bool {
        if self.refused.contains(name) {
            return false;
        }
        // Struct names are not part of the comparison.
        let fields = args.find('{').map_or("", |at| &args[at..]);
        self.call = Some((name.to_owned(), fields.to_owned()));
        true
    }
}

/// The field functions, as the run-time decoder and the generated code see them.
struct TestFunctions;

impl Functions for TestFunctions {
    fn call(&self, name: &str, value: Option<i64>) -> Option<i64> {
        Some(match (name, value) {
            ("compressed", Some(value)) => value + 8,
            ("times_2", Some(value)) => value * 2,
            ("times_4", Some(value)) => value * 4,
            ("times_4096", Some(value)) => value * 4096,
            ("scale", Some(value)) => (value >> 2) << (value & 3),
            ("mode", None) => 7,
            _ => return None,
        })
    }
}

macro_rules! functions {
    ($($name:ident)*) => {
        $(fn $name(&mut self, value: i64) -> i64 {
            TestFunctions.call(stringify!($name), Some(value)).unwrap()
        })*
    };
}

macro_rules! patterns {
    ($($name:ident $(($args:ident))?)*) => {
        $(fn $name(&mut self $(, args: $args)?) -> bool {
            let text = String::new() $(+ &format!("{:?}", &args as &$args))?;
            self.note(stringify!($name).trim_start_matches("r#"), text)
        })*
    };
}

mod riscv {
    use super::*;
    include!("cases/riscv.rs");

    impl Decode for Recorder {
        functions!(compressed times_2 times_4 times_4096);
        patterns!(lui(ArgsURaw) auipc(ArgsJ) jal(ArgsJ) jalr(ArgsI) beq(ArgsB) bne(ArgsB) lw(ArgsI)
            sw(ArgsS) addi(ArgsI) slli(ArgsSh) srli(ArgsSh) srai(ArgsSh) add(ArgsR) sub(ArgsR)
            pause tso fence(ArgsFence) ecall ebreak nop);
    }
}

mod groups {
    use super::*;
    include!("cases/groups.rs");

    impl Decode for Recorder {
        fn mode(&mut self) -> i64 {
            TestFunctions.call("mode", None).unwrap()
        }
        functions!(scale);
        patterns!(pair_a(ArgsPairA) pair_b(ArgsPairA) pair_c(ArgsPairA) r#type(ArgsType)
            r#match(ArgsType) r#move(ArgsMove) last(ArgsLast));
    }
}

mod variable {
    use super::*;
    include!("cases/variable.rs");

    impl Decode for Recorder {
        type Fault = ();
        fn fetch(&mut self, bits: u32) -> Result<u64, ()> {
            let value = self.stream >> (64 - bits);
            self.stream <<= bits;
            self.fetched += bits;
            Ok(value)
        }
        patterns!(nop brk mov(ArgsMov) clr(ArgsClr) set(ArgsSet) bra(ArgsBra) jmp(ArgsBra)
            call(ArgsBra) load(ArgsMem) store(ArgsMem) push(ArgsPush));
    }
}

/// What run-time decoding finds, in the form that `Recorder` notes.
fn expected(unit: &Unit, decoder: &Decoder, word: u64, refused: &BTreeSet<String>) -> Option<Call> {
    let accept = |pattern: &Pattern| !refused.contains(pattern.name());
    let pattern = decoder.decode_with(word, decoder.widths().max(), accept).pattern()?;
    let types = &unit.args_of(pattern).unwrap().elements;
    let fields = unit.arguments(pattern, word, &TestFunctions).unwrap();
    let fields: Vec<String> = fields
        .into_iter()
        .zip(types)
        .map(|((name, value), (_, ty))| match ty {
            ArgType::Bool => format!("{name}: {}", value != 0),
            ArgType::U64 => format!("{name}: {}", value.cast_unsigned()),
            _ => format!("{name}: {value}"),
        })
        .collect();
    let fields =
        if fields.is_empty() { String::new() } else { format!("{{ {} }}", fields.join(", ")) };
    Some((pattern.name().to_owned(), fields))
}

/// Compares both for `word`, and again with each pattern refused that was found before.
fn compare(
    unit: &Unit,
    decoder: &Decoder,
    word: u64,
    mut generated: impl FnMut(&mut Recorder) -> bool,
) {
    let mut refused = BTreeSet::new();
    loop {
        let mut recorder = Recorder { refused: refused.clone(), ..Recorder::default() };
        let found = generated(&mut recorder);
        assert_eq!(recorder.call, expected(unit, decoder, word, &refused), "{word:#x}");
        assert_eq!(found, recorder.call.is_some());
        match recorder.call {
            Some((name, _)) => refused.insert(name),
            None => break,
        };
    }
}

#[test]
fn all_16_bit_instructions_decode_alike() {
    let unit = support::riscv();
    let decoder = unit.decoder("decode16").unwrap();
    let other = support::groups();
    let others = other.decoder("decode").unwrap();
    for word in 0..=u16::MAX {
        compare(&unit, decoder, word.into(), |recorder| riscv::decode16(recorder, word));
        compare(&other, others, word.into(), |recorder| groups::decode(recorder, word));
    }
}

#[test]
fn instructions_of_variable_width_are_fetched_no_further_than_their_end() {
    let unit = support::variable();
    let decoder = unit.decoder("decode").unwrap();
    for insn in random::Generator::new(decoder, 5).take(5000) {
        let mut recorder = Recorder { stream: insn.word << 32, ..Recorder::default() };
        assert_eq!(variable::decode(&mut recorder), Ok(true));
        assert_eq!(recorder.fetched, insn.pattern.width(), "{}", insn.pattern.name());
        assert_eq!(recorder.call, expected(&unit, decoder, insn.word, &BTreeSet::new()));

        // At run time, each prefix that is too short says what is missing.
        for have in (0..insn.pattern.width()).step_by(8) {
            let kept = insn.word >> (32 - have) << (32 - have);
            match decoder.decode_with(kept, have, |_| true) {
                Decoded::Needs(bits) => assert!(bits > have && bits <= insn.pattern.width()),
                other => panic!("{have} bits of {}: {other:?}", insn.pattern.name()),
            }
        }
    }
}

#[test]
fn signs_concatenation_and_functions_are_applied() {
    let unit = support::riscv();
    let decoder = unit.decoder("decode32").unwrap();
    // beq a0, a1, -2 ; jal ra, -1048576 ; lui x31, 0xfffff
    for (word, args) in [
        (0xfeb5_0fe3, "{ imm: -2, rs1: 10, rs2: 11 }"),
        (0x8000_00ef, "{ imm: -1048576, rd: 1 }"),
        (0xffff_ffb7, "{ imm: 1048575, rd: 31 }"),
    ] {
        let mut recorder = Recorder::default();
        assert!(riscv::decode32(&mut recorder, word));
        assert_eq!(recorder.call.unwrap().1, args);
        let call = expected(&unit, decoder, word.into(), &BTreeSet::new());
        assert_eq!(call.unwrap().1, args);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn words_of_32_bits_decode_alike(words in prop::collection::vec(any::<u32>(), 200), seed: u64) {
        let unit = support::riscv();
        let decoder = unit.decoder("decode32").unwrap();
        let random = random::Generator::new(decoder, seed).take(200);
        let random = random.map(|insn| u32::try_from(insn.word).unwrap());
        for word in random.chain(words) {
            compare(&unit, decoder, word.into(), |recorder| riscv::decode32(recorder, word));
        }
    }
}
