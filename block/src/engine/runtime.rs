//! What makes a thread an I/O thread: its runtime and the choice between ring and pool.

use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::JoinHandle;

use super::file::Aio;
use super::pool::Pool;
use super::ring::Ring;

/// How an I/O thread is to make its system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// With `io_uring` where the system allows it, else with the thread pool.
    #[default]
    Auto,
    /// With `io_uring`; requests fail where it is refused.
    Uring,
    /// With the thread pool.
    Threads,
}

/// How an I/O thread makes its system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveMode {
    /// With an `io_uring` of its own.
    Uring,
    /// With the thread pool.
    Threads,
}

/// Settings of an I/O thread.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How system calls are made.
    pub mode: Mode,
    /// Entries of the submission queue; four times as many requests can be in flight, more wait.
    pub queue_depth: u32,
    /// Buffered requests of up to this many bytes are first tried without leaving the thread, which
    /// succeeds when the page cache can answer at once. 0 turns that off.
    pub inline_limit: usize,
    /// The threads for what the ring does not do.
    pub pool: Pool,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            mode: Mode::Auto,
            queue_depth: 128,
            inline_limit: 64 << 10,
            pool: Pool::shared(),
        }
    }
}

/// The engine's state on an I/O thread.
struct Context {
    config: EngineConfig,
    /// The ring, or the error number with which the system refused it; empty until first needed.
    ring: OnceCell<Result<Rc<Ring>, i32>>,
}

impl Context {
    fn ring(&self) -> Result<&Rc<Ring>, i32> {
        let started = self.ring.get_or_init(|| {
            Ring::start(self.config.queue_depth)
                .map_err(|e| e.raw_os_error().unwrap_or(libc::ENOSYS))
        });
        let ring = started.as_ref().map_err(|&errno| errno)?;
        ring.refusal().map_or(Ok(ring), Err)
    }
}

thread_local! {
    static CONTEXT: RefCell<Option<Rc<Context>>> = const { RefCell::new(None) };
}

fn context() -> Option<Rc<Context>> {
    CONTEXT.try_with(|c| c.borrow().clone()).ok().flatten()
}

/// Where a request goes.
pub(super) enum Path {
    Ring(Rc<Ring>),
    Pool(Pool),
}

/// Chooses the way of a request to a file with `aio`. Outside of I/O threads that is the pool.
pub(super) fn path(aio: Aio) -> io::Result<Path> {
    let Some(context) = context() else {
        return match aio {
            Aio::IoUring => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
            _ => Ok(Path::Pool(Pool::shared())),
        };
    };
    let mode = match (aio, context.config.mode) {
        (Aio::Threads, _) => Mode::Threads,
        (Aio::IoUring, _) => Mode::Uring,
        (Aio::Auto | Aio::Native, mode) => mode,
    };
    match mode {
        Mode::Threads => Ok(Path::Pool(context.config.pool.clone())),
        Mode::Uring => match context.ring() {
            Ok(ring) => Ok(Path::Ring(Rc::clone(ring))),
            Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        },
        Mode::Auto => match context.ring() {
            Ok(ring) => Ok(Path::Ring(Rc::clone(ring))),
            Err(_) => Ok(Path::Pool(context.config.pool.clone())),
        },
    }
}

/// The pool for blocking calls of this thread.
pub(super) fn pool() -> Pool {
    context().map_or_else(Pool::shared, |c| c.config.pool.clone())
}

/// Largest request that is tried inline, in bytes.
pub(super) fn inline_limit() -> usize {
    CONTEXT.try_with(|c| c.borrow().as_ref().map_or(0, |c| c.config.inline_limit)).unwrap_or(0)
}

/// How requests of this thread are made; the first call may set up the ring. A thread that is not an
/// I/O thread uses the pool.
pub fn active_mode() -> ActiveMode {
    match path(Aio::Auto) {
        Ok(Path::Pool(_)) => ActiveMode::Threads,
        // With `Mode::Uring` nothing else is used, even if it fails.
        Ok(Path::Ring(_)) | Err(_) => ActiveMode::Uring,
    }
}

/// Removes the thread's context when the runtime and all its tasks are gone.
struct ContextGuard;

impl Drop for ContextGuard {
    fn drop(&mut self) {
        let context = CONTEXT.try_with(|c| c.borrow_mut().take()).ok().flatten();
        if let Some(Ok(ring)) = context.as_ref().and_then(|c| c.ring.get()) {
            ring.drain();
        }
    }
}

/// The runtime of an I/O thread.
pub(super) struct Runtime {
    // Dropped in this order: tasks end before the ring is drained.
    tokio: LocalRuntime,
    _context: ContextGuard,
}

impl Runtime {
    /// Makes the current thread an I/O thread.
    ///
    /// # Panics
    /// If it is one already.
    pub(super) fn new(config: &EngineConfig) -> io::Result<Runtime> {
        let tokio =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        CONTEXT.with(|c| {
            let mut slot = c.borrow_mut();
            assert!(slot.is_none(), "this thread is an I/O thread already");
            *slot = Some(Rc::new(Context { config: config.clone(), ring: OnceCell::new() }));
        });
        Ok(Runtime { tokio, _context: ContextGuard })
    }

    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.tokio.block_on(future)
    }
}

/// Runs `future` on the current thread as an I/O thread. Tasks that it spawned and that are not done
/// when it returns are dropped; their requests in flight are waited for.
///
/// Fails if the runtime cannot be set up, for example for want of file descriptors.
///
/// # Panics
/// If the thread is an I/O thread already.
pub fn block_on<F: Future>(config: &EngineConfig, future: F) -> io::Result<F::Output> {
    Ok(Runtime::new(config)?.block_on(future))
}

/// Starts a task on the current I/O thread.
///
/// # Panics
/// If the thread is not an I/O thread.
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future)
}
