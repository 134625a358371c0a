//! Random programs of loops, branches and calls: the interpreter, regions, and both in lockstep end in the same state.
//!
//! `CAIRN_RISCV_PROGRAMS` sets the number of programs, `CAIRN_RISCV_SEED` where they begin.

#[path = "program/asm.rs"]
mod asm;
#[path = "program/insns.rs"]
mod insns;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use asm::*;
use cairn_decodetree::random::Generator;
use cairn_jit::Cranelift;
use cairn_riscv::{Cpu, Extensions, Riscv, Xlen, patterns};
use cairn_tcg::code::Cache;
use cairn_tcg::region::RegionChoices;
use cairn_tcg::softmmu::{Backing, Flat, Protection};
use cairn_tcg::{Event, Jit, LiftOptions, Stop, Vcpu};

const CODE: u64 = 0x10000;
const CODE_LEN: u64 = 0x4000;
const DATA: u64 = 0x20000;
const DATA_LEN: u64 = 0x3000;
/// Instructions of a function; there are two.
const FUNCTION: usize = 8;

// Registers that random instructions leave alone, and one that holds the address of a function.
const SP: u32 = 2;
const OUTER: u32 = 30;
const INNER: u32 = 31;
const TARGET: u32 = 1;
const SCRATCH: u32 = 29;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

/// Splitmix64: equal seeds, equal sequences.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Instructions that neither jump nor change the registers above, nor need a helper.
fn random_insns(seed: u64) -> impl Iterator<Item = u32> {
    let generator = Generator::new(patterns().decoder("decode32").unwrap(), seed)
        .include(|pattern| {
            let name = pattern.name();
            insns::included("decode32", name)
                && !name.starts_with("csr")
                && !name.starts_with("fclass")
                && !matches!(name, "fence_i" | "amocas_q" | "cbo_zero" | "sc_w" | "sc_d")
        })
        .constrain(|insn| {
            let arguments = patterns().arguments(insn.pattern, insn.word, &insns::Fields).unwrap();
            let kept = |value: i64| matches!(value, 1 | 2 | 10);
            insns::allowed(insn)
                && arguments.iter().all(|(name, value)| *name != "rd" || !kept(*value))
        });
    generator.map(|insn| u32::try_from(insn.bits()).unwrap())
}

/// Blocks that fall through, branch forward over some of what follows, call one of two functions, or loop.
fn program(seed: u64) -> Vec<u32> {
    let mut random = Random(seed);
    let mut insns = random_insns(seed);
    let mut code = vec![lui(OUTER, 0)];
    // The functions are in front: `jal` goes over them.
    code.push(jal(0, 4 * (1 + 2 * i32::try_from(FUNCTION).unwrap())));
    let functions = code.len();
    for _ in 0..2 {
        code.extend(insns.by_ref().take(FUNCTION - 1));
        code.push(jalr(0, RA));
    }
    code.push(addi(OUTER, 0, 40));
    let outer = code.len();
    for _ in 0..2 + random.below(3) {
        code.push(addi(INNER, 0, 1 + i32::try_from(random.below(6)).unwrap()));
        let inner = code.len();
        for _ in 0..=random.below(4) {
            code.extend(insns.by_ref().take(1 + random.below(5)));
            match random.below(4) {
                0 => {
                    let skipped = 1 + random.below(4);
                    let registers: [u32; 2] =
                        std::array::from_fn(|_| 11 + u32::try_from(random.below(8)).unwrap());
                    let offset = 4 * (1 + i32::try_from(skipped).unwrap());
                    code.push(bne(registers[0], registers[1], offset));
                    code.extend(insns.by_ref().take(skipped));
                }
                1 => {
                    let function = functions + FUNCTION * random.below(2);
                    code.push(jal(RA, 4 * distance(code.len(), function)));
                }
                2 => {
                    // One of the functions, by turns.
                    code.push(andi(TARGET, OUTER, 1));
                    code.push(slli(TARGET, TARGET, 5));
                    code.push(lui(SCRATCH, CODE));
                    code.push(add(TARGET, TARGET, SCRATCH));
                    code.push(jalr_at(RA, TARGET, 4 * i32::try_from(functions).unwrap()));
                }
                _ => {}
            }
        }
        code.push(addi(INNER, INNER, -1));
        code.push(blt(0, INNER, 4 * distance(code.len(), inner)));
    }
    code.push(addi(OUTER, OUTER, -1));
    code.push(bne(OUTER, 0, 4 * distance(code.len(), outer)));
    code.push(ECALL);
    code
}

/// From one instruction to another.
fn distance(from: usize, to: usize) -> i32 {
    i32::try_from(to).unwrap() - i32::try_from(from).unwrap()
}

/// Regions that were made by all programs.
static REGIONS: AtomicUsize = AtomicUsize::new(0);

/// How a program ends: why it stops, its registers, and its memory.
fn end(code: &[u32], seed: u64, jit: Jit) -> (Stop, Vec<u64>, Vec<u64>, u8, Vec<u8>) {
    let cache = Arc::new(Cache::new());
    let choices = RegionChoices { heat: 4, background: false };
    cache.set_compiler(Arc::new(Cranelift::new().unwrap()), choices);
    let memory = Flat::new(1 << 20, None, cache.clone()).unwrap();
    let all = Protection::READ | Protection::WRITE | Protection::EXECUTE;
    let backing = Backing::Anonymous { shared: false };
    memory.map(CODE, CODE_LEN, all, backing).unwrap();
    memory.map(DATA, DATA_LEN, Protection::READ | Protection::WRITE, backing).unwrap();
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write(CODE, &bytes).unwrap();
    let mut vcpu =
        Vcpu::<Riscv>::new(Cpu::new(Xlen::X64, Extensions::all()), cache, LiftOptions::default());
    vcpu.jit = jit;
    let mut random = Random(!seed);
    for register in 0..32 {
        vcpu.cpu.set_x(register, random.next() >> random.below(64));
        // Doubles around one, and any.
        let any = random.next();
        let near = 0x3ff0_0000_0000_0000 ^ any >> 11;
        vcpu.cpu.set_f(register, if random.below(4) == 0 { any } else { near });
    }
    let sp = u16::try_from(SP).unwrap();
    vcpu.cpu.set_x(sp, DATA + 0x1000);
    vcpu.cpu.set_x(10, DATA + 0x1800);
    // Some results are known to be inexact from the beginning.
    vcpu.cpu.set_fcsr(u8::try_from(seed & 1).unwrap());
    vcpu.cpu.set_pc(CODE);
    let stop = vcpu.run(&memory);
    assert_ne!(stop, Stop::Diverged, "seed {seed}: {}", vcpu.divergence());
    REGIONS.fetch_add(memory.code().region_count(), Ordering::Relaxed);
    let mut data = vec![0; usize::try_from(DATA_LEN).unwrap()];
    memory.read(DATA, &mut data).unwrap();
    let registers = (0..32).map(|register| vcpu.cpu.x(register)).chain([vcpu.pc()]).collect();
    let floats = (0..32).map(|register| vcpu.cpu.f(register)).collect();
    (stop, registers, floats, vcpu.cpu.fcsr(), data)
}

#[test]
fn random_programs_end_in_the_same_state() {
    let first = number("CAIRN_RISCV_SEED", 1);
    let mut finished = 0;
    for seed in first..first + number("CAIRN_RISCV_PROGRAMS", 24) {
        let code = program(seed);
        let expected = end(&code, seed, Jit::Off);
        finished += u32::from(expected.0 == Stop::Event(Event::Syscall));
        for jit in [Jit::After(0), Jit::Regions(0), Jit::Lockstep] {
            assert_eq!(end(&code, seed, jit), expected, "seed {seed} {jit:?}");
        }
    }
    assert!(finished > 2, "programs come to their end");
    assert!(REGIONS.load(Ordering::Relaxed) > 2, "regions are made");
}
