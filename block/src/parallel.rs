//! Several requests to children at once.

use std::future::Future;

use futures_util::stream::{self, StreamExt};

use crate::error::Result;

/// Runs all of `futures`, at most `limit` at once, to their end, and returns the first error.
///
/// An error does not cut the others short: none of their I/O is under way afterwards, so that the
/// caller may give up or retry what they were writing to.
pub(crate) async fn all<F>(limit: usize, futures: impl IntoIterator<Item = F>) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut running = stream::iter(futures).buffer_unordered(limit);
    let mut first = Ok(());
    while let Some(result) = running.next().await {
        first = first.and(result);
    }
    first
}
