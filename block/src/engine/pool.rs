//! Threads for system calls that block.
//!
//! Threads start when there is work for them and leave when there is none for a while. A system that
//! allows no more threads gets by with fewer; with none at all the caller makes the call itself.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::file::Shared as FileShared;
use super::request::Request;
use super::runtime;

/// Threads of the shared pool at most.
const DEFAULT_THREADS: usize = 8;
/// Stack of a pool thread in bytes: system calls and little else run there.
const STACK: usize = 128 << 10;
/// A thread without work leaves after this time.
const IDLE: Duration = Duration::from_secs(10);

static SHARED: LazyLock<Pool> = LazyLock::new(|| Pool::new(DEFAULT_THREADS));

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    limit: usize,
}

/// A bounded set of threads for blocking calls; clones share it.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

impl Pool {
    /// A pool of up to `limit` threads. With a limit of 0 callers block.
    pub fn new(limit: usize) -> Pool {
        Pool(Arc::new(Shared { state: Mutex::default(), work: Condvar::new(), limit }))
    }

    /// The pool of the process.
    pub fn shared() -> Pool {
        SHARED.clone()
    }

    /// Queues `job`, which must not panic.
    fn submit(&self, job: Job) {
        let shared = &self.0;
        let mut state = shared.state.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            shared.work.notify_one();
            return;
        }
        if state.threads < shared.limit {
            let worker = Arc::clone(shared);
            let thread = std::thread::Builder::new().name("cairn-io-pool".into()).stack_size(STACK);
            if thread.spawn(move || worker.run()).is_ok() {
                state.threads += 1;
                return;
            }
        }
        if state.threads == 0
            && let Some(job) = state.jobs.pop_back()
        {
            drop(state);
            job();
        }
    }

    /// Runs `call` on a thread of the pool. It is not cancelled when the future is dropped.
    ///
    /// # Panics
    /// The returned future passes a panic of `call` on.
    pub fn run<T, F>(&self, call: F) -> impl Future<Output = T> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.submit(Box::new(move || {
            // Nobody may be interested.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(call)));
        }));
        async move {
            let result = receiver.await.expect("the pool runs every job to its end");
            result.unwrap_or_else(|panic| resume_unwind(panic))
        }
    }

    /// Runs an I/O request.
    pub(super) fn perform(&self, mut request: Request) -> PoolOp {
        let (sender, receiver) = oneshot::channel();
        let op = PoolOp { receiver, file: Arc::clone(request.file()), finished: false };
        self.submit(Box::new(move || {
            let result = request.run();
            if let Err((mut request, _)) = sender.send((request, result)) {
                request.mark_abandoned();
            }
        }));
        op
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limit", &self.0.limit).finish_non_exhaustive()
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timeout = self.work.wait_for(&mut state, IDLE);
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// Waits for an I/O request in the pool.
pub(super) struct PoolOp {
    receiver: oneshot::Receiver<(Request, io::Result<()>)>,
    file: Arc<FileShared>,
    finished: bool,
}

impl Future for PoolOp {
    type Output = (Request, io::Result<()>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.receiver).poll(cx));
        self.finished = true;
        Poll::Ready(result.expect("the pool runs every job to its end"))
    }
}

impl Drop for PoolOp {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Counted before the channel closes: whoever holds the request afterwards, this thread or
        // the pool's, takes the count back when the request is over.
        self.file.abandon();
        self.receiver.close();
        if let Ok((mut request, _)) = self.receiver.try_recv() {
            request.mark_abandoned();
        }
    }
}

/// Runs `call` on the thread pool of the current I/O thread, or of the process. It is not cancelled
/// when the future is dropped.
///
/// # Panics
/// The returned future passes a panic of `call` on.
pub fn run_blocking<T, F>(call: F) -> impl Future<Output = T> + use<T, F>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    runtime::pool().run(call)
}
