//! Which requests may still use a host cluster that was unmapped.
//!
//! A request looks up where guest data is and then does I/O there, without a lock. Meanwhile the
//! cluster may be unmapped by a discard or a copy-on-write; it must not get a new owner before the
//! request is done. Requests enter an epoch; a cluster retired in epoch *n* is safe once every request
//! of epochs up to *n* has left.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Counters per epoch, so that threads do not share cache lines.
const SHARDS: usize = 16;

#[derive(Default)]
#[repr(align(64))]
struct Count(AtomicUsize);

/// Counts requests by the epoch in which they began.
#[derive(Default)]
pub(crate) struct Epochs {
    current: AtomicU64,
    /// Requests that entered in even and in odd epochs. Only the current epoch and the one before can
    /// have any.
    counts: [[Count; SHARDS]; 2],
    /// Orders retirements and advances.
    order: Mutex<()>,
}

/// A request inside an epoch; leaves it when dropped.
pub(crate) struct Inside<'e>(&'e Count);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Release);
    }
}

fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    SHARD.with(|shard| *shard)
}

impl Epochs {
    /// Enters the current epoch. To be done before the mapping is looked up.
    pub(crate) fn enter(&self) -> Inside<'_> {
        let shard = shard();
        loop {
            let epoch = self.current.load(Ordering::SeqCst);
            let count = &self.counts[usize::from(!epoch.is_multiple_of(2))][shard];
            count.0.fetch_add(1, Ordering::SeqCst);
            let inside = Inside(count);
            // If the epoch moved on in between, the counter may already have been found empty.
            if self.current.load(Ordering::SeqCst) == epoch {
                return inside;
            }
        }
    }

    /// The epoch in which something is retired that was unmapped before this call.
    pub(crate) fn retire(&self) -> u64 {
        let _order = self.order.lock();
        self.current.load(Ordering::SeqCst)
    }

    /// Moves on as far as the requests under way allow, and returns the first epoch whose retirements
    /// are not yet safe.
    pub(crate) fn advance(&self) -> u64 {
        let _order = self.order.lock();
        // Two steps make everything safe that was retired before, if there are no requests.
        for _ in 0..2 {
            let epoch = self.current.load(Ordering::SeqCst);
            let before = &self.counts[usize::from(epoch.is_multiple_of(2))];
            if before.iter().any(|count| count.0.load(Ordering::SeqCst) != 0) {
                break;
            }
            self.current.store(epoch + 1, Ordering::SeqCst);
        }
        self.current.load(Ordering::SeqCst).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retired_things_wait_for_requests_that_began_before() {
        let epochs = Epochs::default();
        let reader = epochs.enter();
        let retired = epochs.retire();
        assert!(epochs.advance() <= retired);
        let late = epochs.enter();
        assert!(epochs.advance() <= retired);
        drop(reader);
        epochs.advance();
        assert!(epochs.advance() > retired, "the later request is in no one's way");
        drop(late);
    }

    #[test]
    fn without_requests_everything_is_safe_at_once() {
        let epochs = Epochs::default();
        for _ in 0..5 {
            let retired = epochs.retire();
            assert!(epochs.advance() > retired);
        }
    }
}
