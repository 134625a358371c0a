//! Threads for work that needs the processor, such as compression.

use std::future::Future;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use super::pool::Pool;

static PROCESSORS: LazyLock<Pool> =
    LazyLock::new(|| Pool::new(available_parallelism().map_or(1, Into::into)));

/// Runs `work` on one of as many threads as there are processors. It is not cancelled when the future
/// is dropped.
///
/// # Panics
/// The returned future passes a panic of `work` on.
pub fn compute<T, F>(work: F) -> impl Future<Output = T> + use<T, F>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    PROCESSORS.run(work)
}
