//! What the rings of a process have in common: the order of buffered writes to one file.
//!
//! File systems let in one writer of a file at a time. The kernel therefore does the buffered writes that
//! one ring wants of a file one after the other; but the writers of several rings would spin on the
//! file's lock, which costs more processor time than the writes. A thread's writers keep to the order of
//! the first ring that the thread uses, whatever rings it has later (`io_uring` of Linux 5.12 and later:
//! the hash of work lies in the ring, the queue of work in the task). So every thread uses one ring of
//! the process first, which does nothing else.

use std::sync::LazyLock;

use io_uring::IoUring;

static FIRST: LazyLock<Option<IoUring>> = LazyLock::new(|| IoUring::new(1).ok());

/// Makes the buffered writes of this thread's rings take turns with those of other threads. To be called
/// before the thread has a ring; without effect where the system refuses rings.
pub(super) fn join() {
    let Some(first) = &*FIRST else { return };
    // SAFETY: the call has no argument that points anywhere, and the queue is always empty: there is
    // nothing in it that the kernel could begin.
    let entered = unsafe { first.submitter().enter::<libc::sigset_t>(1, 0, 0, None) };
    // The turns save time; nothing depends on them.
    drop(entered);
}
