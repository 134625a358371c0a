//! Which blocks become a region, and how much code that has.
//!
//! `tests/density.txt` records instructions of the host for fixed regions; more than that is a failure. After a change for
//! the better, `CAIRN_BLESS=1` writes it anew.

#[path = "program/asm.rs"]
mod asm;

use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use asm::*;
use cairn_jit::Cranelift;
use cairn_riscv::{Cpu, Extensions, Riscv, Xlen};
use cairn_tcg::code::Cache;
use cairn_tcg::region::{Compiled, Region, RegionChoices, RegionCompiler};
use cairn_tcg::softmmu::{Backing, Flat, Protection};
use cairn_tcg::{Direct, Jit, LiftOptions, Vcpu};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x10000;

/// Keeps regions in place of compiling them.
#[derive(Default)]
struct Keeper(Mutex<Vec<Region>>);

impl RegionCompiler for Keeper {
    fn compile(&self, region: &Region) -> Option<Compiled> {
        self.0.lock().unwrap().push(region.clone());
        None
    }
}

/// The first region that a program asks for.
fn first_region(code: &[u32]) -> Option<Region> {
    let cache = Arc::new(Cache::new());
    let keeper = Arc::new(Keeper::default());
    cache.set_compiler(keeper.clone(), RegionChoices { heat: 40, background: false });
    let memory = Flat::new(1 << 20, None, cache.clone()).unwrap();
    let all = Protection::READ | Protection::WRITE | Protection::EXECUTE;
    let backing = Backing::Anonymous { shared: false };
    memory.map(CODE, 4096, all, backing).unwrap();
    memory.map(DATA, 4096, Protection::READ | Protection::WRITE, backing).unwrap();
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write(CODE, &bytes).unwrap();
    let cpu = Cpu::new(Xlen::X64, Extensions::all());
    let mut vcpu = Vcpu::<Riscv>::new(cpu, cache, LiftOptions::default());
    vcpu.jit = Jit::Regions(0);
    vcpu.cpu.set_pc(CODE);
    vcpu.run(&memory);
    let regions = keeper.0.lock().unwrap();
    regions.first().cloned()
}

/// Offsets of a region's blocks in instructions, in order, and those of its entries.
fn shape(code: &[u32]) -> Option<(Vec<u64>, Vec<u64>)> {
    let region = first_region(code)?;
    let at = |index: usize| (region.blocks[index].block.key.pc - CODE) / 4;
    let mut blocks: Vec<u64> = (0..region.blocks.len()).map(at).collect();
    blocks.sort_unstable();
    let mut entries: Vec<u64> = region.entries.iter().map(|index| at(*index)).collect();
    entries.sort_unstable();
    Some((blocks, entries))
}

fn simple_loop() -> Vec<u32> {
    vec![addi(T1, 0, 500), add(A0, A0, T1), addi(T1, T1, -1), bne(T1, 0, -8), ECALL]
}

fn loop_with_call() -> Vec<u32> {
    vec![
        addi(T1, 0, 500),
        jal(RA, 20),
        add(A1, A1, A0),
        addi(T1, T1, -1),
        bne(T1, 0, -12),
        ECALL,
        // The function.
        add(A0, T1, T1),
        jalr(0, RA),
    ]
}

fn loop_with_memory() -> Vec<u32> {
    vec![
        addi(T1, 0, 500),
        lui(T0, DATA),
        ld(A0, T0),
        add(A0, A0, T1),
        sd(A0, T0),
        addiw(A1, A0, 3),
        sw(A1, T0),
        addi(T1, T1, -1),
        bne(T1, 0, -24),
        ECALL,
    ]
}

#[test]
fn a_loop_is_a_region() {
    assert_eq!(shape(&simple_loop()), Some((vec![1], vec![1])));
}

#[test]
fn a_loop_takes_in_the_function_that_it_calls() {
    // The block before the loop goes there only once. The function is the first to have run often.
    assert_eq!(shape(&loop_with_call()), Some((vec![1, 2, 6], vec![1, 6])));
}

#[test]
fn what_is_rarely_run_stays_outside() {
    let code = [
        addi(T1, 0, 500),
        addi(T0, 0, 490),
        addi(A0, A0, 1),
        // Once in the 500 times.
        bne(T1, T0, 8),
        addi(A1, A1, 1),
        addi(T1, T1, -1),
        bne(T1, 0, -16),
        ECALL,
    ];
    let (blocks, _) = shape(&code).unwrap();
    assert_eq!(blocks, [2, 5]);
}

#[test]
fn code_that_does_not_come_back_is_no_region() {
    // The loop's only way back goes through an instruction that needs a helper.
    let read_flags = i(0x73, 2, A0, 0, 1);
    let code = [addi(T1, 0, 500), read_flags, addi(T1, T1, -1), bne(T1, 0, -8), ECALL];
    assert_eq!(shape(&code), None);
}

#[test]
fn code_of_regions_does_not_grow() {
    let programs =
        [("loop", simple_loop()), ("call", loop_with_call()), ("memory", loop_with_memory())];
    let compiler = Cranelift::portable().unwrap();
    let mut found = String::from("# name, guest instructions, host instructions\n");
    for (name, code) in &programs {
        let mut region = first_region(code).unwrap();
        // Where memory is reached by small constants.
        region.memory = Direct { base: 0x2000_0000, flags: 0x1000_0000, size: 1 << 38 };
        let guest: usize = region.blocks.iter().map(|member| member.block.marks.len()).sum();
        let host = compiler.instructions(&region).unwrap();
        writeln!(found, "{name} {guest} {host}").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/density.txt");
    if std::env::var_os("CAIRN_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    let numbers = |text: &str| -> Vec<(String, usize)> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                (format!("{} {}", words[0], words[1]), words[2].parse().unwrap())
            })
            .collect()
    };
    for ((name, host), (known, limit)) in numbers(&found).into_iter().zip(numbers(&recorded)) {
        assert_eq!(name, known);
        assert!(host <= limit, "{name}: {host} instructions, and not {limit}");
    }
}
