//! Commands about the program itself.

use std::time::Duration;

use cairn_block::options::parse_i64;
use futures_util::future::LocalBoxFuture;
use rustix::process::{Signal, getpid, kill_process};

use crate::io::command::{self, Call, Fault};
use crate::io::number::bytes;
use crate::io::session::Session;

pub(in crate::io) fn abort<'a>(
    _: &'a mut Session,
    _: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    // Nothing is written out: that is what a crash is like.
    std::process::abort();
}

pub(in crate::io) fn sigraise<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let [text] = call.words else { return Err(Fault::Usage(None)) };
        let number = bytes(text)?;
        let signal = i32::try_from(number).ok().and_then(Signal::from_named_raw);
        // The signal may be the end, and results must not be lost.
        session.out.flush();
        match signal {
            // Number 0 only asks whether a signal could be sent.
            None if number == 0 => Ok(()),
            None => Err(Fault::Error(format!("there is no signal {text}"))),
            Some(signal) => kill_process(getpid(), signal)
                .map_err(|error| Fault::Error(format!("cannot send signal {text}: {error}"))),
        }
    })
}

pub(in crate::io) fn sleep<'a>(
    _: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let [text] = call.words else { return Err(Fault::Usage(None)) };
        let millis = parse_i64(text).ok().and_then(|millis| u64::try_from(millis).ok());
        let millis =
            millis.ok_or_else(|| Fault::Result(format!("{text} is not a valid number")))?;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(())
    })
}

pub(in crate::io) fn quit<'a>(
    session: &'a mut Session,
    _: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    session.end();
    Box::pin(async { Ok(()) })
}

pub(in crate::io) fn help<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    let text = match call.words.first().map(|name| (name, command::find(name))) {
        Some((_, Some(command))) => format!("{}\n{}", command.usage(), command.details()),
        Some((name, None)) => format!("command {name} not found\n"),
        None => {
            let lines: Vec<String> = command::all().map(command::Command::usage).collect();
            format!("{}\n\nUse 'help commandname' for extended help.\n", lines.join("\n"))
        }
    };
    session.out.print(&text);
    Box::pin(async { Ok(()) })
}
