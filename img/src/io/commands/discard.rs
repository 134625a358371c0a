//! `discard` and `flush`.

use std::time::Instant;

use futures_util::future::LocalBoxFuture;

use super::request::Teller;
use crate::io::command::{Call, Fault};
use crate::io::number::{bytes, request_length};
use crate::io::session::Session;

pub(in crate::io) const DETAILS: &str = "
  -C          print the statistics for programs, in one line
  -q          print no statistics

Example: discard 512 1k
";

pub(in crate::io) fn discard<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("Cq")?;
        let [offset, length] = flags.operands[..] else { return Err(Fault::Usage(None)) };
        let (offset, length) = (bytes(offset)?, request_length(length)?);
        let teller = Teller::new(session, &flags);
        let started = Instant::now();
        let result = session.image()?.backend.discard(offset, length).await;
        let elapsed = started.elapsed();
        result.map_err(|error| teller.failure("discard", &error))?;
        teller.done("discard", offset, length, elapsed);
        Ok(())
    })
}

pub(in crate::io) fn flush<'a>(
    session: &'a mut Session,
    _: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move { Ok(session.image()?.backend.flush().await?) })
}
