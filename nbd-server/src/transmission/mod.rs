//! The transmission phase of a session: requests come in, are done side by side, and are answered in
//! the order in which they get done.
//!
//! A session is one task of one I/O thread. It shares nothing with other sessions but the block graph,
//! and what it keeps in memory is bounded, however slow or hostile the client is.

mod intake;
mod output;
mod read;
mod rules;
mod status;
mod write;

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use cairn_block::Error;
use cairn_nbd_wire::{Command, CommandFlags, HeaderStyle, NbdErrno, Request};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;

use crate::session::Session;
use crate::stream::BoxStream;
use intake::{Arrived, Intake, Memory};
use output::Output;

/// Requests of one session that are under way at most.
const MAX_REQUESTS: usize = 64;
/// What the requests and replies of one session may keep in memory, in bytes. With the buffers for
/// reading ahead, and the space that requests themselves take, a client costs less than 4 MiB.
const MEMORY: usize = 3 << 20;
/// Reads and writes up to this length are done whole, in bytes.
const WHOLE: u64 = 1 << 20;
/// Longer ones are done in pieces of this length.
const PIECE: u64 = 512 << 10;
/// Memory of the reply to one block status request, in bytes.
const STATUS_MEMORY: u64 = 256 << 10;

/// What the requests of a session share.
struct Work {
    session: Session,
    output: Output,
}

/// Whether the reply to a read may consist of several chunks.
fn can_be_split(session: &Session, request: &Request) -> bool {
    session.style >= HeaderStyle::Structured && !request.flags.contains(CommandFlags::DF)
}

/// Serves the client until it leaves, or until `stop` is done: then no more requests are taken, and the
/// replies to those that were are sent.
pub(crate) async fn transmit(
    stream: &mut BoxStream,
    session: Session,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let budget = Arc::new(Semaphore::new(MEMORY));
    let mut intake = Intake::new(budget);
    let work = Rc::new(Work { output: Output::new(session.style), session });
    let mut jobs = FuturesUnordered::new();
    let mut stop = std::pin::pin!(stop);
    let mut outcome = Ok(());
    poll_fn(|cx| {
        if intake.is_open() && stop.as_mut().poll(cx).is_ready() {
            intake.close();
        }
        loop {
            let mut progress = false;
            while intake.is_open() && jobs.len() < MAX_REQUESTS && !work.output.is_full() {
                match intake.poll_next(cx, stream, &work.session, jobs.is_empty()) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(Some(Arrived::Refused { request, refusal }))) => {
                        work.output.fail(&request, refusal.error, refusal.message);
                    }
                    Poll::Ready(Ok(Some(arrived))) => {
                        jobs.push(perform(Rc::clone(&work), arrived));
                    }
                    Poll::Ready(Ok(None)) => intake.close(),
                    Poll::Ready(Err(error)) => {
                        intake.close();
                        outcome = Err(error);
                    }
                }
                progress = true;
            }
            while let Poll::Ready(Some(())) = jobs.poll_next_unpin(cx) {
                progress = true;
            }
            match work.output.poll_send(cx, stream) {
                Poll::Ready(Ok(any)) => progress |= any,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            if work.output.is_broken() {
                let what = "a reply that was begun cannot be completed";
                return Poll::Ready(Err(io::Error::other(what)));
            }
            if !intake.is_open() && jobs.is_empty() && work.output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await?;
    outcome
}

/// Does what arrived, and answers it.
async fn perform(work: Rc<Work>, arrived: Arrived) {
    match arrived {
        Arrived::Request { request, memory } => work.perform(request, memory).await,
        Arrived::Status { request, contexts, memory } => {
            work.block_status(request, &contexts, memory).await;
        }
        Arrived::Write { request, data, memory } => {
            work.write(request, data).await;
            drop(memory);
        }
        Arrived::Piece { write, offset, data, memory } => {
            work.write_piece(&write, offset, data).await;
            drop(memory);
        }
        Arrived::Refused { request, refusal } => {
            work.output.fail(&request, refusal.error, refusal.message);
        }
    }
}

impl Work {
    async fn perform(&self, request: Request, memory: Memory) {
        match request.command {
            Command::READ => self.read(request, memory).await,
            Command::FLUSH => {
                let result = self.session.export.backend().flush().await;
                self.answer(&request, result);
            }
            Command::TRIM => self.trim(request).await,
            Command::CACHE => self.prefetch(request, memory).await,
            Command::WRITE_ZEROES => self.write_zeroes(request).await,
            // The rules let nothing else through.
            _ => self.output.fail(&request, NbdErrno::Inval, "unknown request"),
        }
    }

    /// Answers a request that has no result.
    fn answer(&self, request: &Request, result: Result<(), Error>) {
        match result {
            Ok(()) => self.output.done(request),
            Err(error) => self.fail(request, &error),
        }
    }

    /// Answers a request that failed. Clients learn the kind of the error only: its text has names that
    /// are none of their business.
    fn fail(&self, request: &Request, error: &Error) {
        let errno = self.note(request, error);
        self.output.fail(request, errno, &format!("{} failed: {errno}", request.command));
    }

    /// Tells those who watch the server of an error, and returns its number.
    fn note(&self, request: &Request, error: &Error) -> NbdErrno {
        let name = self.session.export.name();
        let Request { command, offset, len, .. } = request;
        self.session
            .notices
            .tell(format_args!("export '{name}': {command} of {len} bytes at {offset}: {error}"));
        NbdErrno::from_os(error.errno())
    }
}
