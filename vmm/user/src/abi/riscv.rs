//! RISC-V: the ABI of Linux on RV64 and RV32 (`arch/riscv/include/uapi/asm`).

use std::fmt::Write;
use std::sync::LazyLock;

use cairn_gdbstub::{Feature, Register, Registers};
use cairn_riscv::{Cpu, Extensions, Riscv, Xlen};
use cairn_tcg::softmmu::Flat;
use cairn_tcg::{Fault, Guest};

use super::layout::{Reader, Writer};
use super::{CpuError, Delivery, Machine, Returned, UserCpu, UserGuest, Width};
use crate::elf;
use crate::process::Traits;
use crate::signal::{AltStack, INFO_SIZE, SignalSet};
use crate::syscall::generic;

/// 64 bits. Programs have the half of the addresses that Sv39 leaves them.
pub(crate) static RISCV64: Machine = Machine {
    name: "riscv64",
    width: Width::W64,
    address_space: 1 << 38,
    calls: generic::numbers64,
    registers: registers64,
    trampoline: &TRAMPOLINE,
    elf: elf::Machine::RISCV,
};

/// 32 bits.
pub(crate) static RISCV32: Machine = Machine {
    name: "riscv32",
    width: Width::W32,
    address_space: 1 << 32,
    calls: generic::numbers32,
    registers: registers32,
    trampoline: &TRAMPOLINE,
    elf: elf::Machine::RISCV,
};

/// `li a7, 139; ecall`: unwinders know a signal frame by these instructions.
const TRAMPOLINE: [u8; 8] = [0x93, 0x08, 0xb0, 0x08, 0x73, 0, 0, 0];

const RA: u16 = 1;
const SP: u16 = 2;
const TP: u16 = 4;
const A0: u16 = 10;
const A1: u16 = 11;
const A2: u16 = 12;
const A7: u16 = 17;

/// Offsets in `struct rt_sigframe`: a `siginfo_t`, then a `struct ucontext`.
struct Frame {
    stack: usize,
    mask: usize,
    registers: usize,
    float: usize,
    size: usize,
}

impl Frame {
    /// `uc_flags` and `uc_link` come before the stack; the mask has room for 1024 signals; the registers and
    /// the floating-point state, which has room for quads, are aligned to 16 bytes.
    const fn new(width: Width) -> Frame {
        let long = width.bytes();
        let stack = INFO_SIZE + 2 * long;
        let mask = stack + 3 * long;
        let registers = (mask + 128).next_multiple_of(16);
        let float = (registers + 32 * long).next_multiple_of(16);
        Frame { stack, mask, registers, float, size: float + 528 }
    }
}

fn width(cpu: &Cpu) -> Width {
    match cpu.xlen() {
        Xlen::X32 => Width::W32,
        Xlen::X64 => Width::W64,
    }
}

/// Names of CPUs, and what they are.
pub(crate) const MODELS: [(&str, &str); 3] = [
    ("max", "all extensions that there are"),
    ("rv64", "the same; the default of 64-bit programs"),
    ("rv32", "the same; the default of 32-bit programs"),
];

/// A CPU by its model and properties: `MODEL[,EXTENSION=on|off...]`.
pub(crate) fn cpu(machine: &Machine, choice: Option<&str>) -> Result<Cpu, CpuError> {
    let xlen = if machine.width == Width::W64 { Xlen::X64 } else { Xlen::X32 };
    let mut words = choice.unwrap_or("max").split(',');
    let model = words.next().unwrap_or_default();
    let other = if xlen == Xlen::X64 { "rv32" } else { "rv64" };
    if model == other || MODELS.iter().all(|(name, _)| *name != model) {
        return Err(CpuError::Model(model.to_owned()));
    }
    let mut extensions = Extensions::all();
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, "on"));
        let flag = Extensions::from_name(&name.to_ascii_uppercase());
        let flag = flag.ok_or_else(|| CpuError::Property(name.to_owned()))?;
        match value {
            "on" | "true" | "yes" => extensions.insert(flag),
            "off" | "false" | "no" => extensions.remove(flag),
            _ => return Err(CpuError::Value(name.to_owned())),
        }
    }
    Ok(Cpu::new(xlen, extensions))
}

/// A bit for each extension with a letter (`arch/riscv/include/uapi/asm/hwcap.h`).
pub(crate) fn hwcap(cpu: &Cpu) -> u64 {
    letters(cpu).map(|letter| 1 << (letter as u8 - b'a')).sum()
}

/// The letters of the base and of the extensions that have one, in their order.
fn letters(cpu: &Cpu) -> impl Iterator<Item = char> {
    let has = cpu.extensions();
    let letters = [
        ('i', Extensions::empty()),
        ('m', Extensions::M),
        ('a', Extensions::A),
        ('f', Extensions::F),
        ('d', Extensions::D),
        ('c', Extensions::empty()),
    ];
    letters.into_iter().filter(move |(_, flag)| has.contains(*flag)).map(|(letter, _)| letter)
}

/// What programs find out about a CPU.
pub(crate) fn traits(cpu: &Cpu) -> Traits {
    let width = if cpu.xlen() == Xlen::X64 { "rv64" } else { "rv32" };
    let mut isa: String = width.chars().chain(letters(cpu)).collect();
    for (name, _) in cpu.extensions().iter_names().filter(|(name, _)| name.len() > 1) {
        isa.push('_');
        isa.push_str(&name.to_ascii_lowercase());
    }
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut cpu_info = String::new();
    for index in 0..count {
        let _ = writeln!(cpu_info, "processor\t: {index}\nhart\t\t: {index}\nisa\t\t: {isa}\n");
    }
    Traits { cpu_info, probe: probe(cpu.extensions()) }
}

/// Keys of `riscv_hwprobe` (`arch/riscv/include/uapi/asm/hwprobe.h`).
fn probe(has: Extensions) -> Vec<(i64, u64)> {
    const VENDOR: i64 = 0;
    const ARCHITECTURE: i64 = 1;
    const IMPLEMENTATION: i64 = 2;
    const BASE: i64 = 3;
    const EXTENSIONS: i64 = 4;
    const MISALIGNED: i64 = 5;
    const ZERO_BLOCK: i64 = 6;
    const FAST: u64 = 3;
    let bits = [
        (Extensions::F.union(Extensions::D), 0),
        (Extensions::empty(), 1), // C
        (Extensions::ZBA, 3),
        (Extensions::ZBB, 4),
        (Extensions::ZBS, 5),
        (Extensions::ZICBOZ, 6),
        (Extensions::ZBC, 7),
        (Extensions::ZFH, 27),
        (Extensions::ZFH, 28),     // Zfhmin
        (Extensions::empty(), 29), // Zihintntl
        (Extensions::ZACAS, 34),
        (Extensions::ZICOND, 35),
        (Extensions::empty(), 36), // Zihintpause
    ];
    let bits = bits.iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, bit)| 1 << bit).sum();
    let base = u64::from(has.contains(Extensions::M | Extensions::A));
    let zero_block = if has.contains(Extensions::ZICBOZ) { 64 } else { 0 };
    vec![
        (VENDOR, 0),
        (ARCHITECTURE, 0),
        (IMPLEMENTATION, 0),
        (BASE, base),
        (EXTENSIONS, bits),
        (MISALIGNED, FAST),
        (ZERO_BLOCK, zero_block),
    ]
}

/// Addresses are positive; registers of RV32 hold them sign-extended.
fn address(cpu: &Cpu, value: u64) -> u64 {
    match cpu.xlen() {
        Xlen::X32 => value & 0xffff_ffff,
        Xlen::X64 => value,
    }
}

/// Indices of registers for debuggers: integer ones, the program counter, floating-point ones, and what controls these.
const DEBUG_PC: usize = 32;
const DEBUG_FLOAT: usize = 33;
const DEBUG_FFLAGS: usize = 65;
const DEBUG_FRM: usize = 66;
const DEBUG_FCSR: usize = 67;
const DEBUG_COUNT: usize = 68;

fn registers64() -> &'static Registers {
    static REGISTERS: LazyLock<Registers> = LazyLock::new(|| registers("riscv:rv64", Width::W64));
    &REGISTERS
}

fn registers32() -> &'static Registers {
    static REGISTERS: LazyLock<Registers> = LazyLock::new(|| registers("riscv:rv32", Width::W32));
    &REGISTERS
}

/// The registers, with GDB's numbers (`gdb/riscv-tdep.h` has CSR `n` at 65 + `n`).
fn registers(architecture: &'static str, width: Width) -> Registers {
    let bits = 8 * width.bytes() as u32;
    let register = |name: &str, bits, kind, number, general| Register {
        name: name.to_owned(),
        bits,
        kind,
        number,
        general,
    };
    let names = Riscv::GLOBALS.iter().take(DEBUG_PC).enumerate();
    let mut integer: Vec<Register> = names
        .map(|(number, global)| {
            let kind = match number {
                1 => "code_ptr",
                2..=4 => "data_ptr",
                _ => "int",
            };
            register(global.name, bits, kind, number, true)
        })
        .collect();
    integer.push(register("pc", bits, "code_ptr", DEBUG_PC, true));
    let names = Riscv::GLOBALS.iter().skip(32).take(32).enumerate();
    let mut float: Vec<Register> = names
        .map(|(index, global)| {
            register(global.name, 64, "riscv_double", DEBUG_FLOAT + index, false)
        })
        .collect();
    for (name, csr) in [("fflags", 1), ("frm", 2), ("fcsr", 3)] {
        float.push(register(name, 32, "int", 65 + csr, false));
    }
    let union = "<union id=\"riscv_double\"><field name=\"float\" type=\"ieee_single\"/>\
                 <field name=\"double\" type=\"ieee_double\"/></union>";
    Registers::new(
        architecture,
        vec![
            Feature { name: "org.gnu.gdb.riscv.cpu", types: "", registers: integer },
            Feature { name: "org.gnu.gdb.riscv.fpu", types: union, registers: float },
        ],
    )
}

impl UserCpu for Cpu {
    fn pc(&self) -> u64 {
        Cpu::pc(self)
    }

    fn sp(&self) -> u64 {
        address(self, self.x(SP))
    }

    fn start(&mut self, entry: u64, sp: u64) {
        for register in 1..32 {
            self.set_x(register, 0);
        }
        for register in 0..32 {
            self.set_f(register, 0);
        }
        self.set_fcsr(0);
        self.set_pc(entry);
        self.set_x(SP, sp);
        self.clear_reservation();
    }

    fn call(&self) -> (u64, [u64; 6]) {
        let number = address(self, self.x(A7));
        (number, std::array::from_fn(|index| self.x(A0 + index as u16)))
    }

    fn skip_call(&mut self) {
        self.set_pc(address(self, Cpu::pc(self).wrapping_add(4)));
        self.clear_reservation();
    }

    fn set_result(&mut self, value: i64) {
        self.set_x(A0, value.cast_unsigned());
    }

    fn set_sp(&mut self, sp: u64) {
        self.set_x(SP, sp);
    }

    fn set_tls(&mut self, tls: u64) {
        self.set_x(TP, tls);
    }

    fn enter_handler(&mut self, memory: &Flat, delivery: &Delivery) -> Result<(), Fault> {
        let width = width(self);
        let frame = Frame::new(width);
        let at = delivery.top.wrapping_sub(frame.size as u64) & !15;
        let mut out = Writer::new(width);
        out.long(0).long(0);
        out.long(delivery.stack.start);
        out.uint(delivery.stack.status(self.sp())).long(delivery.stack.size);
        // The mask is an array of longs.
        out.uint(delivery.mask.0 as u32).uint((delivery.mask.0 >> 32) as u32);
        out.pad_to(frame.registers - INFO_SIZE).long(Cpu::pc(self));
        for register in 1..32 {
            out.long(self.x(register));
        }
        out.pad_to(frame.float - INFO_SIZE);
        for register in 0..32 {
            out.u64(self.f(register));
        }
        out.uint(self.fcsr().into()).pad_to(frame.size - INFO_SIZE);
        let mut bytes = delivery.info.encode(width);
        bytes.extend(out.finish());
        memory.write(at, &bytes)?;

        self.set_x(A0, delivery.number as u64);
        self.set_x(A1, at);
        self.set_x(A2, at + INFO_SIZE as u64);
        self.set_x(RA, delivery.trampoline);
        self.set_x(SP, at);
        self.set_pc(delivery.action.handler);
        self.clear_reservation();
        Ok(())
    }

    fn leave_handler(&mut self, memory: &Flat) -> Result<Returned, Fault> {
        let width = width(self);
        let frame = Frame::new(width);
        let mut bytes = vec![0; frame.size];
        memory.read(self.sp(), &mut bytes)?;
        let mut stack = Reader::new(width, &bytes[frame.stack..]);
        let (start, flags, size) = (stack.long(), stack.uint(), stack.long());
        let mut mask = Reader::new(width, &bytes[frame.mask..]);
        let mask = u64::from(mask.uint()) | u64::from(mask.uint()) << 32;
        let mut registers = Reader::new(width, &bytes[frame.registers..]);
        self.set_pc(registers.long());
        for register in 1..32 {
            self.set_x(register, registers.long());
        }
        let mut float = Reader::new(width, &bytes[frame.float..]);
        for register in 0..32 {
            self.set_f(register, float.u64());
        }
        self.set_fcsr(float.uint() as u8);
        self.clear_reservation();
        let disabled = flags & AltStack::DISABLE != 0;
        Ok(Returned {
            mask: SignalSet(mask),
            stack: AltStack {
                start,
                size: if disabled { 0 } else { size },
                flags: flags & AltStack::AUTODISARM,
            },
        })
    }

    fn read_registers(&self) -> Vec<Option<Vec<u8>>> {
        let long = width(self).bytes();
        let integer = |value: u64| Some(value.to_le_bytes()[..long].to_vec());
        let has_float = self.extensions().contains(Extensions::F);
        let float = |bytes: &[u8]| has_float.then(|| bytes.to_vec());
        let control = |value: u8| float(&u32::from(value).to_le_bytes());
        let mut out: Vec<Option<Vec<u8>>> =
            (0..32).map(|register| integer(self.x(register))).collect();
        out.push(integer(Cpu::pc(self)));
        out.extend((0..32).map(|register| float(&self.f(register).to_le_bytes())));
        out.extend([self.fcsr() & 31, self.fcsr() >> 5, self.fcsr()].map(control));
        debug_assert_eq!(out.len(), DEBUG_COUNT);
        out
    }

    fn core_registers(&self) -> Vec<u64> {
        // The program counter is in the place of register 0.
        (0..32).map(|n| if n == 0 { Cpu::pc(self) } else { self.x(n) }).collect()
    }

    fn core_float(&self) -> Vec<u8> {
        let mut out = Writer::new(Width::W64);
        for register in 0..32 {
            out.u64(self.f(register));
        }
        out.uint(self.fcsr().into()).align(8);
        out.finish()
    }

    fn write_register(&mut self, index: usize, value: &[u8]) {
        let mut bytes = [0; 8];
        let len = value.len().min(8);
        bytes[..len].copy_from_slice(&value[..len]);
        let value = u64::from_le_bytes(bytes);
        let fcsr = self.fcsr();
        match index {
            0..DEBUG_PC => self.set_x(index as u16, value),
            DEBUG_PC => self.set_pc(value),
            DEBUG_FLOAT..DEBUG_FFLAGS => self.set_f((index - DEBUG_FLOAT) as u16, value),
            DEBUG_FFLAGS => self.set_fcsr(fcsr & !31 | value as u8 & 31),
            DEBUG_FRM => self.set_fcsr(fcsr & 31 | (value as u8 & 7) << 5),
            DEBUG_FCSR => self.set_fcsr(value as u8),
            _ => {}
        }
    }

    fn describe(&self) -> String {
        let mut text = format!(" pc       {:016x}\n", Cpu::pc(self));
        for (index, global) in Riscv::GLOBALS.iter().take(32).enumerate() {
            let name = format!("x{index}/{}", global.name);
            let end = if index % 4 == 3 { '\n' } else { ' ' };
            let _ = write!(text, " {name:<8} {:016x}{end}", self.x(index as u16));
        }
        text
    }
}

impl UserGuest for Riscv {
    fn disassemble(bytes: &[u8], pc: u64, mode: u64) -> (String, usize) {
        let mut word = [0; 4];
        let len = bytes.len().min(4);
        word[..len].copy_from_slice(&bytes[..len]);
        let (text, len) =
            cairn_riscv::disassemble(u32::from_le_bytes(word), pc, Cpu::xlen_of_mode(mode));
        (text, len as usize)
    }
}
