//! A guest without instructions, memory of a few words, and random blocks.

// Random numbers are cut to the size that is asked for; no test uses all of this.
#![allow(clippy::cast_possible_truncation, dead_code)]

use std::sync::Mutex;

use cairn_fpu::{Negate, Rounding, Rules};
use cairn_tcg::ir::{FloatOp, IntKind, Label, Order, Rmw, Size};
use cairn_tcg::{
    Access, CpuState, Env, Event, Fault, FaultKind, FetchFault, Flow, Global, Guest, Helper,
    InsnMark, Lift, LiftOptions, MemOp, Memory, Op, RegisterClass, Slot, Ty, Uop,
};

pub(crate) const GLOBALS: u16 = 8;

pub(crate) struct Toy;

#[derive(Clone)]
pub(crate) struct ToyCpu(Env);

impl ToyCpu {
    pub(crate) fn new() -> ToyCpu {
        ToyCpu(Env::new(&Rules::RISCV))
    }
}

impl CpuState for ToyCpu {
    fn env(&self) -> &Env {
        &self.0
    }

    fn env_mut(&mut self) -> &mut Env {
        &mut self.0
    }
}

/// Adds, and changes a global that is not its result.
fn disturb(cpu: &mut ToyCpu, a: u64, b: u64) -> Result<u64, Event> {
    if a == 0 {
        return Err(Event::Illegal);
    }
    let old = cpu.0.word(Slot::new(3));
    cpu.0.set_word(Slot::new(3), old.rotate_left(7) ^ b);
    Ok(a.wrapping_add(b))
}

const NAMES: [&str; GLOBALS as usize] = ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "pc"];

const TABLE: [Global; GLOBALS as usize] = {
    let mut table =
        [Global { name: "", slot: Slot::new(0), class: RegisterClass::General }; GLOBALS as usize];
    let mut index = 0;
    while index < GLOBALS {
        table[index as usize].name = NAMES[index as usize];
        table[index as usize].slot = Slot::new(index);
        index += 1;
    }
    table
};

/// Its instructions are random: bytes of code are seeds.
impl Guest for Toy {
    type Cpu = ToyCpu;
    const GLOBALS: &'static [Global] = &TABLE;
    const PC: Slot = Slot::new(7);
    const HELPERS: &'static [Helper<ToyCpu>] = &[Helper { name: "disturb", call: disturb }];

    fn mode(_: &ToyCpu) -> u64 {
        0
    }

    fn lift(cx: &mut Lift<'_>) -> Result<Flow, FetchFault> {
        let seed = u64::from_le_bytes(cx.fetch::<8>(0)?);
        let mut random = Random(seed);
        let temps: Vec<Slot> = (0..4).map(|_| cx.temp()).collect();
        for temp in &temps {
            cx.set(*temp, random.interesting());
        }
        let mut ahead: Vec<(usize, Label)> = Vec::new();
        let count = 2 + random.below(12);
        for index in 0..count {
            for at in (0..ahead.len()).rev() {
                if ahead[at].0 == index {
                    let (_, label) = ahead.swap_remove(at);
                    cx.place(label);
                }
            }
            random_uop(cx, &mut random, &temps, index, count, &mut ahead);
        }
        for (_, label) in ahead {
            cx.place(label);
        }
        if random.below(3) == 0 {
            let target = temps[random.below(4)];
            cx.exit_to(target);
            return Ok(Flow::End(8));
        }
        Ok(Flow::Next(8))
    }

    fn restore(_: &mut ToyCpu, _: InsnMark) {}
}

fn random_uop(
    cx: &mut Lift<'_>,
    random: &mut Random,
    temps: &[Slot],
    index: usize,
    count: usize,
    ahead: &mut Vec<(usize, Label)>,
) {
    let any = |random: &mut Random| {
        if random.below(2) == 0 {
            temps[random.below(temps.len())]
        } else {
            Slot::new(u16::try_from(random.below(7)).unwrap())
        }
    };
    let (d, a, b, c) = (any(random), any(random), any(random), any(random));
    let ty = if random.below(2) == 0 { Ty::I32 } else { Ty::I64 };
    let float = [Ty::F16, Ty::F32, Ty::F64][random.below(3)];
    let how = FloatOp {
        negate: Negate::from_bits_truncate(random.next() as u8 & 3),
        int: [IntKind::I32, IntKind::U32, IntKind::I64, IntKind::U64][random.below(4)],
        to: [Ty::F16, Ty::F32, Ty::F64][random.below(3)],
        ..FloatOp::new([Rounding::NearestEven, Rounding::Up, Rounding::Odd][random.below(3)])
    };
    let size = Size::ALL[random.below(4)];
    let op = MemOp::new(size);
    let op = if random.below(2) == 0 { op.signed() } else { op };
    let op = if random.below(4) == 0 { op.ordered(Order::Sequential) } else { op };
    match random.below(16) {
        0 => cx.set(d, random.interesting()),
        1 if a == b => cx.unary(Op::Not, Ty::I64, d, a),
        1 => cx.mov(d, a),
        2 => {
            let op = [Op::Clz, Op::Ctz, Op::Popcnt, Op::Bswap][random.below(4)];
            cx.unary(op, ty, d, a);
        }
        3 => {
            let op = [Op::Sext, Op::Zext][random.below(2)];
            cx.unary(op, [Ty::I8, Ty::I16, Ty::I32][random.below(3)], d, a);
        }
        4..8 => {
            let binary: Vec<Op> = Op::ALL
                .iter()
                .copied()
                .filter(|op| op.shape() == cairn_tcg::ir::Shape::Binary)
                .collect();
            let op = binary[random.below(binary.len())];
            if random.below(3) == 0 {
                cx.binary(op, ty, d, a, random.interesting().cast_signed());
            } else {
                cx.binary(op, ty, d, a, b);
            }
        }
        8 => cx.select(d, a, b, c),
        9 => cx.load(d, a, random.next() as i16 & 31, op),
        10 => cx.store(a, b, random.next() as i16 & 31, op),
        11 => match random.below(2) {
            0 => cx.atomic(Rmw::ALL[random.below(9)], d, a, b, op),
            _ => cx.cas(d, a, b, c, op),
        },
        12 => match random.below(3) {
            0 => {
                let op = [Op::FSqrt, Op::FToInt, Op::FFromInt, Op::FConvert][random.below(4)];
                cx.float_unary(op, float, d, a, how);
            }
            1 => {
                let op = [Op::FAdd, Op::FMul, Op::FDiv, Op::FMin, Op::FSetLe][random.below(5)];
                cx.float(op, float, d, [a, b], how);
            }
            _ => cx.fused(float, d, [a, b, c], how),
        },
        13 => cx.call(0, d, a, b),
        _ => {
            let op =
                [Op::BrEq, Op::BrNe, Op::BrLt, Op::BrGe, Op::BrLtU, Op::BrGeU][random.below(6)];
            let mut label = cx.label();
            if random.below(3) == 0 {
                cx.branch(op, a, random.interesting().cast_signed(), &mut label);
            } else {
                cx.branch(op, a, b, &mut label);
            }
            ahead.push((index + 1 + random.below(count - index), label));
        }
    }
}

/// A random block of a few instructions.
pub(crate) fn random_block(random: &mut Random) -> (Vec<Uop>, Vec<InsnMark>) {
    let code: Vec<u8> = (0..128).map(|_| random.next() as u8).collect();
    let options =
        LiftOptions { instructions: u16::try_from(1 + random.below(6)).unwrap(), optimise: false };
    let key = cairn_tcg::BlockKey { pc: 0x1000, mode: 0, options };
    let block = cairn_tcg::code::translate::<Toy>(&Code(code), key, 0, |_| false).unwrap();
    (block.uops.to_vec(), block.marks.to_vec())
}

/// Splitmix64: equal seeds, equal sequences.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }

    /// A number at the end of some range, a small one, one that is an address of [`Words`], or any.
    pub(crate) fn interesting(&mut self) -> u64 {
        let bit = self.next() % 64;
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << bit,
            3 => (1 << bit) - 1,
            4 => u64::MAX << bit,
            5 => self.next() % 64,
            6 => self.next() % 4 * 8,
            _ => self.next(),
        }
    }
}

/// Memory of 16 words from address 0.
pub(crate) struct Words(Mutex<Vec<u64>>);

impl Words {
    pub(crate) fn new(random: &mut Random) -> Words {
        Words(Mutex::new((0..16).map(|_| random.interesting()).collect()))
    }

    pub(crate) fn words(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }

    fn exchange(
        &self,
        address: u64,
        op: MemOp,
        access: Access,
        new: impl FnOnce(u64) -> Option<u64>,
    ) -> Result<u64, Fault> {
        let mut words = self.0.lock().unwrap();
        let fault = |kind| Fault { address, access, kind };
        if !address.is_multiple_of(op.size().bytes()) {
            return Err(fault(FaultKind::Misaligned));
        }
        let index = usize::try_from(address / 8).unwrap();
        let word = words.get_mut(index).ok_or(fault(FaultKind::Unmapped))?;
        let shift = address % 8 * 8;
        let mask = op.size().mask() << shift;
        let old = op.extend((*word & mask) >> shift);
        if let Some(new) = new(old) {
            *word = *word & !mask | new << shift & mask;
        }
        Ok(old)
    }
}

impl Memory for Words {
    fn load(&self, address: u64, op: MemOp) -> Result<u64, Fault> {
        self.exchange(address, op, Access::Read, |_| None)
    }

    fn store(&self, address: u64, value: u64, op: MemOp) -> Result<(), Fault> {
        self.exchange(address, op, Access::Write, |_| Some(value)).map(|_| ())
    }

    fn rmw(&self, address: u64, value: u64, rmw: Rmw, op: MemOp) -> Result<u64, Fault> {
        self.exchange(address, op, Access::Write, |old| {
            Some(if rmw == Rmw::Swap { value } else { old.wrapping_mul(3) ^ value })
        })
    }

    fn cas(&self, address: u64, expected: u64, new: u64, op: MemOp) -> Result<u64, Fault> {
        self.exchange(address, op, Access::Write, |old| (old == expected).then_some(new))
    }

    fn cas_pair(
        &self,
        address: u64,
        _: [u64; 2],
        _: [u64; 2],
        _: MemOp,
    ) -> Result<[u64; 2], Fault> {
        Err(Fault { address, access: Access::Write, kind: FaultKind::Unmapped })
    }

    fn fetch(&self, address: u64, _: &mut [u8]) -> Result<(), Fault> {
        Err(Fault { address, access: Access::Fetch, kind: FaultKind::Unmapped })
    }

    fn watch_code(&self, _: u64) {}

    fn sync_code(&self) {}
}

/// Code from 0x1000 on, and nothing else.
struct Code(Vec<u8>);

impl Memory for Code {
    fn load(&self, address: u64, _: MemOp) -> Result<u64, Fault> {
        Err(Fault { address, access: Access::Read, kind: FaultKind::Unmapped })
    }

    fn store(&self, address: u64, _: u64, _: MemOp) -> Result<(), Fault> {
        Err(Fault { address, access: Access::Write, kind: FaultKind::Unmapped })
    }

    fn rmw(&self, address: u64, _: u64, _: Rmw, _: MemOp) -> Result<u64, Fault> {
        Err(Fault { address, access: Access::Write, kind: FaultKind::Unmapped })
    }

    fn cas(&self, address: u64, _: u64, _: u64, _: MemOp) -> Result<u64, Fault> {
        Err(Fault { address, access: Access::Write, kind: FaultKind::Unmapped })
    }

    fn cas_pair(
        &self,
        address: u64,
        _: [u64; 2],
        _: [u64; 2],
        _: MemOp,
    ) -> Result<[u64; 2], Fault> {
        Err(Fault { address, access: Access::Write, kind: FaultKind::Unmapped })
    }

    fn fetch(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let start = usize::try_from(address - 0x1000).unwrap();
        bytes.copy_from_slice(&self.0[start..start + bytes.len()]);
        Ok(())
    }

    fn watch_code(&self, _: u64) {}

    fn sync_code(&self) {}
}
