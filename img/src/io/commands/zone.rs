//! Commands for zoned devices.
//!
//! No driver has zones yet, so that every request fails like one to a device without them.

use futures_util::future::LocalBoxFuture;
use rustix::io::Errno;

use super::request::system_text;
use crate::io::command::{Call, Fault};
use crate::io::number::{bytes, total_length};
use crate::io::session::Session;

type Done<'a> = LocalBoxFuture<'a, Result<(), Fault>>;

/// Reads the words, which must be numbers, and fails: `what` needs a zoned device.
fn refuse<'a>(call: Call<'a>, what: &'static str) -> Done<'a> {
    Box::pin(async move {
        let flags = call.flags("")?;
        let [offset, lengths @ ..] = &flags.operands[..] else { return Err(Fault::Usage(None)) };
        bytes(offset)?;
        total_length(lengths)?;
        Err(Fault::Result(format!(
            "zone {what} failed: {}",
            system_text(Errno::OPNOTSUPP.raw_os_error())
        )))
    })
}

pub(in crate::io) fn append<'a>(_: &'a mut Session, call: Call<'a>) -> Done<'a> {
    refuse(call, "append")
}

pub(in crate::io) fn close<'a>(_: &'a mut Session, call: Call<'a>) -> Done<'a> {
    refuse(call, "close")
}

pub(in crate::io) fn finish<'a>(_: &'a mut Session, call: Call<'a>) -> Done<'a> {
    refuse(call, "finish")
}

pub(in crate::io) fn open<'a>(_: &'a mut Session, call: Call<'a>) -> Done<'a> {
    refuse(call, "open")
}

pub(in crate::io) fn report<'a>(_: &'a mut Session, call: Call<'a>) -> Done<'a> {
    refuse(call, "report")
}

pub(in crate::io) fn reset<'a>(_: &'a mut Session, call: Call<'a>) -> Done<'a> {
    refuse(call, "reset")
}
