//! Named threads that run futures sent to them.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::runtime::{EngineConfig, Runtime, spawn_local};

/// Starts a task on the thread and returns its handle.
type Start = Box<dyn FnOnce() -> tokio::task::JoinHandle<()> + Send>;

/// An I/O thread. When the handle is dropped, the thread ends as soon as all that was given to
/// [`IoThread::run`] is done.
#[derive(Debug)]
pub struct IoThread {
    queue: mpsc::UnboundedSender<Start>,
    thread: JoinHandle<()>,
}

impl IoThread {
    /// Starts a thread called `name` (the system shows its first 15 bytes).
    pub fn spawn(name: &str, config: EngineConfig) -> io::Result<IoThread> {
        let (queue, jobs) = mpsc::unbounded_channel();
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(move || match Runtime::new(
                &config,
            ) {
                Ok(runtime) => {
                    let _ = report.send(Ok(()));
                    runtime.block_on(serve(jobs));
                }
                Err(e) => {
                    let _ = report.send(Err(e));
                }
            })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the I/O thread did not start")))?;
        Ok(IoThread { queue, thread })
    }

    /// Runs the future that `make` returns on this thread. It starts at once and is not cancelled
    /// when the returned future is dropped.
    ///
    /// # Panics
    /// The returned future passes a panic of `make` or of its future on.
    pub fn run<F, Fut, T>(&self, make: F) -> impl Future<Output = T> + Send + use<F, Fut, T>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let start: Start = Box::new(move || {
            spawn_local(async move {
                let result = AssertUnwindSafe(async move { make().await }).catch_unwind().await;
                // Nobody may be interested.
                let _ = sender.send(result);
            })
        });
        // The thread takes jobs as long as this handle lives; should it be gone all the same, the
        // job is dropped and the receiver below says so.
        let _ = self.queue.send(start);
        async move {
            let result = receiver.await.expect("the I/O thread finishes what it was given");
            result.unwrap_or_else(|panic| resume_unwind(panic))
        }
    }

    /// Waits until everything given to [`IoThread::run`] is done and the thread has ended.
    pub fn join(self) {
        let IoThread { queue, thread } = self;
        drop(queue);
        if let Err(panic) = thread.join() {
            resume_unwind(panic);
        }
    }
}

/// Starts what arrives until the queue is closed, then waits for what was started.
async fn serve(mut jobs: mpsc::UnboundedReceiver<Start>) {
    let mut tasks = FuturesUnordered::new();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(start) => tasks.push(start()),
                None => break,
            },
            Some(_) = tasks.next() => {}
        }
    }
    while tasks.next().await.is_some() {}
}
