//! Checking generated code against the interpreter, unit by unit and region by region.
//!
//! The code runs first and for good; what it does to memory is recorded. Then the interpreter runs as many blocks on a copy of the
//! CPU, with the record in place of memory: it must ask for the same in the same order, and end in the same state. So
//! other CPUs may change memory meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_fpu::Flags;

use crate::guest::{CpuState, Guest};
use crate::interp::{self, Leave};
use crate::ir::{Block, MemOp, Rmw};
use crate::memory::{Fault, Memory};

/// What is done to memory, with all operands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Request {
    Load(u64, MemOp),
    Store(u64, u64, MemOp),
    Rmw(u64, u64, Rmw, MemOp),
    Cas(u64, [u64; 2], MemOp),
    CasPair(u64, [u64; 4], MemOp),
    Sync,
}

type Answer = Result<[u64; 2], Fault>;

/// Memory that remembers what was done to it.
pub(crate) struct Recorder<'a, M> {
    memory: &'a M,
    log: Mutex<Vec<(Request, Answer)>>,
}

impl<'a, M: Memory> Recorder<'a, M> {
    pub(crate) fn new(memory: &'a M) -> Recorder<'a, M> {
        Recorder { memory, log: Mutex::new(Vec::new()) }
    }

    fn note(&self, request: Request, answer: Answer) -> Answer {
        lock(&self.log).push((request, answer));
        answer
    }

    /// Runs as many `blocks` of `members` on `before` with the same answers. Returns what differs from how the code left
    /// `after`.
    pub(crate) fn check<G: Guest>(
        self,
        members: &[Arc<Block>],
        blocks: u64,
        mut before: G::Cpu,
        after: &G::Cpu,
        left: Leave,
    ) -> Result<(), String> {
        let player = Player { memory: self.memory, log: self.log, next: Mutex::new(0) };
        let mut expected = Leave::Next;
        let mut problems = Vec::new();
        let mut way: Vec<&Block> = Vec::new();
        for _ in 0..blocks {
            let pc = before.env().word(G::PC);
            let Some(block) = members.iter().find(|member| member.key.pc == pc) else {
                problems.push(format!("there is no block at {pc:#x}"));
                break;
            };
            if !way.iter().any(|known| std::ptr::eq(*known, &raw const **block)) {
                way.push(block);
            }
            expected = interp::run::<G>(&mut before, &player, block);
            if expected != Leave::Next {
                break;
            }
        }
        if expected != left {
            problems.push(format!("left by {left:?}, not {expected:?}"));
        }
        for global in G::GLOBALS {
            let (wanted, found) = (before.env().word(global.slot), after.env().word(global.slot));
            if wanted != found {
                problems.push(format!("{} is {found:#x}, not {wanted:#x}", global.name));
            }
        }
        // Guests with plain arithmetic do not see this flag.
        let unseen = if G::PLAIN_FLOAT { Flags::INPUT_DENORMAL } else { Flags::empty() };
        let flags = |cpu: &G::Cpu| cpu.env().float.flags.difference(unseen);
        if flags(&before) != flags(after) || G::mode(&before) != G::mode(after) {
            problems.push("the floating-point state differs".to_owned());
        }
        let (played, recorded) = (*lock(&player.next), lock(&player.log).len());
        if played != recorded {
            problems.push(format!("{recorded} accesses, not {played}, or not the same"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        let listings: Vec<String> =
            way.into_iter().map(|block| crate::ir::listing::<G>(block)).collect();
        Err(format!("{} blocks: {}\n{}", blocks, problems.join("\n"), listings.join("\n")))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pair of numbers of which one is used.
fn one(value: Result<u64, Fault>) -> Answer {
    value.map(|value| [value, 0])
}

fn first(answer: Answer) -> Result<u64, Fault> {
    answer.map(|[value, _]| value)
}

impl<M: Memory> Memory for Recorder<'_, M> {
    fn load(&self, address: u64, op: MemOp) -> Result<u64, Fault> {
        first(self.note(Request::Load(address, op), one(self.memory.load(address, op))))
    }

    fn store(&self, address: u64, value: u64, op: MemOp) -> Result<(), Fault> {
        let done = self.memory.store(address, value, op);
        self.note(Request::Store(address, value, op), done.map(|()| [0, 0])).map(|_| ())
    }

    fn rmw(&self, address: u64, value: u64, rmw: Rmw, op: MemOp) -> Result<u64, Fault> {
        let old = self.memory.rmw(address, value, rmw, op);
        first(self.note(Request::Rmw(address, value, rmw, op), one(old)))
    }

    fn cas(&self, address: u64, expected: u64, new: u64, op: MemOp) -> Result<u64, Fault> {
        let old = self.memory.cas(address, expected, new, op);
        first(self.note(Request::Cas(address, [expected, new], op), one(old)))
    }

    fn cas_pair(
        &self,
        address: u64,
        expected: [u64; 2],
        new: [u64; 2],
        op: MemOp,
    ) -> Result<[u64; 2], Fault> {
        let old = self.memory.cas_pair(address, expected, new, op);
        let operands = [expected[0], expected[1], new[0], new[1]];
        self.note(Request::CasPair(address, operands, op), old)
    }

    fn fetch(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.memory.fetch(address, bytes)
    }

    fn watch_code(&self, address: u64) {
        self.memory.watch_code(address);
    }

    fn sync_code(&self) {
        self.memory.sync_code();
        let _ = self.note(Request::Sync, Ok([0, 0]));
    }
}

/// Memory that gives the recorded answers.
struct Player<'a, M> {
    memory: &'a M,
    log: Mutex<Vec<(Request, Answer)>>,
    next: Mutex<usize>,
}

impl<M> Player<'_, M> {
    /// The recorded answer, if this was asked. If not, the end of the record is never reached.
    fn ask(&self, request: Request) -> Answer {
        let mut next = lock(&self.next);
        let recorded = lock(&self.log).get(*next).copied();
        match recorded {
            Some((same, answer)) if same == request => {
                *next += 1;
                answer
            }
            _ => {
                *next = usize::MAX;
                Ok([0, 0])
            }
        }
    }
}

impl<M: Memory> Memory for Player<'_, M> {
    fn load(&self, address: u64, op: MemOp) -> Result<u64, Fault> {
        first(self.ask(Request::Load(address, op)))
    }

    fn store(&self, address: u64, value: u64, op: MemOp) -> Result<(), Fault> {
        self.ask(Request::Store(address, value, op)).map(|_| ())
    }

    fn rmw(&self, address: u64, value: u64, rmw: Rmw, op: MemOp) -> Result<u64, Fault> {
        first(self.ask(Request::Rmw(address, value, rmw, op)))
    }

    fn cas(&self, address: u64, expected: u64, new: u64, op: MemOp) -> Result<u64, Fault> {
        first(self.ask(Request::Cas(address, [expected, new], op)))
    }

    fn cas_pair(
        &self,
        address: u64,
        expected: [u64; 2],
        new: [u64; 2],
        op: MemOp,
    ) -> Result<[u64; 2], Fault> {
        self.ask(Request::CasPair(address, [expected[0], expected[1], new[0], new[1]], op))
    }

    fn fetch(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.memory.fetch(address, bytes)
    }

    fn watch_code(&self, address: u64) {
        self.memory.watch_code(address);
    }

    fn sync_code(&self) {
        let _ = self.ask(Request::Sync);
    }
}
