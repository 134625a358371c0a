//! `read` and `readv`: read a range, look at it, compare it with a pattern.

use std::time::Instant;

use futures_util::future::LocalBoxFuture;

use super::request::{Teller, unread};
use crate::io::command::{Call, Fault};
use crate::io::number::{bytes, pattern, request_length, total_length, whole_sectors};
use crate::io::session::Session;

pub(in crate::io) const DETAILS: &str = "
  -b          read the saved machine state instead of the disk
  -C          print the statistics for programs, in one line
  -P PATTERN  fail unless all bytes read have this value
  -s OFF      compare from this byte of what was read (with -P)
  -l LEN      compare so many bytes (with -P)
  -q          print no statistics
  -r          accepted: every buffer can be used by the kernel directly
  -v          print the bytes

Example: read -v -P 0xcd 512 1k
";

pub(in crate::io) const VECTOR_DETAILS: &str = "
  -C          print the statistics for programs, in one line
  -P PATTERN  fail unless all bytes read have this value
  -q          print no statistics
  -r          accepted: every buffer can be used by the kernel directly
  -v          print the bytes

Example: readv -v 512 1k 1k
";

/// A part of what was read, and what it must be.
struct Check {
    pattern: u8,
    from: usize,
    to: usize,
}

pub(in crate::io) fn read<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        // -p is for scripts from times when it chose the system call.
        let flags = call.flags("bCl:pP:qrs:v")?;
        let pattern = flags.value('P').map(pattern).transpose()?;
        let check_from = flags.value('s').map(bytes).transpose()?;
        let check_length = flags.value('l').map(bytes).transpose()?;
        let [offset, length] = flags.operands[..] else { return Err(Fault::Usage(None)) };
        let (offset, length) = (bytes(offset)?, request_length(length)?);
        if pattern.is_none() && (check_from.is_some() || check_length.is_some()) {
            return Err(Fault::Usage(None));
        }
        let check = pattern.map(|pattern| check(pattern, length, check_from, check_length));
        let check = check.transpose()?;
        let machine_state = flags.has('b');
        if machine_state {
            whole_sectors(offset, length)?;
        }
        let teller = Teller::new(session, &flags);
        let buffer = unread(session, length);
        let image = &session.image()?.backend;
        let started = Instant::now();
        let result = if machine_state {
            image.read_vm_state(offset, buffer).await
        } else {
            image.read(offset, buffer).await
        };
        let elapsed = started.elapsed();
        let buffer = result.map_err(|error| teller.failure("read", &error))?;
        let verified = check.map_or(Ok(()), |check| {
            let part = buffer.get(check.from..check.to).unwrap_or_default();
            teller.verify(part, check.pattern, offset + check.from as u64)
        });
        teller.dump(&buffer, offset);
        teller.done("read", offset, length, elapsed);
        verified
    })
}

/// The part of `length` bytes to compare.
fn check(pattern: u8, length: u64, from: Option<u64>, count: Option<u64>) -> Result<Check, Fault> {
    let from = from.unwrap_or(0);
    let to = count.map_or(Some(length), |count| from.checked_add(count));
    match to.filter(|to| from <= *to && *to <= length) {
        Some(to) => {
            let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            Ok(Check { pattern, from: index(from), to: index(to) })
        }
        None => {
            Err(Fault::Result("pattern verification range exceeds end of read data".to_owned()))
        }
    }
}

pub(in crate::io) fn readv<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("CP:qrv")?;
        let pattern = flags.value('P').map(pattern).transpose()?;
        let [offset, lengths @ ..] = &flags.operands[..] else { return Err(Fault::Usage(None)) };
        let (offset, length) = (bytes(offset)?, total_length(lengths)?);
        let teller = Teller::new(session, &flags);
        let buffer = unread(session, length);
        let started = Instant::now();
        let result = session.image()?.backend.read(offset, buffer).await;
        let elapsed = started.elapsed();
        let buffer = result.map_err(|error| teller.failure("readv", &error))?;
        let verified = pattern.map_or(Ok(()), |pattern| teller.verify(&buffer, pattern, offset));
        teller.dump(&buffer, offset);
        teller.done("read", offset, length, elapsed);
        verified
    })
}
