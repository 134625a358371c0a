//! Copying between an image and the standard streams, which have no size and no offsets.

use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::thread;

use cairn_block::buf::is_zero;
use cairn_block::driver::WriteFlags;
use cairn_block::engine;
use cairn_block::graph::Backend;
use cairn_block::num::AsUsize as _;
use cairn_block::{IoBuf, IoBufMut};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::ops::convert::Notice;

/// Bytes that are read or written at once.
const PIECE: u64 = 1 << 20;
/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// What of standard input goes where.
pub(super) struct Inflow<'r> {
    pub(super) target: &'r Backend,
    /// First byte of the target that is written.
    pub(super) at: u64,
    /// Bytes of the input to leave out at its beginning.
    pub(super) skip: u64,
    /// Bytes to copy; the input may go on behind them.
    pub(super) most: Option<u64>,
    /// Bytes that must come.
    pub(super) least: u64,
    /// Pieces that are all zero are written as such.
    pub(super) sparse: bool,
}

impl Inflow<'_> {
    /// Copies. Returns the number of bytes.
    pub(super) async fn run(&self, notice: &dyn Notice) -> Result<u64> {
        let room = self.target.size().saturating_sub(self.at);
        let mut pieces = read_ahead(self.skip, self.most.unwrap_or(u64::MAX))?;
        let mut done = 0;
        while let Some(piece) = pieces.recv().await {
            let piece =
                piece.map_err(|source| Error::Setup { what: "read standard input", source })?;
            let len = piece.len() as u64;
            if len > room - done {
                return Err(Error::Usage(format!(
                    "standard input is longer than the {room} bytes that the target has room for"
                )));
            }
            let at = self.at + done;
            if self.sparse && is_zero(&piece) {
                self.target.write_zeroes(at, len, WriteFlags::MAY_UNMAP).await?;
            } else {
                self.target.write(at, piece, WriteFlags::empty()).await?;
            }
            done += len;
            notice.copied(len);
        }
        if done < self.least {
            return Err(Error::Usage(format!(
                "standard input ended after {done} of {} bytes",
                self.least
            )));
        }
        Ok(done)
    }
}

/// Reads standard input on a thread of its own, a few pieces ahead. The channel ends with the input,
/// after `most` bytes, or with an error.
fn read_ahead(skip: u64, most: u64) -> Result<mpsc::Receiver<io::Result<IoBuf>>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let read = move || {
        let mut input = io::stdin().lock();
        let mut left = most;
        let skipped = io::copy(&mut input.by_ref().take(skip), &mut io::sink()).map(|_| ());
        let mut next = skipped.and_then(|()| read_piece(&mut input, left));
        while !matches!(&next, Ok(piece) if piece.is_empty()) {
            left -= next.as_ref().map_or(0, |piece| piece.len() as u64);
            let failed = next.is_err();
            // Nobody listens any more once the copy has failed.
            if sender.blocking_send(next).is_err() || failed {
                return;
            }
            next = read_piece(&mut input, left);
        }
    };
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(read)
        .map_err(|source| Error::Setup { what: "start a thread for standard input", source })?;
    Ok(receiver)
}

/// The next piece, of at most `most` bytes; it is shorter than others only at the end of the input.
fn read_piece(input: &mut impl io::Read, most: u64) -> io::Result<IoBuf> {
    let mut piece = IoBufMut::new(most.min(PIECE).as_usize());
    let mut filled = 0;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece.freeze())
}

/// Copies `part` of `source` to standard output.
pub(super) async fn write_out(
    source: &Backend,
    part: Range<u64>,
    notice: &dyn Notice,
) -> Result<()> {
    let mut at = part.start;
    while at < part.end {
        let len = (part.end - at).min(PIECE);
        let piece = source.read(at, IoBufMut::new(len.as_usize())).await?;
        engine::compute(move || io::stdout().lock().write_all(&piece))
            .await
            .map_err(Error::Stdout)?;
        at += len;
        notice.copied(len);
    }
    engine::compute(|| io::stdout().lock().flush()).await.map_err(Error::Stdout)
}
