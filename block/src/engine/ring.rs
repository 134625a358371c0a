//! The `io_uring` of one I/O thread.
//!
//! Requests are prepared in the submission queue and enter the kernel together when the driving task
//! gets its turn, behind all tasks that were runnable, or when a batch is full. That task waits for
//! completions with the runtime's epoll on the ring's descriptor. The slab owns every request, with
//! its buffer and file, until its completion arrives; futures only hold the slab's key.
//!
//! The system may refuse `io_uring_enter` from some moment on, as filters of system calls do that a
//! process puts upon itself. What the kernel has not taken by then goes back to the caller, and the ring
//! takes no more; what the kernel has taken completes as usual.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use smallvec::SmallVec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::request::{Request, Step};
use super::runtime::spawn_local;
use super::share;

/// Prepared requests that enter the kernel together at most, unless a file says otherwise.
const BATCH: u32 = 32;
/// Completion queue entries for each submission queue entry.
const COMPLETIONS_FACTOR: u32 = 4;

/// Where a request is.
enum Stage {
    /// Not given to the kernel, since too many are in flight.
    Waiting,
    /// Prepared or in the kernel.
    InFlight,
    /// Over, and not yet fetched by its future.
    Done(io::Result<()>),
    /// The kernel never takes it; not yet fetched by its future.
    Refused,
}

struct Entry {
    request: Request,
    stage: Stage,
    /// Its place in the sequence of all requests prepared so far.
    serial: u64,
    waker: Option<Waker>,
    abandoned: bool,
}

#[derive(Default)]
struct Slab {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
}

impl Slab {
    fn insert(&mut self, entry: Entry) -> usize {
        if let Some(key) = self.free.pop() {
            self.entries[key] = Some(entry);
            return key;
        }
        self.entries.push(Some(entry));
        self.entries.len() - 1
    }

    fn get_mut(&mut self, key: usize) -> Option<&mut Entry> {
        self.entries.get_mut(key)?.as_mut()
    }

    fn remove(&mut self, key: usize) -> Option<Entry> {
        let entry = self.entries.get_mut(key)?.take()?;
        self.free.push(key);
        Some(entry)
    }
}

struct State {
    uring: IoUring,
    slab: Slab,
    /// Keys of requests in `Stage::Waiting`, oldest first. Keys of dropped futures stay behind with
    /// an abandoned entry.
    waiting: VecDeque<usize>,
    /// Requests in `Stage::InFlight`. Invariant: at most as many as the completion queue has
    /// entries, so that it cannot overflow.
    in_flight: u32,
    limit: u32,
    /// Prepared requests that the kernel has not taken yet.
    prepared: u32,
    /// How many requests were prepared so far.
    serial: u64,
    /// The error number with which the system has refused `io_uring_enter`. From then on that is not
    /// called any more: the submission queue may refer to buffers that are gone.
    refusal: Option<i32>,
    /// What a refusal has left to do.
    refused: Aftermath,
    /// Wakes the driving task; taken when that is done, until the task runs.
    driver: Option<Waker>,
}

/// What must happen when the state is no longer borrowed: wakers and destructors run foreign code.
#[derive(Default)]
struct Aftermath {
    wakers: SmallVec<[Waker; 32]>,
    requests: SmallVec<[Request; 4]>,
}

impl Aftermath {
    fn is_empty(&self) -> bool {
        self.wakers.is_empty() && self.requests.is_empty()
    }

    fn run(self) {
        drop(self.requests);
        for waker in self.wakers {
            waker.wake();
        }
    }
}

/// The ring of the current thread.
pub(super) struct Ring {
    state: RefCell<State>,
    fd: RawFd,
}

impl Ring {
    /// Sets up a ring with `depth` submission queue entries and starts the task that drives it.
    /// Fails where the system refuses rings or their operations are too old (Linux before 5.6).
    pub(super) fn start(depth: u32) -> io::Result<Rc<Ring>> {
        share::join();
        let depth = depth.clamp(1, 4096);
        let build = |coop: bool| {
            let mut builder = IoUring::builder();
            builder.setup_clamp().setup_cqsize(depth.next_power_of_two() * COMPLETIONS_FACTOR);
            if coop {
                builder.setup_coop_taskrun();
            }
            builder.build(depth)
        };
        let uring: IoUring = match build(true) {
            // Linux before 5.19.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => build(false)?,
            result => result?,
        };
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        let needed =
            [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE];
        if !needed.into_iter().all(|code| probe.is_supported(code)) {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let limit = uring.params().cq_entries();
        let fd = uring.as_raw_fd();
        let ring = Rc::new(Ring {
            state: RefCell::new(State {
                uring,
                slab: Slab::default(),
                waiting: VecDeque::new(),
                in_flight: 0,
                limit,
                prepared: 0,
                serial: 0,
                refusal: None,
                refused: Aftermath::default(),
                driver: None,
            }),
            fd,
        });
        // SAFETY: the descriptor belongs to the `IoUring` in the ring that `RingFd` keeps alive, so
        // it is open, and the same, as long as the `AsyncFd` exists.
        let readiness = unsafe {
            AsyncFd::register_with_interest(RingFd(Rc::clone(&ring)), Interest::READABLE)
        }
        .map_err(|e| e.into_parts().1)?;
        spawn_local(drive(readiness));
        Ok(ring)
    }

    /// Takes in a request and returns its key.
    fn begin(&self, request: Request) -> usize {
        let mut state = self.state.borrow_mut();
        let batch = match request.max_batch() {
            0 => BATCH,
            n => n.min(BATCH),
        };
        let entry =
            Entry { request, stage: Stage::Waiting, serial: 0, waker: None, abandoned: false };
        let key = state.slab.insert(entry);
        if state.in_flight < state.limit && state.waiting.is_empty() {
            state.prepare(key);
        } else {
            state.waiting.push_back(key);
        }
        let full = state.prepared >= batch;
        drop(state);
        if full {
            self.submit();
            self.reap();
        }
        let mut state = self.state.borrow_mut();
        let needed = state.prepared > 0 || !state.refused.is_empty();
        let driver = if needed { state.driver.take() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        key
    }

    /// The error number with which the system has come to refuse requests.
    pub(super) fn refusal(&self) -> Option<i32> {
        self.state.borrow().refusal
    }

    /// Gives prepared requests to the kernel.
    fn submit(&self) {
        self.state.borrow_mut().submit();
    }

    /// Handles the completions that have arrived. Returns whether that left more to submit.
    fn reap(&self) -> bool {
        let (aftermath, more) = {
            let mut state = self.state.borrow_mut();
            let before = state.prepared;
            let aftermath = state.reap();
            (aftermath, state.prepared > before)
        };
        aftermath.run();
        more
    }

    /// Waits until no request is in flight, when nothing drives the ring any more.
    pub(super) fn drain(&self) {
        loop {
            {
                let mut state = self.state.borrow_mut();
                if state.in_flight == 0 && state.waiting.is_empty() {
                    return;
                }
                if state.refusal.is_none() {
                    let want = usize::from(state.in_flight > 0);
                    let result = state.uring.submit_and_wait(want);
                    state.prepared = state.unsubmitted();
                    if let Err(e) = result
                        && !is_transient(&e)
                    {
                        state.refuse(&e);
                    }
                } else if self.wait_for_completions().is_err() {
                    // The ring is broken. What the kernel may still write to must not be freed;
                    // dropping the state takes care of that.
                    return;
                }
            }
            self.reap();
        }
    }

    /// Waits until completions have arrived, without `io_uring_enter`.
    fn wait_for_completions(&self) -> io::Result<()> {
        // SAFETY: the ring in `self` keeps its descriptor open.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        Ok(())
    }
}

/// Errors of `io_uring_enter` that pass: interrupted, short of memory, completions to be reaped.
fn is_transient(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

impl State {
    fn unsubmitted(&mut self) -> u32 {
        u32::try_from(self.uring.submission().len()).unwrap_or(u32::MAX)
    }

    /// Puts the request `key` into the submission queue, once or again.
    fn prepare(&mut self, key: usize) {
        if self.refusal.is_some() {
            return self.send_back(key);
        }
        let Some(entry) = self.slab.get_mut(key) else { return };
        if !matches!(entry.stage, Stage::InFlight) {
            entry.stage = Stage::InFlight;
            self.in_flight += 1;
        }
        entry.serial = self.serial;
        let sqe = entry.request.entry().user_data(key as u64);
        loop {
            // SAFETY: the entry points into the request's buffer and names its file. The slab keeps
            // the request, unmoved buffer and file included, until the completion is reaped: a
            // request leaves `Stage::InFlight` only there, or when the kernel has not taken it and
            // never will, since `refusal` keeps `io_uring_enter` from being called again. Only
            // requests in other stages are removed.
            if unsafe { self.uring.submission().push(&sqe) }.is_ok() {
                break;
            }
            self.submit();
            if self.refusal.is_some() {
                return;
            }
        }
        self.serial += 1;
        self.prepared += 1;
    }

    fn submit(&mut self) {
        while self.prepared > 0 && self.refusal.is_none() {
            let result = self.uring.submit();
            self.prepared = self.unsubmitted();
            match result {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if !is_transient(&e) => self.refuse(&e),
                // Completions of what the kernel has make it try again.
                Err(_) if self.in_flight > self.prepared && self.has_room() => return,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// The system refuses requests from now on: what the kernel has not taken goes back.
    fn refuse(&mut self, error: &io::Error) {
        self.refusal = Some(error.raw_os_error().unwrap_or(libc::ENOSYS));
        let first_kept_back = self.serial - u64::from(self.prepared);
        self.prepared = 0;
        self.waiting.clear();
        for key in 0..self.slab.entries.len() {
            let kept_back = self.slab.get_mut(key).is_some_and(|entry| match entry.stage {
                Stage::Waiting => true,
                Stage::InFlight => entry.serial >= first_kept_back,
                Stage::Done(_) | Stage::Refused => false,
            });
            if kept_back {
                self.send_back(key);
            }
        }
    }

    /// Gives a request that the kernel does not have back to its future.
    fn send_back(&mut self, key: usize) {
        let Some(entry) = self.slab.get_mut(key) else { return };
        if matches!(entry.stage, Stage::InFlight) {
            self.in_flight -= 1;
        }
        entry.stage = Stage::Refused;
        self.refused.wakers.extend(entry.waker.take());
        if entry.abandoned {
            self.refused.requests.extend(self.slab.remove(key).map(|entry| entry.request));
        }
    }

    /// Whether the submission queue takes another request.
    fn has_room(&mut self) -> bool {
        !self.uring.submission().is_full()
    }

    fn reap(&mut self) -> Aftermath {
        let mut aftermath = Aftermath::default();
        loop {
            let Some(cqe) = self.uring.completion().next() else { break };
            let Ok(key) = usize::try_from(cqe.user_data()) else { continue };
            let Some(entry) = self.slab.get_mut(key) else { continue };
            let result =
                usize::try_from(cqe.result()).map_err(|_| Errno::from_raw_os_error(-cqe.result()));
            let result = match entry.request.step(result) {
                Step::Again if !entry.abandoned => {
                    self.prepare(key);
                    continue;
                }
                // Nobody wants the rest.
                Step::Again => Ok(()),
                Step::Finished(result) => result,
            };
            entry.stage = Stage::Done(result);
            self.in_flight -= 1;
            if let Some(waker) = entry.waker.take() {
                aftermath.wakers.push(waker);
            }
            if entry.abandoned {
                aftermath.requests.extend(self.slab.remove(key).map(|e| e.request));
            }
        }
        while self.in_flight < self.limit
            && let Some(key) = self.waiting.pop_front()
        {
            if self.slab.get_mut(key).is_some_and(|e| e.abandoned) {
                aftermath.requests.extend(self.slab.remove(key).map(|e| e.request));
            } else {
                self.prepare(key);
            }
        }
        if !self.refused.is_empty() {
            aftermath.wakers.extend(self.refused.wakers.drain(..));
            aftermath.requests.extend(self.refused.requests.drain(..));
        }
        aftermath
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // The kernel may still use the buffers: leak them rather than free them.
            std::mem::forget(std::mem::take(&mut self.slab));
        }
    }
}

/// The ring's descriptor, readable when completions have arrived.
struct RingFd(Rc<Ring>);

impl AsRawFd for RingFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd
    }
}

/// Submits and reaps as long as the runtime lives.
async fn drive(readiness: AsyncFd<RingFd>) {
    let ring = &readiness.get_ref().0;
    poll_fn(|cx| {
        ring.state.borrow_mut().driver = Some(cx.waker().clone());
        loop {
            ring.submit();
            if ring.reap() {
                continue;
            }
            match readiness.poll_read_ready(cx) {
                // Cleared before the queue is read: later completions make it ready again.
                Poll::Ready(Ok(mut ready)) => ready.clear_ready(),
                // The runtime is shutting down; what is left is drained there.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// Runs `request` on `ring`.
pub(super) fn perform(ring: Rc<Ring>, request: Request) -> RingOp {
    let key = ring.begin(request);
    RingOp { ring, key, finished: false }
}

/// What became of a request on the ring.
pub(super) enum Outcome {
    /// It is over.
    Over(Request, io::Result<()>),
    /// The system refused it before anything, or the rest of it, was done. The ring takes no more.
    Refused(Request),
}

/// Waits for a request on the ring.
pub(super) struct RingOp {
    ring: Rc<Ring>,
    key: usize,
    finished: bool,
}

impl Future for RingOp {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.ring.state.borrow_mut();
        let Some(entry) = state.slab.get_mut(self.key) else {
            unreachable!("the entry stays until its future takes it")
        };
        if matches!(entry.stage, Stage::Waiting | Stage::InFlight) {
            if !entry.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                entry.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let entry = state.slab.remove(self.key);
        drop(state);
        self.finished = true;
        match entry {
            Some(Entry { request, stage: Stage::Done(result), .. }) => {
                Poll::Ready(Outcome::Over(request, result))
            }
            Some(Entry { request, stage: Stage::Refused, .. }) => {
                Poll::Ready(Outcome::Refused(request))
            }
            _ => unreachable!("checked above"),
        }
    }
}

impl Drop for RingOp {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut state = self.ring.state.borrow_mut();
        let Some(entry) = state.slab.get_mut(self.key) else { return };
        let waker = entry.waker.take();
        let removed = if matches!(entry.stage, Stage::Done(_) | Stage::Refused) {
            state.slab.remove(self.key)
        } else {
            entry.abandoned = true;
            entry.request.file().abandon();
            entry.request.mark_abandoned();
            None
        };
        // Wakers and destructors run foreign code.
        drop(state);
        drop((waker, removed));
    }
}
