//! Hostile files for the loader: headers with bytes changed, cut short, or made up.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cairn_tcg::code::Cache;
use cairn_tcg::softmmu::Flat;
use cairn_user::elf::{Elf, Loader};

/// Size of the address space that files are loaded into.
const SPACE: u64 = 1 << 26;
/// Mutated files, unless `CAIRN_ELF_CASES` says otherwise.
const CASES: u64 = 100_000;
const FILE_SIZE: usize = 0x3000;

/// Splitmix64.
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

    /// A number that is at the end of some range, small, or any.
    fn interesting(&mut self) -> u64 {
        let bit = self.next() % 64;
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << bit,
            3 => (1 << bit) - 1,
            4 => self.next() % 0x4000,
            _ => self.next(),
        }
    }
}

/// A program with an interpreter, code, data with zeros behind it, and a stack.
fn program(wide: bool, movable: bool) -> Vec<u8> {
    let mut bytes = b"\x7fELF".to_vec();
    bytes.extend([if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let base: u64 = if movable { 0 } else { 0x10000 };
    let half = |bytes: &mut Vec<u8>, value: u16| bytes.extend(value.to_le_bytes());
    let word = |bytes: &mut Vec<u8>, value: u32| bytes.extend(value.to_le_bytes());
    let long = |bytes: &mut Vec<u8>, value: u64| {
        let len = if wide { 8 } else { 4 };
        bytes.extend(&value.to_le_bytes()[..len]);
    };
    half(&mut bytes, if movable { 3 } else { 2 });
    half(&mut bytes, 243);
    word(&mut bytes, 1);
    let header: u16 = if wide { 64 } else { 52 };
    for value in [base + 0x200, header.into(), 0] {
        long(&mut bytes, value);
    }
    word(&mut bytes, 5);
    for value in [header, if wide { 56 } else { 32 }, 4, 0, 0, 0] {
        half(&mut bytes, value);
    }
    let interpreter = b"/lib/ld.so\0";
    let segments: [(u32, u32, u64, u64, u64); 4] = [
        (3, 4, 0x180, interpreter.len() as u64, interpreter.len() as u64),
        (1, 5, 0, 0x1800, 0x1800),
        (1, 6, 0x1800, 0x900, 0x4000),
        (0x6474_e551, 6, 0, 0, 0),
    ];
    for (index, (kind, flags, offset, file_size, memory_size)) in (0..).zip(segments) {
        word(&mut bytes, kind);
        if wide {
            word(&mut bytes, flags);
        }
        let address = base + offset + if index == 2 { 0x1000 } else { 0 };
        for value in [offset, address, address, file_size, memory_size] {
            long(&mut bytes, value);
        }
        if !wide {
            word(&mut bytes, flags);
        }
        long(&mut bytes, 0x1000);
    }
    bytes.resize(0x180, 0);
    bytes.extend(interpreter);
    bytes.resize(FILE_SIZE, 0x13);
    bytes
}

/// Changes a few bytes of the headers, or the length.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(64 + 4 * 56);
        let value = random.interesting().to_le_bytes();
        let len = [1, 2, 4, 8][random.below(4)];
        bytes[at..at + len].copy_from_slice(&value[..len]);
    }
    if random.below(16) == 0 {
        let len = random.below(FILE_SIZE);
        bytes.truncate(len);
    }
}

struct Bench {
    file: File,
    loader: Loader,
}

impl Bench {
    fn new() -> Bench {
        let memory = Flat::new(SPACE, None, Arc::new(Cache::new())).unwrap();
        Bench { file: tempfile::tempfile().unwrap(), loader: Loader::new(memory) }
    }

    /// Loads a file, and says whether that could be done. What is loaded lies in the address space.
    fn load(&self, bytes: &[u8]) -> bool {
        self.file.set_len(bytes.len() as u64).unwrap();
        self.file.write_all_at(bytes, 0).unwrap();
        let Ok(elf) = Elf::read(&self.file) else { return false };
        let loaded = self.loader.load(&self.file, &elf, SPACE / 2);
        if let Ok(loaded) = &loaded {
            assert!(loaded.end <= SPACE, "{loaded:?}");
            let first = elf.segments[0].address.wrapping_add(loaded.bias);
            assert!(first < loaded.end, "{loaded:?}");
        }
        self.loader.clear().unwrap();
        loaded.is_ok()
    }
}

#[test]
fn the_program_that_is_mutated_is_good() {
    let bench = Bench::new();
    for wide in [false, true] {
        for movable in [false, true] {
            assert!(bench.load(&program(wide, movable)), "{wide} {movable}");
        }
    }
}

#[test]
fn mutated_headers_are_loaded_or_refused() {
    let cases = match std::env::var("CAIRN_ELF_CASES") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => CASES,
    };
    let bench = Bench::new();
    let mut random = Random(1);
    let (mut loaded, mut refused) = (0, 0);
    for case in 0..cases {
        let mut bytes = program(case & 1 != 0, case & 2 != 0);
        mutate(&mut bytes, &mut random);
        if bench.load(&bytes) {
            loaded += 1;
        } else {
            refused += 1;
        }
    }
    // Both happen, or the mutations are of no use.
    assert!(loaded > cases / 100 && refused > cases / 100, "{loaded} loaded, {refused} refused");
}

#[test]
fn each_refusal_says_why() {
    let bench = Bench::new();
    let good = program(true, false);
    let changes: [(usize, &[u8], &str); 10] = [
        (0, b"#!", "not an ELF file"),
        (4, &[9], "class 9"),
        (5, &[2], "byte order 2"),
        (16, &[4], "type 4"),
        (54, &[1], "program header size 1"),
        (56, &[0, 0], "nothing to load"),
        (33, &[0xff; 6], "ends within its headers"),
        // The sizes of the interpreter's name and of the second segment, and its offset.
        (64 + 32, &[0], "names an interpreter"),
        (64 + 56 + 40, &[0, 0], "larger in the file than in memory"),
        (64 + 112 + 8, &[1], "that no page fits"),
    ];
    for (at, bytes, expected) in changes {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        bench.file.set_len(0).unwrap();
        bench.file.write_all_at(&file, 0).unwrap();
        let message = Elf::read(&bench.file).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
