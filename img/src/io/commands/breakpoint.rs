//! `break`, `resume`, `wait_break` and `remove_break`: stopping requests inside a `blkdebug` node.

use std::sync::Arc;

use cairn_block::event::Event;
use cairn_block::filters::blkdebug::{BreakNotice, Breakpoints, breakpoints};
use futures_util::future::LocalBoxFuture;
use rustix::io::Errno;

use super::request::system_text;
use crate::io::command::{Call, Fault};
use crate::io::session::Session;

type Done<'a> = LocalBoxFuture<'a, Result<(), Fault>>;

/// The fault of a command that could not do `what`.
fn fault(what: &str, errno: Errno) -> Fault {
    Fault::Result(format!("Could not {what}: {}", system_text(errno.raw_os_error())))
}

/// The breakpoints of the open image; `what` is what they are needed for.
fn points(session: &Session, what: &str) -> Result<Arc<Breakpoints>, Fault> {
    breakpoints(&session.image()?.node).ok_or_else(|| fault(what, Errno::OPNOTSUPP))
}

pub(in crate::io) fn set<'a>(session: &'a mut Session, call: Call<'a>) -> Done<'a> {
    const WHAT: &str = "set breakpoint";
    Box::pin(async move {
        let [event, tag] = call.words else { return Err(Fault::Usage(None)) };
        let points = points(session, WHAT)?;
        let event = Event::from_word(event).ok_or_else(|| fault(WHAT, Errno::NOENT))?;
        let out = Arc::clone(&session.out);
        points.watch(Arc::new(move |notice, tag| {
            let what = match notice {
                BreakNotice::Stopped => "Suspended",
                BreakNotice::Resumed => "Resuming",
            };
            out.line(&format!("blkdebug: {what} request '{tag}'"));
        }));
        points.set(event, tag);
        Ok(())
    })
}

pub(in crate::io) fn resume<'a>(session: &'a mut Session, call: Call<'a>) -> Done<'a> {
    const WHAT: &str = "resume request";
    Box::pin(async move {
        let [tag] = call.words else { return Err(Fault::Usage(None)) };
        if !points(session, WHAT)?.resume(tag) {
            return Err(fault(WHAT, Errno::NOENT));
        }
        // The request goes on before the next command.
        tokio::task::yield_now().await;
        Ok(())
    })
}

pub(in crate::io) fn remove<'a>(session: &'a mut Session, call: Call<'a>) -> Done<'a> {
    Box::pin(async move {
        let [tag] = call.words else { return Err(Fault::Usage(None)) };
        let what = format!("remove breakpoint {tag}");
        if points(session, &what)?.remove(tag) { Ok(()) } else { Err(fault(&what, Errno::NOENT)) }
    })
}

pub(in crate::io) fn wait<'a>(session: &'a mut Session, call: Call<'a>) -> Done<'a> {
    Box::pin(async move {
        let [tag] = call.words else { return Err(Fault::Usage(None)) };
        points(session, "wait for a breakpoint")?.wait(tag).await;
        Ok(())
    })
}
