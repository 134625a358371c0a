//! `write` and `writev`: write a pattern, a file or zeroes.

use std::time::Instant;

use cairn_block::IoBufMut;
use cairn_block::driver::WriteFlags;
use futures_util::future::LocalBoxFuture;

use super::request::{PATTERN, Teller, memory};
use crate::io::command::{Call, Fault};
use crate::io::flags::Flags;
use crate::io::number::{MAX_REQUEST, bytes, pattern, total_length, whole_sectors};
use crate::io::session::Session;

pub(in crate::io) const DETAILS: &str = "
  -b          write the saved machine state instead of the disk
  -c          write compressed
  -C          print the statistics for programs, in one line
  -f          complete when the data is durable
  -n          with -z: fail rather than write zeroes as data
  -P PATTERN  byte to write (default: 0xcd)
  -q          print no statistics
  -r          accepted: every buffer can be used by the kernel directly
  -s FILE     write the content of a file, over and over
  -u          with -z: storage may be given back
  -z          write zeroes without sending them

Example: write -P 0xab 512 1k
";

pub(in crate::io) const VECTOR_DETAILS: &str = "
  -C          print the statistics for programs, in one line
  -f          complete when the data is durable
  -P PATTERN  byte to write (default: 0xcd)
  -q          print no statistics
  -r          accepted: every buffer can be used by the kernel directly

Example: writev 512 1k 1k
";

/// What is written.
enum Source<'a> {
    Zeroes,
    Pattern(u8),
    File(&'a str),
}

/// The flags for the block layer, with what they need.
pub(super) fn write_flags(flags: &Flags<'_>) -> Result<WriteFlags, Fault> {
    let mut write = WriteFlags::empty();
    for (letter, flag) in
        [('f', WriteFlags::FUA), ('n', WriteFlags::NO_FALLBACK), ('u', WriteFlags::MAY_UNMAP)]
    {
        write.set(flag, flags.has(letter));
    }
    for letter in ['n', 'u'] {
        if flags.has(letter) && !flags.has('z') {
            return Err(Fault::Result(format!("-{letter} requires -z to be specified")));
        }
    }
    Ok(write)
}

pub(in crate::io) fn write<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("bcCfnpP:qrs:uz")?;
        let pattern = flags.value('P').map(pattern).transpose()?;
        let [offset, length] = flags.operands[..] else { return Err(Fault::Usage(None)) };
        let (machine_state, compressed) = (flags.has('b'), flags.has('c'));
        let refuse = |text: &str| Err(Fault::Result(text.to_owned()));
        if machine_state && flags.has('z') {
            return refuse("-b and -z cannot be specified at the same time");
        }
        if flags.has('f') && (machine_state || compressed) {
            return refuse("-f and -b or -c cannot be specified at the same time");
        }
        let write = write_flags(&flags)?;
        let source = match (flags.has('z'), pattern, flags.value('s')) {
            (true, None, None) => Source::Zeroes,
            (false, pattern, None) => Source::Pattern(pattern.unwrap_or(PATTERN)),
            (false, None, Some(file)) => Source::File(file),
            _ => return refuse("Only one of -z, -P, and -s can be specified at the same time"),
        };
        let (offset, count) = (bytes(offset)?, bytes(length)?);
        if count > MAX_REQUEST && !flags.has('n') {
            return Err(Fault::Result(format!(
                "length cannot exceed {MAX_REQUEST} without -n, given {length}"
            )));
        }
        if machine_state || compressed {
            whole_sectors(offset, count)?;
        }
        let teller = Teller::new(session, &flags);
        let buffer = match source {
            Source::Zeroes => None,
            Source::Pattern(pattern) => Some(memory(session, count, pattern)),
            Source::File(file) => Some(content(session, file, count)?),
        };
        let image = &session.image()?.backend;
        let started = Instant::now();
        let result = match buffer.map(IoBufMut::freeze) {
            None => image.write_zeroes(offset, count, write).await,
            Some(buffer) if machine_state => image.write_vm_state(offset, buffer).await,
            Some(buffer) if compressed => image.write_compressed(offset, buffer).await,
            Some(buffer) => image.write(offset, buffer, write).await,
        };
        let elapsed = started.elapsed();
        result.map_err(|error| teller.failure("write", &error))?;
        teller.done("wrote", offset, count, elapsed);
        Ok(())
    })
}

/// Memory of `count` bytes with the content of `file`, over and over.
fn content(session: &Session, file: &str, count: u64) -> Result<IoBufMut, Fault> {
    let content = std::fs::read(file).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        Fault::Note(format!("{file}: {text}"))
    })?;
    if content.is_empty() {
        return Err(Fault::Note(format!("{file}: file is empty")));
    }
    let mut buffer = memory(session, count, 0);
    for part in buffer.chunks_mut(content.len()) {
        part.copy_from_slice(content.get(..part.len()).unwrap_or_default());
    }
    Ok(buffer)
}

pub(in crate::io) fn writev<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("CfP:qr")?;
        let write = write_flags(&flags)?;
        let pattern = flags.value('P').map_or(Ok(PATTERN), pattern)?;
        let [offset, lengths @ ..] = &flags.operands[..] else { return Err(Fault::Usage(None)) };
        let (offset, count) = (bytes(offset)?, total_length(lengths)?);
        let teller = Teller::new(session, &flags);
        let buffer = memory(session, count, pattern).freeze();
        let started = Instant::now();
        let result = session.image()?.backend.write(offset, buffer, write).await;
        let elapsed = started.elapsed();
        result.map_err(|error| teller.failure("writev", &error))?;
        teller.done("wrote", offset, count, elapsed);
        Ok(())
    })
}
