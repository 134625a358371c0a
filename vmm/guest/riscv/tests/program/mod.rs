//! A program that runs single instructions on prepared registers.
//!
//! Its image, at [`BASE`], holds the code, blocks of register values to load, blocks for register values to store, and
//! memory for loads and stores. Register x31 points to a block, x30 holds return addresses. A block has x1 to x29 in
//! words 1 to 29, `fcsr` in word 30 and the floating-point registers from word 32 on.

/// Where the image is.
pub(crate) const BASE: u64 = 0x10000;
/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;

const INPUTS: usize = 128;
/// Bytes for loads and stores, at the end of the image.
pub(crate) const MEMORY: usize = 8192;

pub(crate) struct Program {
    pub(crate) insns: Vec<u32>,
    /// The whole image.
    pub(crate) image: Vec<u8>,
    pub(crate) entry: u64,
    /// Where each instruction is.
    places: Vec<u64>,
    /// Which block each instruction gets.
    choices: Vec<usize>,
    inputs: Vec<[u64; BLOCK / 8]>,
}

struct Code(Vec<u8>);

impl Code {
    fn here(&self) -> u64 {
        BASE + self.0.len() as u64
    }

    fn word(&mut self, word: u32) {
        self.0.extend(word.to_le_bytes());
    }

    /// `op rd, imm(rs1)` and the like.
    fn i(&mut self, opcode: u32, funct: u32, rd: u32, rs1: u32, imm: u32) {
        self.word((imm & 0xfff) << 20 | rs1 << 15 | funct << 12 | rd << 7 | opcode);
    }

    fn s(&mut self, opcode: u32, rs2: u32, imm: u32) {
        self.word((imm >> 5) << 25 | rs2 << 20 | 31 << 15 | 3 << 12 | (imm & 31) << 7 | opcode);
    }

    /// `li rd, value`
    fn li(&mut self, rd: u32, value: u64) {
        let value = u32::try_from(value).unwrap();
        self.word((value.wrapping_add(0x800) & !0xfff) | rd << 7 | 0x37);
        self.i(0x13, 0, rd, rd, value);
    }

    /// `jal x30, target`
    #[allow(clippy::cast_possible_truncation)]
    fn call(&mut self, target: u64) {
        let offset = target.wrapping_sub(self.here()) as u32;
        let bits = (offset >> 20 & 1) << 31
            | (offset >> 1 & 0x3ff) << 21
            | (offset >> 11 & 1) << 20
            | (offset >> 12 & 0xff) << 12;
        self.word(bits | 30 << 7 | 0x6f);
    }

    /// `jr x30`
    fn ret(&mut self) {
        self.i(0x67, 0, 0, 30, 0);
    }
}

impl Program {
    pub(crate) fn new(insns: &[u32], seed: u64) -> Program {
        let mut random = Random(seed);
        // The code's length does not depend on addresses: once to know it, once for good.
        let draft = Program::build(insns, seed, &mut random, 0);
        let len = draft.image.len() - INPUTS * BLOCK - insns.len() * BLOCK - MEMORY;
        Program::build(insns, seed, &mut Random(seed), len)
    }

    fn build(insns: &[u32], seed: u64, random: &mut Random, code_len: usize) -> Program {
        let inputs_at = BASE + code_len as u64;
        let outputs_at = inputs_at + (INPUTS * BLOCK) as u64;
        let memory_at = outputs_at + (insns.len() * BLOCK) as u64;
        let inputs: Vec<[u64; BLOCK / 8]> = (0..INPUTS)
            .map(|_| std::array::from_fn(|word| random.register(word, memory_at)))
            .collect();

        let mut code = Code(Vec::new());
        let load = code.here();
        code.i(0x03, 3, 1, 31, 30 * 8);
        code.word(0x0030_9073); // csrw fcsr, x1
        for register in 0..32 {
            code.i(0x07, 3, register, 31, (32 + register) * 8);
        }
        for register in 1..30 {
            code.i(0x03, 3, register, 31, register * 8);
        }
        code.ret();
        let store = code.here();
        for register in 1..30 {
            code.s(0x23, register, register * 8);
        }
        for register in 0..32 {
            code.s(0x27, register, (32 + register) * 8);
        }
        code.word(0x0030_20f3); // csrr x1, fcsr
        code.s(0x23, 1, 30 * 8);
        code.ret();

        let entry = code.here();
        let (mut places, mut choices) = (Vec::new(), Vec::new());
        for (index, insn) in insns.iter().enumerate() {
            let choice = random.below(INPUTS);
            choices.push(choice);
            code.li(31, inputs_at + (choice * BLOCK) as u64);
            code.call(load);
            places.push(code.here());
            if insn & 3 == 3 {
                code.word(*insn);
            } else {
                // c.nop behind it keeps the others aligned.
                code.word(insn | 0x0001_0000);
            }
            code.li(31, outputs_at + (index * BLOCK) as u64);
            code.call(store);
        }
        // write(1, outputs, …), exit(0)
        code.li(10, 1);
        code.li(11, outputs_at);
        code.li(12, (insns.len() * BLOCK + MEMORY) as u64);
        code.li(17, 64);
        code.word(0x73);
        code.li(10, 0);
        code.li(17, 93);
        code.word(0x73);
        code.0.resize(code.0.len().next_multiple_of(64), 0);

        let mut image = code.0;
        image.extend(inputs.iter().flatten().flat_map(|word| word.to_le_bytes()));
        image.resize(image.len() + insns.len() * BLOCK, 0);
        let mut random = Random(!seed);
        image.extend((0..MEMORY / 8).flat_map(|_| random.interesting().to_le_bytes()));
        Program { insns: insns.to_vec(), image, entry, places, choices, inputs }
    }

    /// The registers before the instruction with this index.
    pub(crate) fn inputs(&self, index: usize) -> &[u64] {
        &self.inputs[self.choices[index]]
    }

    /// What is at `pc`.
    pub(crate) fn describe(&self, pc: u64) -> String {
        let index = self.places.partition_point(|place| *place <= pc);
        let insn = index.checked_sub(1).and_then(|index| self.insns.get(index));
        format!("{pc:#x}, at or behind {insn:08x?}")
    }

    /// The program as a static executable.
    pub(crate) fn elf(&self) -> Vec<u8> {
        const HEADERS: u64 = 4096;
        let mut file = Vec::new();
        // ELF header: 64 bits, little endian, executable, RISC-V, with the flags RVC and double-float ABI.
        file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0");
        for word in [self.entry, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(5_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        // One segment to load, with all rights.
        file.extend(1_u32.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        let len = self.image.len() as u64;
        for word in [HEADERS, BASE, BASE, len, len, 4096] {
            file.extend(word.to_le_bytes());
        }
        file.resize(usize::try_from(HEADERS).unwrap(), 0);
        file.extend(&self.image);
        file
    }
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

    /// A value for a word of an input block.
    fn register(&mut self, word: usize, memory: u64) -> u64 {
        let value = self.interesting();
        match word {
            // Where loads and stores go, with room for their offsets on both sides.
            2 | 10 => memory + 4096 + value % 16 * 64,
            // A rounding mode that exists, and any flags.
            30 => ((value % 5) << 5) | (self.next() % 32),
            32.. => self.float(),
            _ => value,
        }
    }

    /// A number at the end of some range, a small one, or any.
    fn interesting(&mut self) -> u64 {
        let bit = self.next() % 64;
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << bit,
            3 => (1 << bit) - 1,
            4 => u64::MAX << bit,
            5 => self.next() % 64,
            _ => self.next(),
        }
    }

    /// A double, or a boxed single or half, often with an exponent at the end of its range.
    fn float(&mut self) -> u64 {
        let [exponent_bits, fraction_bits] = [[11, 52], [8, 23], [5, 10]][self.below(3)];
        let mask = (1 << exponent_bits) - 1;
        let bias = mask / 2;
        let exponent = match self.below(8) {
            0 => 0,
            1 => 1,
            2 => mask,
            3 => mask - 1,
            4 | 5 => (bias + self.next() % 70).wrapping_sub(35) & mask,
            _ => self.next() & mask,
        };
        let fraction = self.interesting() & ((1 << fraction_bits) - 1);
        let sign = self.next() & 1;
        let value = (sign << exponent_bits | exponent) << fraction_bits | fraction;
        match fraction_bits {
            52 => value,
            23 => value | 0xffff_ffff_0000_0000,
            _ => value | 0xffff_ffff_ffff_0000,
        }
    }
}
