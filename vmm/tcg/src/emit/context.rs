//! What generated code and the rest of the translator share.
//!
//! All `unsafe` of generated code is here and in [`super::arena`]. It rests on these facts:
//! 1. Code in an arena was made by [`super::lower`] from a verified block, and never changes; an arena is not given back.
//! 2. It touches the CPU's words, the context, its own data and, by the rules of
//!    [`Flat`](crate::softmmu::Flat), guest memory; nothing else.
//! 3. While it runs, the thread that entered it does nothing else: the CPU and the context are its alone.

use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::guest::{CpuState, Guest};
use crate::interp::{self, Leave};
use crate::ir::{Block, InsnMark, Uop};
use crate::memory::Memory;

/// Entries of the table of jumps of a CPU.
const JUMPS: usize = 4096;
/// What is left of an index into it.
pub(super) const JUMP_MASK: i32 = offset(JUMPS - 1);

/// Where the unit for an address is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Jump {
    pc: u64,
    entry: u64,
}

impl Jump {
    pub(super) const SIZE: usize = size_of::<Jump>();
    pub(super) const ENTRY: i32 = offset(offset_of!(Jump, entry));

    /// An entry that is never looked for: its address belongs to the next one.
    fn none(index: usize) -> Jump {
        Jump { pc: 2 * (index as u64 + 1), entry: 0 }
    }
}

/// An operation that the interpreter does for generated code.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Record {
    uop: Uop,
    /// So that there are no bytes between the fields.
    unused: u32,
    /// Address of its instruction.
    pc: u64,
    mark: InsnMark,
}

impl Record {
    /// The record of the operation with index `at` of `block`.
    pub(super) fn of(block: &Block, at: usize) -> Record {
        let mark = block.mark_of(at);
        let pc = mark.map_or(block.key.pc, |mark| block.pc_of(mark));
        Record { uop: block.uops[at], unused: 0, pc, mark: mark.unwrap_or_default() }
    }

    /// The record as it lies in memory.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        // SAFETY: the fields are integers and enumerations without fields, of 12, 4, 8 and 8 bytes: all bytes
        // are initialised.
        unsafe { std::mem::transmute(self) }
    }
}

/// Guest memory that generated code may touch.
#[derive(Clone, Copy, Debug)]
pub struct Direct {
    /// Host address of guest address 0.
    pub base: u64,
    /// Host address of the flags of page 0, a byte for each page.
    pub flags: u64,
    /// Number of guest addresses, a multiple of eight.
    pub size: u64,
}

/// The state of a CPU besides the guest's.
#[repr(C)]
pub(crate) struct Context {
    base: u64,
    flags: u64,
    /// The size of the address space, in units of 1, 2, 4 and 8 bytes.
    limits: [u64; 4],
    kick: *const AtomicBool,
    /// The cell of the exit that was left by, or 0.
    exit: u64,
    leave: u64,
    /// Where a region goes that leaves to an address which it has put into the program counter.
    miss: u64,
    /// Where a region goes once `step` has asked it to leave.
    stop: u64,
    /// `step` for regions: it keeps all registers, takes its operation from `record`, and leaves its result in `stopped`.
    step_kept: u64,
    record: u64,
    stopped: u64,
    /// Blocks that a checked region has entered.
    blocks: u64,
    step: u64,
    cpu: *mut (),
    memory: *const (),
    /// Why a unit was left, if not to go on elsewhere.
    left: Leave,
    jumps: [Jump; JUMPS],
}

const fn offset(bytes: usize) -> i32 {
    assert!(bytes < 1 << 20);
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    let bytes = bytes as i32;
    bytes
}

impl Context {
    pub(super) const KICK: i32 = offset(offset_of!(Context, kick));
    pub(super) const EXIT: i32 = offset(offset_of!(Context, exit));
    pub(super) const LEAVE: i32 = offset(offset_of!(Context, leave));
    pub(super) const STEP: i32 = offset(offset_of!(Context, step));
    pub(super) const JUMPS: i32 = offset(offset_of!(Context, jumps));
    pub(super) const BASE: i32 = offset(offset_of!(Context, base));
    pub(super) const FLAGS: i32 = offset(offset_of!(Context, flags));
    pub(super) const MISS: i32 = offset(offset_of!(Context, miss));
    pub(super) const STOP: i32 = offset(offset_of!(Context, stop));
    pub(super) const STEP_KEPT: i32 = offset(offset_of!(Context, step_kept));
    pub(super) const RECORD: i32 = offset(offset_of!(Context, record));
    pub(super) const STOPPED: i32 = offset(offset_of!(Context, stopped));
    pub(super) const BLOCKS: i32 = offset(offset_of!(Context, blocks));

    /// Where the limit for accesses of `1 << size` bytes is.
    pub(super) const fn limit(size: usize) -> i32 {
        offset(offset_of!(Context, limits) + 8 * size)
    }

    /// Every CPU on memory that code can touch has one.
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn new(direct: Direct) -> Option<Box<Context>> {
        Some(Box::new(Context {
            base: direct.base,
            flags: direct.flags,
            limits: std::array::from_fn(|size| direct.size >> size),
            kick: std::ptr::null(),
            exit: 0,
            leave: cairn_tcg_leave as *const () as u64,
            miss: cairn_tcg_miss as *const () as u64,
            stop: cairn_tcg_stop as *const () as u64,
            step_kept: cairn_tcg_step_kept as *const () as u64,
            record: 0,
            stopped: 0,
            blocks: 0,
            step: 0,
            cpu: std::ptr::null_mut(),
            memory: std::ptr::null(),
            left: Leave::Next,
            jumps: std::array::from_fn(Jump::none),
        }))
    }

    /// Forgets where units are.
    pub(crate) fn forget_jumps(&mut self) {
        self.jumps = std::array::from_fn(Jump::none);
    }

    /// Notes where the unit for `pc` is.
    pub(crate) fn note_jump(&mut self, pc: u64, entry: Entry) {
        // The remainder is below the length of the table.
        #[allow(clippy::cast_possible_truncation)]
        let index = (pc >> 1) as usize % JUMPS;
        self.jumps[index] = Jump { pc, entry: entry.0 };
    }

    /// How many blocks checked regions have entered since this was asked last.
    pub(crate) fn take_blocks(&mut self) -> u64 {
        std::mem::take(&mut self.blocks)
    }

    /// Runs the unit at `entry`, and those that it goes on to. Also returns the cell of the exit, if that is not linked.
    pub(crate) fn run<G: Guest, M: Memory>(
        &mut self,
        entry: Entry,
        cpu: &mut G::Cpu,
        memory: &M,
        kick: &AtomicBool,
    ) -> (Leave, Option<Cell>) {
        self.kick = kick;
        self.step = step::<G, M> as *const () as u64;
        self.cpu = std::ptr::from_mut(cpu).cast();
        self.memory = std::ptr::from_ref(memory).cast();
        let context = std::ptr::from_mut(self);
        // SAFETY: `entry` is that of a unit (only `Arena` makes them), which keeps to the facts above. The CPU begins
        // with its words, as `CpuState` demands. All pointers are valid until `enter` returns.
        let left = unsafe { cairn_tcg_enter(entry.0, (*context).cpu, context.cast()) };
        let leave = if left == 0 { Leave::Next } else { self.left };
        (leave, (self.exit != 0 && left == 0).then_some(Cell(self.exit)))
    }
}

/// The first instruction of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(super) u64);

/// The target of an exit, in the data of a unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell(pub(super) u64);

impl Cell {
    /// Lets the exit go to a unit.
    pub(crate) fn link(self, entry: Entry) {
        // SAFETY: generated code has left the address of one of its cells, which are aligned and stay for good
        // (fact 1). Code reads them whole.
        unsafe { &*(self.0 as *const AtomicU64) }.store(entry.0, Ordering::Release);
    }
}

/// Does an operation for generated code; returns whether the unit is to be left.
///
/// A panic ends the process: it cannot go through generated code.
unsafe extern "sysv64" fn step<G: Guest, M: Memory>(
    context: *mut Context,
    record: *const Record,
) -> u64 {
    // SAFETY: generated code passes the context it was entered with, and a record in its data (facts 2 and 3).
    let (context, record) = unsafe { (&mut *context, &*record) };
    // SAFETY: `run::<G, M>` has set both, and borrows what they point to while code runs.
    let (cpu, memory) =
        unsafe { (&mut *context.cpu.cast::<G::Cpu>(), &*context.memory.cast::<M>()) };
    match interp::step_one::<G, M>(&record.uop, cpu, memory) {
        Ok(()) => 0,
        Err(leave) => {
            cpu.env_mut().set_word(G::PC, record.pc);
            G::restore(cpu, record.mark);
            context.left = leave;
            1
        }
    }
}

std::arch::global_asm!(
    // rdi: where to; rsi: the words; rdx: the context. Six registers are kept, and the stack is aligned for calls.
    ".p2align 4",
    ".global cairn_tcg_enter",
    "cairn_tcg_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov rbx, rsi",
    "mov rbp, rdx",
    "mov r14, [rdx + {base}]",
    "mov r15, [rdx + {flags}]",
    "jmp rdi",
    ".global cairn_tcg_miss",
    "cairn_tcg_miss:",
    "mov qword ptr [rbp + {exit}], 0",
    "xor eax, eax",
    "jmp cairn_tcg_leave",
    ".global cairn_tcg_stop",
    "cairn_tcg_stop:",
    "mov eax, 1",
    ".global cairn_tcg_leave",
    "cairn_tcg_leave:",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    // A region calls this, whose frame begins with the register that the context was in. All registers that a function may
    // change are kept, and the stack is aligned.
    ".p2align 4",
    ".global cairn_tcg_step_kept",
    "cairn_tcg_step_kept:",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "sub rsp, 264",
    "movups [rsp], xmm0",
    "movups [rsp + 16], xmm1",
    "movups [rsp + 32], xmm2",
    "movups [rsp + 48], xmm3",
    "movups [rsp + 64], xmm4",
    "movups [rsp + 80], xmm5",
    "movups [rsp + 96], xmm6",
    "movups [rsp + 112], xmm7",
    "movups [rsp + 128], xmm8",
    "movups [rsp + 144], xmm9",
    "movups [rsp + 160], xmm10",
    "movups [rsp + 176], xmm11",
    "movups [rsp + 192], xmm12",
    "movups [rsp + 208], xmm13",
    "movups [rsp + 224], xmm14",
    "movups [rsp + 240], xmm15",
    "mov rbx, [rbp]",
    "mov rdi, rbx",
    "mov rsi, [rbx + {record}]",
    "call [rbx + {step}]",
    "mov [rbx + {stopped}], rax",
    "movups xmm0, [rsp]",
    "movups xmm1, [rsp + 16]",
    "movups xmm2, [rsp + 32]",
    "movups xmm3, [rsp + 48]",
    "movups xmm4, [rsp + 64]",
    "movups xmm5, [rsp + 80]",
    "movups xmm6, [rsp + 96]",
    "movups xmm7, [rsp + 112]",
    "movups xmm8, [rsp + 128]",
    "movups xmm9, [rsp + 144]",
    "movups xmm10, [rsp + 160]",
    "movups xmm11, [rsp + 176]",
    "movups xmm12, [rsp + 192]",
    "movups xmm13, [rsp + 208]",
    "movups xmm14, [rsp + 224]",
    "movups xmm15, [rsp + 240]",
    "add rsp, 264",
    "pop rbx",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "ret",
    base = const Context::BASE,
    flags = const Context::FLAGS,
    exit = const Context::EXIT,
    step = const Context::STEP,
    record = const Context::RECORD,
    stopped = const Context::STOPPED,
);

unsafe extern "sysv64" {
    fn cairn_tcg_enter(entry: u64, cpu: *mut (), context: *mut ()) -> u32;
    fn cairn_tcg_leave();
    fn cairn_tcg_miss();
    fn cairn_tcg_stop();
    fn cairn_tcg_step_kept();
}
