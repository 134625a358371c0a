//! Request tracking: which writes of a node are under way, and which of them exclude others.
//!
//! A *serialising* request (read-modify-write of a partial block, copy-on-read, a guarded zero write)
//! excludes every other tracked request that overlaps it. Requests wait only for earlier ones, so
//! they cannot wait in a circle.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

struct Entry {
    id: u64,
    range: Range<u64>,
    serialising: bool,
    done: Arc<Notify>,
}

/// The requests under way on one node.
#[derive(Default)]
pub(crate) struct Tracker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    entries: Vec<Entry>,
}

/// A request under way; ends when dropped.
pub(crate) struct Tracked<'t> {
    tracker: &'t Tracker,
    id: u64,
    done: Arc<Notify>,
}

impl Tracker {
    /// Begins a request on `range` and waits until no earlier request excludes it.
    pub(crate) async fn begin(&self, range: Range<u64>, serialising: bool) -> Tracked<'_> {
        let done = Arc::new(Notify::new());
        let tracked = {
            let mut state = self.state.lock();
            let id = state.next_id;
            state.next_id += 1;
            let entry = Entry { id, range: range.clone(), serialising, done: Arc::clone(&done) };
            state.entries.push(entry);
            Tracked { tracker: self, id, done }
        };
        loop {
            let blocker = self.state.lock().entries.iter().find_map(|e| {
                let overlaps = e.range.start < range.end && range.start < e.range.end;
                let excludes = e.id < tracked.id && overlaps && (e.serialising || serialising);
                // Registered under the lock, so that the end of the blocker cannot be missed.
                excludes.then(|| Arc::clone(&e.done).notified_owned())
            });
            match blocker {
                Some(done) => done.await,
                None => return tracked,
            }
        }
    }
}

impl Drop for Tracked<'_> {
    fn drop(&mut self) {
        let mut state = self.tracker.state.lock();
        if let Some(at) = state.entries.iter().position(|e| e.id == self.id) {
            state.entries.swap_remove(at);
        }
        self.done.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_blocked(tracker: &Tracker, range: Range<u64>, serialising: bool) -> bool {
        let begin = tracker.begin(range, serialising);
        tokio::time::timeout(Duration::from_millis(10), begin).await.is_err()
    }

    #[tokio::test]
    async fn only_serialising_overlaps_wait() {
        let tracker = Tracker::default();
        let plain = tracker.begin(0..4096, false).await;
        assert!(!is_blocked(&tracker, 0..4096, false).await);
        assert!(is_blocked(&tracker, 4095..4096, true).await);
        assert!(!is_blocked(&tracker, 4096..8192, true).await);
        drop(plain);
        let serialising = tracker.begin(0..4096, true).await;
        assert!(is_blocked(&tracker, 0..1, false).await);
        drop(serialising);
        assert!(!is_blocked(&tracker, 0..1, true).await);
    }

    #[tokio::test]
    async fn a_waiting_request_goes_on_when_the_earlier_ends() {
        let tracker = Tracker::default();
        let first = tracker.begin(0..100, true).await;
        let second = tracker.begin(50..60, true);
        tokio::pin!(second);
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        second.await;
    }
}
