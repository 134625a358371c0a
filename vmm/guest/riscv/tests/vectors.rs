//! Single instructions with the state before and after: `tests/vectors/*.vec`.
//!
//! A line has the assembler text, the instruction in hexadecimal, registers before and registers after. Registers
//! that are not named before are zero, and those not named after must not change. `fcsr` is one of them; `mem`
//! is the word at address 0x20000, where a page of zeros is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cairn_riscv::{Cpu, Extensions, Riscv, Xlen, disassemble, f, x};
use cairn_tcg::code::Cache;
use cairn_tcg::ir::Size;
use cairn_tcg::softmmu::{Backing, Flat, Protection};
use cairn_tcg::{CpuState, Event, Guest, LiftOptions, MemOp, Memory, Slot, Stop, Vcpu};

const CODE: u64 = 0x10000;
const DATA: u64 = 0x20000;

fn vectors(file: &str, xlen: Xlen) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut count = 0;
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = format!("{file}:{}: {line}", number + 1);
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [asm, bits, before, after] = parts[..] else { panic!("{at}") };
        let word = u32::from_str_radix(bits, 16).expect(&at);
        assert_eq!(disassemble(word, CODE, xlen).0, asm, "{at}");
        for optimise in [false, true] {
            check(word, xlen, &assignments(before), after, optimise, &at);
        }
        count += 1;
    }
    assert!(count > 0, "{file} has vectors");
}

fn assignments(text: &str) -> BTreeMap<String, u64> {
    let one = |word: &str| {
        let (name, value) = word.split_once('=').expect(word);
        (name.to_owned(), u64::from_str_radix(value, 16).expect(word))
    };
    text.split_whitespace().map(one).collect()
}

fn slot(name: &str) -> Slot {
    let global = Riscv::GLOBALS.iter().find(|global| global.name == name);
    global.unwrap_or_else(|| panic!("no register {name}")).slot
}

fn check(
    word: u32,
    xlen: Xlen,
    before: &BTreeMap<String, u64>,
    after: &str,
    optimise: bool,
    at: &str,
) {
    let code = Arc::new(Cache::new());
    let memory = Flat::new(1 << 20, None, code.clone()).unwrap();
    let backing = Backing::Anonymous { shared: false };
    let rights = Protection::READ | Protection::WRITE;
    memory.map(CODE, 4096, rights | Protection::EXECUTE, backing).unwrap();
    memory.map(DATA, 4096, rights, backing).unwrap();
    memory.write(CODE, &word.to_le_bytes()).unwrap();

    let options = LiftOptions { optimise, ..LiftOptions::default() };
    let mut vcpu = Vcpu::<Riscv>::new(Cpu::new(xlen, Extensions::all()), code, options);
    vcpu.cpu.set_pc(CODE);
    let op = MemOp::new(Size::B8);
    for (name, value) in before {
        match name.as_str() {
            "fcsr" => vcpu.cpu.set_fcsr(u8::try_from(*value).unwrap()),
            "mem" => memory.store(DATA, *value, op).unwrap(),
            _ => vcpu.cpu.env_mut().set_word(slot(name), *value),
        }
    }
    let state = |cpu: &Cpu| {
        let mut state = BTreeMap::new();
        for number in 1..32 {
            state.insert(Riscv::GLOBALS[x(number).index()].name.to_owned(), cpu.x(number));
        }
        for number in 0..32 {
            state.insert(Riscv::GLOBALS[f(number).index()].name.to_owned(), cpu.f(number));
        }
        state.insert("fcsr".to_owned(), u64::from(cpu.fcsr()));
        state.insert("mem".to_owned(), memory.load(DATA, op).unwrap());
        state
    };
    let mut expected = state(&vcpu.cpu);
    let len = if word & 3 == 3 { 4 } else { 2 };
    expected.insert("pc".to_owned(), CODE + len);
    let stop = vcpu.step(&memory);
    match after {
        "illegal" | "fault" => {
            expected.insert("pc".to_owned(), CODE);
            let right = match stop {
                Stop::Event(Event::Illegal) => after == "illegal",
                Stop::Fault(_) => after == "fault",
                _ => false,
            };
            assert!(right, "{stop:?} {at}");
        }
        _ => {
            assert_eq!(stop, Stop::Stepped, "{at}");
            expected.extend(assignments(after));
        }
    }
    let mut found = state(&vcpu.cpu);
    found.insert("pc".to_owned(), vcpu.pc());
    let different: Vec<_> = expected
        .iter()
        .filter(|(name, value)| found.get(*name) != Some(value))
        .map(|(name, value)| format!("{name}: {:x}, not {value:x}", found[name]))
        .collect();
    assert!(different.is_empty(), "{different:?} (optimise: {optimise}) {at}");
}

#[test]
fn rv64() {
    vectors("rv64.vec", Xlen::X64);
}

#[test]
fn rv64_float() {
    vectors("rv64_float.vec", Xlen::X64);
}

#[test]
fn rv32() {
    vectors("rv32.vec", Xlen::X32);
}

#[test]
fn compressed() {
    vectors("compressed.vec", Xlen::X64);
}
