//! System calls.
//!
//! [`table`] lists each call once: its name, its arguments and what makes it. A guest's ABI adds a list of numbers
//! ([`generic`]). Calls whose arguments the host's kernel takes as they are ([`Run::Host`]) need no more than
//! their line there; the others are functions, in files by families.

mod args;
mod exec;
mod file;
pub(crate) mod futex;
pub(crate) mod generic;
mod ioctl;
mod memory;
mod poll;
pub(crate) mod process;
mod signal;
mod socket;
mod strace;
mod system;
mod table;
mod vector;

use std::ffi::CString;

use cairn_tcg::Access;

use crate::abi::{UserCpu, Width};
use crate::errno::Errno;
use crate::host::Word;
use crate::log::LogItems;
use crate::process::Task;
use crate::signal::deliver::Restart;

pub(crate) use args::Kind;

/// Bytes of a path, its end included (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// A system call.
pub(crate) struct Syscall {
    pub(crate) name: &'static str,
    pub(crate) args: &'static [Kind],
    run: Run,
    restart: Restart,
}

/// What makes a call.
enum Run {
    /// The host's call with this number, with the arguments that [`Kind`] says.
    Host(libc::c_long),
    /// A function.
    Own(fn(&mut Call<'_>) -> Result<u64, Errno>),
}

/// The calls of an ABI, by number.
pub(crate) struct Numbers(Vec<Option<&'static Syscall>>);

impl Numbers {
    /// The calls with these numbers and names, which are in the table.
    fn new<'a>(list: impl IntoIterator<Item = &'a (u16, &'a str)>) -> Numbers {
        let mut calls = Vec::new();
        for (number, name) in list {
            let index = usize::from(*number);
            if calls.len() <= index {
                calls.resize_with(index + 1, || None);
            }
            calls[index] = table::find(name);
        }
        Numbers(calls)
    }

    fn at(&self, number: u64) -> Option<&'static Syscall> {
        self.0.get(usize::try_from(number).ok()?).copied().flatten()
    }
}

/// A call in the making.
pub(crate) struct Call<'a> {
    pub(crate) task: &'a mut Task,
    pub(crate) cpu: &'a mut dyn UserCpu,
    /// The registers.
    pub(crate) args: [u64; 6],
}

/// Makes the call that the CPU stands at.
pub(crate) fn dispatch(task: &mut Task, cpu: &mut dyn UserCpu) -> Result<u64, Errno> {
    let (number, args) = cpu.call();
    let process = task.process.clone();
    let syscall = (process.machine.calls)().at(number);
    let mut call = Call { task, cpu, args };
    let traced = process.log.has(LogItems::STRACE);
    let line = if traced { strace::before(&call, number, syscall) } else { String::new() };
    let Some(syscall) = syscall else {
        if !traced && process.log.has(LogItems::UNIMP) {
            process.log.write(&format!("system call {number} is not supported\n"));
        }
        if traced {
            strace::after(&call, &line, Err(Errno::ENOSYS));
        }
        return Err(Errno::ENOSYS);
    };
    let result = match syscall.run {
        Run::Host(number) => call.pass(number, syscall.args),
        Run::Own(function) => function(&mut call),
    };
    if result == Err(Errno::ERESTARTSYS) {
        call.task.restart = Some(syscall.restart);
    }
    if traced {
        strace::after(&call, &line, result);
    }
    result
}

impl Call<'_> {
    pub(crate) fn width(&self) -> Width {
        self.task.process.machine.width
    }

    /// An `int`.
    pub(crate) fn int(&self, index: usize) -> i32 {
        self.args[index] as i32
    }

    /// An `unsigned long`, or a pointer.
    pub(crate) fn long(&self, index: usize) -> u64 {
        match self.width() {
            Width::W32 => self.args[index] & 0xffff_ffff,
            Width::W64 => self.args[index],
        }
    }

    /// A pointer that may be null.
    pub(crate) fn pointer(&self, index: usize) -> Option<u64> {
        Some(self.long(index)).filter(|address| *address != 0)
    }

    /// Copies a structure of `N` bytes out of guest memory.
    pub(crate) fn read<const N: usize>(&self, address: u64) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        self.task.process.space.memory.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies `len` bytes out of guest memory.
    pub(crate) fn read_vec(&self, address: u64, len: usize) -> Result<Vec<u8>, Errno> {
        // Nothing is allocated for what is not there.
        self.task.process.space.memory.host(address, len as u64, Access::Read)?;
        let mut bytes = vec![0; len];
        self.task.process.space.memory.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies into guest memory.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        Ok(self.task.process.space.memory.write(address, bytes)?)
    }

    /// Reads a pointer.
    pub(crate) fn read_long(&self, address: u64) -> Result<u64, Errno> {
        match self.width() {
            Width::W32 => Ok(u32::from_le_bytes(self.read(address)?).into()),
            Width::W64 => Ok(u64::from_le_bytes(self.read(address)?)),
        }
    }

    /// Reads a string of at most `limit` bytes, without its end.
    pub(crate) fn read_string(&self, address: u64, limit: usize) -> Result<CString, Errno> {
        const CHUNK: u64 = 256;
        let mut bytes = Vec::new();
        let mut at = address;
        loop {
            // Chunks end at multiples of their size, so a string at the end of a mapping can be read.
            let len = (CHUNK - at % CHUNK) as usize;
            let mut chunk = [0; CHUNK as usize];
            self.task.process.space.memory.read(at, &mut chunk[..len])?;
            let end = chunk[..len].iter().position(|byte| *byte == 0);
            bytes.extend_from_slice(&chunk[..end.unwrap_or(len)]);
            if bytes.len() >= limit {
                return Err(Errno::ENAMETOOLONG);
            }
            if end.is_some() {
                return CString::new(bytes).map_err(|_| Errno::EINVAL);
            }
            at = at.wrapping_add(len as u64);
        }
    }

    /// Reads a path.
    pub(crate) fn read_path(&self, address: u64) -> Result<CString, Errno> {
        self.read_string(address, PATH_MAX)
    }

    /// Reads the path of a file that is there, and says where it is.
    pub(crate) fn lookup(&self, address: u64) -> Result<CString, Errno> {
        let path = self.read_path(address)?;
        Ok(self.task.resolve(&path))
    }

    /// Memory of `len` bytes for the kernel.
    pub(crate) fn span(
        &self,
        address: u64,
        len: u64,
        access: Access,
    ) -> Result<Word<'static>, Errno> {
        if address == 0 || len == 0 {
            return Ok(self.task.place(address));
        }
        let place = self.task.process.space.memory.host(address, len, access)?;
        Ok(Word::Guest(place.as_ptr() as u64))
    }

    /// Memory that the kernel may have to write, if it is given.
    pub(crate) fn optional(&self, index: usize, len: u64) -> Result<Word<'static>, Errno> {
        self.span(self.long(index), len, Access::Write)
    }

    /// A call of the host, which signals interrupt.
    pub(crate) fn host<const N: usize>(
        &self,
        number: libc::c_long,
        words: [Word<'_>; N],
    ) -> Result<u64, Errno> {
        self.task.host(number, words)
    }
}
