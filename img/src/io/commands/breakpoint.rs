//! `break`, `resume`, `wait_break` and `remove_break`: stopping requests on their way.
//!
//! No driver stops requests yet, so that they fail as on an image without such a driver.

use futures_util::future::LocalBoxFuture;
use rustix::io::Errno;

use super::request::system_text;
use crate::io::command::{Call, Fault};
use crate::io::session::Session;

type Done<'a> = LocalBoxFuture<'a, Result<(), Fault>>;

fn refuse<'a>(what: String) -> Done<'a> {
    let text = format!("Could not {what}: {}", system_text(Errno::OPNOTSUPP.raw_os_error()));
    Box::pin(async move { Err(Fault::Result(text)) })
}

pub(in crate::io) fn set<'a>(_: &'a mut Session, _: Call<'a>) -> Done<'a> {
    refuse("set breakpoint".to_owned())
}

pub(in crate::io) fn resume<'a>(_: &'a mut Session, _: Call<'a>) -> Done<'a> {
    refuse("resume request".to_owned())
}

pub(in crate::io) fn remove<'a>(_: &'a mut Session, call: Call<'a>) -> Done<'a> {
    refuse(format!("remove breakpoint {}", call.words.join(" ")))
}

pub(in crate::io) fn wait<'a>(_: &'a mut Session, _: Call<'a>) -> Done<'a> {
    refuse("wait for a breakpoint".to_owned())
}
