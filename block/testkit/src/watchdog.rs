//! Ends a test that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

struct Shared {
    since: Mutex<(Instant, String)>,
    over: AtomicBool,
}

/// A thread that aborts the process if one step of a test takes too long. Nothing else ends a thread
/// that waits for a lost wakeup or turns in a circle.
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts to watch; every step may take `limit`.
    pub fn start(limit: Duration) -> Watchdog {
        let shared = Arc::new(Shared {
            since: Mutex::new((Instant::now(), "the beginning".to_owned())),
            over: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !watched.over.load(Ordering::Acquire) {
                std::thread::park_timeout(limit / 8);
                let (since, step) = &*watched.since.lock();
                if since.elapsed() > limit && !watched.over.load(Ordering::Acquire) {
                    eprintln!("no progress for {limit:?} since: {step}");
                    std::process::abort();
                }
            }
        });
        Watchdog { shared, thread: Some(thread) }
    }

    /// Says that `step` begins now.
    pub fn step(&self, step: impl Into<String>) {
        *self.shared.since.lock() = (Instant::now(), step.into());
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread never panics; if it did, the test is over anyway.
            let _ = thread.join();
        }
    }
}
