//! Kinds of arguments: how they go to the host's kernel, and how a trace shows them (in [`super::strace`]).

use std::ffi::CString;

use cairn_tcg::Access;

use super::Call;
use crate::abi::Width;
use crate::errno::Errno;
use crate::host::Word;

/// What an argument is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A signed number of 32 bits.
    Int,
    /// An unsigned number of 32 bits.
    Uint,
    /// A signed `long`.
    Long,
    /// An unsigned `long`: a size.
    Size,
    /// A number of 64 bits, in two registers of a 32-bit guest.
    Offset,
    /// Bits that are shown in hexadecimal.
    Hex,
    /// Rights of a file.
    Octal,
    /// A file descriptor.
    Fd,
    /// A file descriptor of a folder, or `AT_FDCWD`.
    DirFd,
    /// A signal.
    Signal,
    /// Flags by name.
    Flags(&'static [(u64, &'static str)]),
    /// The path of a file that is there.
    Path,
    /// A path that may be made, renamed or removed.
    NewPath,
    /// Another string.
    Text,
    /// An address that is looked at by the function that makes the call.
    Pointer,
    /// A structure of so many bytes that the kernel reads.
    In(u16),
    /// A structure that the kernel writes.
    Out(u16),
    /// A structure that the kernel reads and writes.
    InOut(u16),
    /// As `InOut`, with the layout of 64-bit architectures; other guests have no such call.
    Native(u16),
    /// Bytes that the kernel reads, as many as the argument with this index says.
    Source(u8),
    /// Bytes that the kernel writes.
    Sink(u8),
    /// Bytes that the kernel writes; their number is where the argument with this index points to.
    SinkAt(u8),
}

/// Strings that a call needs while it is made.
struct Strings([Option<CString>; 2]);

impl Strings {
    /// Keeps a string, and returns its index.
    fn keep(&mut self, string: CString) -> Result<usize, Errno> {
        let index = self.0.iter().position(Option::is_none).ok_or(Errno::EINVAL)?;
        self.0[index] = Some(string);
        Ok(index)
    }
}

enum Argument {
    Word(Word<'static>),
    String(usize),
}

impl Call<'_> {
    /// Makes the host's call `number` with arguments of these kinds.
    pub(super) fn pass(
        &mut self,
        number: libc::c_long,
        kinds: &'static [Kind],
    ) -> Result<u64, Errno> {
        let mut strings = Strings([None, None]);
        let mut arguments = [const { Argument::Word(Word::Number(0)) }; 6];
        let mut register = 0;
        for (argument, kind) in arguments.iter_mut().zip(kinds) {
            *argument = self.argument(*kind, register, kinds, &mut strings)?;
            register += kind.registers(self.width());
        }
        let words = arguments.map(|argument| match argument {
            Argument::Word(word) => word,
            Argument::String(index) => match &strings.0[index] {
                Some(string) => Word::In(string.as_bytes_with_nul()),
                None => Word::Number(0),
            },
        });
        self.host(number, words)
    }

    fn argument(
        &self,
        kind: Kind,
        register: usize,
        kinds: &[Kind],
        strings: &mut Strings,
    ) -> Result<Argument, Errno> {
        // Every list of kinds fits the registers, as a test finds out.
        let raw = self.args[register];
        let address = self.long(register);
        // Arguments that give lengths have no two-register arguments before them.
        let length = |index: u8| self.long(usize::from(index));
        let word = match kind {
            Kind::Int | Kind::Fd | Kind::DirFd | Kind::Signal => Word::from(raw as i32),
            Kind::Uint | Kind::Octal => Word::Number(raw & 0xffff_ffff),
            Kind::Size | Kind::Hex | Kind::Flags(_) | Kind::Pointer => Word::Number(address),
            Kind::Offset if self.width() == Width::W32 => {
                let high = self.args.get(register + 1).copied().unwrap_or_default();
                Word::Number(raw & 0xffff_ffff | high << 32)
            }
            Kind::Long | Kind::Offset => Word::Number(raw),
            Kind::Path | Kind::NewPath | Kind::Text if address == 0 => Word::Number(0),
            Kind::Path => return Ok(Argument::String(strings.keep(self.lookup(address)?)?)),
            Kind::NewPath | Kind::Text => {
                return Ok(Argument::String(strings.keep(self.read_path(address)?)?));
            }
            Kind::In(len) => self.span(address, len.into(), Access::Read)?,
            Kind::Native(_) if self.width() != Width::W64 && address != 0 => {
                return Err(Errno::ENOSYS);
            }
            Kind::Out(len) | Kind::InOut(len) | Kind::Native(len) => {
                // What the kernel only reads may be constant, so a structure that cannot be written is left to it.
                match self.span(address, len.into(), Access::Write) {
                    Err(_) if matches!(kind, Kind::Native(_)) => {
                        self.span(address, len.into(), Access::Read)?
                    }
                    other => other?,
                }
            }
            Kind::Source(index) => self.span(address, length(index), Access::Read)?,
            Kind::Sink(index) => self.span(address, length(index), Access::Write)?,
            Kind::SinkAt(index) => {
                let at = length(index);
                let len = if at == 0 { 0 } else { u32::from_le_bytes(self.read(at)?) };
                self.span(address, len.into(), Access::Write)?
            }
        };
        debug_assert!(kinds.len() <= 6);
        Ok(Argument::Word(word))
    }
}

impl Kind {
    /// Registers that the argument takes.
    pub(super) fn registers(self, width: Width) -> usize {
        if matches!(self, Kind::Offset) && width == Width::W32 { 2 } else { 1 }
    }
}
