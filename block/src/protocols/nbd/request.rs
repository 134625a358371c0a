//! Requests on their way: what is asked, what became of it, and the table of those under way.

use std::fmt;

use cairn_nbd_wire::{Command, CommandFlags, Extent, NbdErrno};
use tokio::sync::oneshot;

use crate::buf::{IoBuf, IoBufMut};

/// What comes with a request, or is to come back with its reply.
pub(super) enum Body {
    /// Nothing.
    None,
    /// Data to be written.
    Write(IoBuf),
    /// Room for the data that is read.
    Read(IoBufMut),
    /// Nothing goes, extents come back.
    Status,
}

/// One request.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) flags: CommandFlags,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) body: Body,
}

impl Request {
    /// Bytes that the request moves, roughly: what one connection has to do.
    pub(super) fn weight(&self) -> usize {
        /// What a request costs besides its data.
        const BASE: usize = 4096;
        BASE + match &self.body {
            Body::Write(buf) => buf.len(),
            Body::Read(buf) => buf.len(),
            Body::None | Body::Status => 0,
        }
    }
}

/// What a request that succeeded gives back.
pub(super) enum Done {
    /// Nothing.
    Nothing,
    /// The data, in the buffer of the request.
    Data(IoBufMut),
    /// Extents from the request's offset on; at least one.
    Extents(Vec<Extent>),
}

/// Why a request failed.
pub(super) enum Failure {
    /// The connection is lost; whether the server did it is unknown. A read's buffer comes back.
    Lost(Option<IoBufMut>),
    /// The server refused it.
    Refused(Refusal),
}

/// An error that the server reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: NbdErrno,
    /// What the server says about it; may be empty.
    pub(super) message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::printable(&self.message))
    }
}

pub(super) type Outcome = Result<Done, Failure>;

/// What the reply to a request is to be.
pub(super) enum Expected {
    /// No data.
    Nothing,
    /// Data from `offset` on.
    Data { offset: u64, buf: IoBufMut, covered: Coverage },
    /// Extents.
    Extents(Vec<Extent>),
}

/// A request whose reply has not come yet.
pub(super) struct Pending {
    pub(super) expected: Expected,
    /// The first error that the server reported in this reply.
    pub(super) refusal: Option<Refusal>,
    pub(super) answer: oneshot::Sender<Outcome>,
}

impl Pending {
    /// The connection is lost.
    pub(super) fn lose(self) {
        let buf = match self.expected {
            Expected::Data { buf, .. } => Some(buf),
            Expected::Nothing | Expected::Extents(_) => None,
        };
        // Nobody may be interested any more.
        let _ = self.answer.send(Err(Failure::Lost(buf)));
    }
}

/// Which bytes of a read have come. Servers may send them in any order, each once.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// Invariant: sorted, disjoint and not adjacent ranges.
    ranges: Vec<(u64, u64)>,
}

/// Most ranges of a read with bytes missing in between. Servers send in order, or nearly so.
const MAX_RANGES: usize = 1024;

impl Coverage {
    /// Adds `start..end`. Fails if some of it came before, or with too many ranges.
    pub(super) fn add(&mut self, start: u64, end: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < start);
        let mut merged = (start, end);
        let mut last = at;
        while let Some(range) = self.ranges.get(last) {
            if range.0 > end {
                break;
            }
            if range.0 < end && start < range.1 {
                return false;
            }
            merged = (merged.0.min(range.0), merged.1.max(range.1));
            last += 1;
        }
        if last == at && self.ranges.len() >= MAX_RANGES {
            return false;
        }
        self.ranges.splice(at..last, [merged]);
        true
    }

    /// Whether all of `0..len` has come.
    pub(super) fn is_complete(&self, len: u64) -> bool {
        len == 0 || self.ranges == [(0, len)]
    }
}

/// The requests of a connection whose replies have not come, by their cookies.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    /// How often the slot was used: the upper half of cookies, so that a reply to an earlier request
    /// of the slot is known to be one.
    turn: u32,
    pending: Option<Pending>,
}

fn cookie(index: u32, turn: u32) -> u64 {
    u64::from(turn) << 32 | u64::from(index)
}

fn index(cookie: u64) -> usize {
    usize::try_from(cookie & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

impl Table {
    /// Adds a request and returns its cookie.
    pub(super) fn add(&mut self, pending: Pending) -> u64 {
        let free = self.free.pop();
        let at = free.unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let Some(slot) = self.slots.get_mut(index(at.into())) else {
            // Memory for so many requests does not exist.
            pending.lose();
            return u64::MAX;
        };
        slot.turn = slot.turn.wrapping_add(1);
        slot.pending = Some(pending);
        cookie(at, slot.turn)
    }

    fn slot(&mut self, wanted: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(index(wanted))?;
        let turn = u64::from(slot.turn);
        (turn == wanted >> 32).then_some(slot)
    }

    /// Whether the request still waits for its reply, and somebody for that.
    pub(super) fn is_wanted(&mut self, cookie: u64) -> bool {
        self.slot(cookie)
            .and_then(|slot| slot.pending.as_ref())
            .is_some_and(|pending| !pending.answer.is_closed())
    }

    /// Takes a request out, to work on its reply.
    pub(super) fn take(&mut self, cookie: u64) -> Option<Pending> {
        self.slot(cookie)?.pending.take()
    }

    /// Puts a request back whose reply goes on.
    pub(super) fn put_back(&mut self, cookie: u64, pending: Pending) {
        match self.slot(cookie) {
            Some(slot) => slot.pending = Some(pending),
            None => pending.lose(),
        }
    }

    /// Makes the slot of a request that was taken out free again.
    pub(super) fn release(&mut self, cookie: u64) {
        if self.slot(cookie).is_some()
            && let Ok(at) = u32::try_from(index(cookie))
        {
            self.free.push(at);
        }
    }

    /// Takes all requests out.
    pub(super) fn drain(&mut self) -> Vec<Pending> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.pending).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_read_is_complete_when_every_byte_came_once() {
        let mut covered = Coverage::default();
        assert!(covered.add(10, 20) && covered.add(0, 5) && !covered.is_complete(20));
        assert!(!covered.add(4, 6) && !covered.add(19, 30) && !covered.add(0, 30));
        assert!(covered.add(5, 10) && covered.is_complete(20));
        let mut scattered = Coverage::default();
        let all = (0..10_000).take_while(|at| scattered.add(at * 2, at * 2 + 1)).count();
        assert_eq!(all, MAX_RANGES);
    }

    proptest! {
        #[test]
        fn coverage_is_what_a_set_of_bytes_says(pieces in prop::collection::vec((0u64..64, 1u64..16), 0..40)) {
            let mut covered = Coverage::default();
            let mut bytes = [false; 80];
            for (start, len) in pieces {
                let range = usize::try_from(start).expect("small")..usize::try_from(start + len).expect("small");
                let fresh = bytes[range.clone()].iter().all(|came| !came);
                prop_assert_eq!(covered.add(start, start + len), fresh);
                if fresh {
                    bytes[range].fill(true);
                }
            }
            let len = bytes.iter().take_while(|came| **came).count();
            if bytes.iter().skip(len).all(|came| !came) {
                prop_assert!(covered.is_complete(len as u64));
            }
        }
    }

    #[test]
    fn late_replies_find_nothing() {
        let pending =
            || Pending { expected: Expected::Nothing, refusal: None, answer: oneshot::channel().0 };
        let mut table = Table::default();
        let first = table.add(pending());
        assert!(table.take(first).is_some());
        assert!(table.take(first).is_none());
        table.release(first);
        let second = table.add(pending());
        assert_ne!(first, second);
        assert!(table.take(first).is_none() && !table.is_wanted(first));
        assert!(table.take(u64::MAX).is_none());
        assert!(table.take(second).is_some());
    }
}
