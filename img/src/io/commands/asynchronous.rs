//! `aio_read`, `aio_write` and `aio_flush`: requests in the background.
//!
//! The commands succeed once the request is on its way; what becomes of it is printed when it ends.

use std::rc::Rc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;

use super::request::{PATTERN, Teller, memory, unread};
use super::write::write_flags;
use crate::io::command::{Call, Fault};
use crate::io::number::{bytes, pattern, total_length};
use crate::io::session::Session;

pub(in crate::io) const READ_DETAILS: &str = "
  -C          print the statistics for programs, in one line
  -i          count an invalid request instead of reading
  -P PATTERN  complain unless all bytes read have this value
  -q          print no statistics
  -r          accepted: every buffer can be used by the kernel directly
  -v          print the bytes

The command succeeds when the request is on its way; aio_flush waits for it.

Example: aio_read -v 512 1k 1k
";

pub(in crate::io) const WRITE_DETAILS: &str = "
  -C          print the statistics for programs, in one line
  -f          complete when the data is durable
  -i          count an invalid request instead of writing
  -P PATTERN  byte to write (default: 0xcd)
  -q          print no statistics
  -r          accepted: every buffer can be used by the kernel directly
  -u          with -z: storage may be given back
  -z          write zeroes without sending them

The command succeeds when the request is on its way; aio_flush waits for it.

Example: aio_write 512 1k 1k
";

pub(in crate::io) fn read<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("CiP:qrv")?;
        let pattern = flags.value('P').map(pattern).transpose()?;
        if flags.has('i') {
            session.out.line("injecting invalid read request");
            return Ok(());
        }
        let [offset, lengths @ ..] = &flags.operands[..] else { return Err(Fault::Usage(None)) };
        let (offset, length) = (bytes(offset)?, total_length(lengths)?);
        let teller = Teller::new(session, &flags);
        let buffer = unread(session, length);
        let image = Rc::clone(session.image()?);
        let request = async move {
            let started = Instant::now();
            let buffer = match image.backend.read(offset, buffer).await {
                Ok(buffer) => buffer,
                Err(error) => return teller.fault(teller.failure("readv", &error)),
            };
            let elapsed = started.elapsed();
            if let Some(pattern) = pattern {
                // The fault is for commands that wait; the words have been printed.
                let _ = teller.verify(&buffer, pattern, offset);
            }
            teller.dump(&buffer, offset);
            teller.done("read", offset, length, elapsed);
        };
        session.start(request).await;
        Ok(())
    })
}

pub(in crate::io) fn write<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("CfiP:qruz")?;
        let pattern = flags.value('P').map_or(Ok(PATTERN), pattern)?;
        let [offset, lengths @ ..] = &flags.operands[..] else { return Err(Fault::Usage(None)) };
        let zeroes = flags.has('z');
        if zeroes && lengths.len() != 1 {
            return Err(Fault::Result("-z supports only a single length parameter".to_owned()));
        }
        let write = write_flags(&flags)?;
        if flags.has('i') {
            session.out.line("injecting invalid write request");
            return Ok(());
        }
        let offset = bytes(offset)?;
        // Zeroes need no memory, so that their number has no limit.
        let count = match lengths {
            [length] if zeroes => bytes(length)?,
            lengths => total_length(lengths)?,
        };
        let teller = Teller::new(session, &flags);
        let buffer = (!zeroes).then(|| memory(session, count, pattern).freeze());
        let image = Rc::clone(session.image()?);
        let request = async move {
            let started = Instant::now();
            let result = match buffer {
                None => image.backend.write_zeroes(offset, count, write).await,
                Some(buffer) => image.backend.write(offset, buffer, write).await,
            };
            match result {
                Ok(()) => teller.done("wrote", offset, count, started.elapsed()),
                Err(error) => teller.fault(teller.failure("aio_write", &error)),
            }
        };
        session.start(request).await;
        Ok(())
    })
}

pub(in crate::io) fn flush<'a>(
    session: &'a mut Session,
    _: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        session.wait().await;
        Ok(())
    })
}
