//! `quorum`: several copies of a disk that vote on what is read.
//!
//! A read succeeds if `vote-threshold` copies agree, a write if it reached as many. With
//! `rewrite-corrupted` copies that were outvoted are mended. The pattern `fifo` reads from the first
//! copy that answers, without a vote.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::join_all;

use super::INFO;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{
    Driver, DriverFuture, DriverInfo, Extent, Limits, Perm, Resize, Role, Status, WriteFlags,
};
use crate::error::{Error, Op, Result};
use crate::graph::{Edge, OpenContext, default_child_perms, status_above};
use crate::options::{OptionError, Value};

/// The driver's entry in the registry.
pub(crate) static QUORUM: DriverInfo = DriverInfo {
    name: "quorum",
    open: |context| Box::pin(open(context)),
    options: Options::TABLE,
    ..INFO
};

crate::option_words! {
    /// How reads choose among the copies.
    enum Pattern {
        /// All are read and vote.
        Quorum = "quorum",
        /// The first that answers is right.
        Fifo = "fifo",
    }
}

crate::options! {
    /// Options for opening, besides the list `children`.
    struct Options {
        /// Copies that must agree.
        "vote-threshold" => threshold: u64 [strong],
        /// Two copies that must always agree: a difference is an error.
        "blkverify" => blkverify: bool = "off" [strong],
        /// Write the winning content to copies that were outvoted.
        "rewrite-corrupted" => rewrite: bool = "off" [strong],
        /// How reads choose among the copies.
        "read-pattern" => pattern: Pattern = "quorum" [strong],
    }
}

/// Most copies.
const MAX_CHILDREN: usize = 32;

struct Quorum {
    children: Vec<Arc<Edge>>,
    threshold: usize,
    rewrite: bool,
    pattern: Pattern,
    label: String,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    let count = list_children(context)?;
    let threshold = usize::try_from(options.threshold).unwrap_or(usize::MAX);
    if threshold == 0 || threshold > count {
        let expected = format!("from 1 to {count}, the number of children");
        let value = options.threshold.into();
        return Err(OptionError::invalid("vote-threshold", &value, expected).into());
    }
    if options.blkverify && (options.pattern, count, threshold) != (Pattern::Quorum, 2, 2) {
        let value = true.into();
        let expected = "used with two children and a threshold of 2";
        return Err(OptionError::invalid("blkverify", &value, expected).into());
    }
    if options.rewrite && (options.blkverify || options.pattern == Pattern::Fifo) {
        let value = true.into();
        let expected = "used without blkverify and with the read pattern quorum";
        return Err(OptionError::invalid("rewrite-corrupted", &value, expected).into());
    }
    let mut children = Vec::with_capacity(count);
    for number in 0..count {
        children.push(context.child(&format!("children.{number}"), Role::DATA).await?);
    }
    let mut sizes = children.iter().map(|child| child.size());
    let first = sizes.next();
    if sizes.any(|size| Some(size) != first) {
        return Err(Error::unsupported(context.label(), "the children differ in size"));
    }
    Ok(Box::new(Quorum {
        children,
        threshold,
        rewrite: options.rewrite,
        pattern: options.pattern,
        label: context.node_name().to_owned(),
    }))
}

/// Turns the list of children into options of their own; returns their number.
fn list_children(context: &mut OpenContext<'_>) -> Result<usize> {
    let list = match context.options.remove("children") {
        Some(Value::List(list)) => list,
        Some(other) => {
            return Err(OptionError::invalid("children", &other, "a list of nodes").into());
        }
        None => return Err(OptionError::Missing { name: "children".to_owned() }.into()),
    };
    let count = list.len();
    if count == 0 || count > MAX_CHILDREN {
        let value = (count as u64).into();
        let expected = format!("a list of 1 to {MAX_CHILDREN} nodes");
        return Err(OptionError::invalid("children", &value, expected).into());
    }
    for (number, child) in list.into_iter().enumerate() {
        context.options.insert(format!("children.{number}"), child);
    }
    Ok(count)
}

impl Quorum {
    /// Sends a request to all copies; it succeeds if enough of them do.
    async fn all<F: Future<Output = Result<()>>>(
        &self,
        request: impl Fn(&Arc<Edge>) -> F,
    ) -> Result<()> {
        let results = join_all(self.children.iter().map(request)).await;
        let successes = results.iter().filter(|result| result.is_ok()).count();
        if successes >= self.threshold {
            return Ok(());
        }
        // Too few: there is a failure to report.
        results.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }

    async fn read_first(&self, offset: u64, len: usize) -> Result<IoBufMut> {
        let mut last = self.no_agreement(offset);
        for child in &self.children {
            match child.read(offset, IoBufMut::new(len)).await {
                Ok(buf) => return Ok(buf),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn read_vote(&self, offset: u64, len: usize) -> Result<IoBufMut> {
        let reads = self.children.iter().map(|child| child.read(offset, IoBufMut::new(len)));
        let mut results = join_all(reads).await;
        let successes = results.iter().filter(|result| result.is_ok()).count();
        if successes < self.threshold {
            let failed = results.into_iter().find_map(Result::err);
            return Err(failed.unwrap_or_else(|| self.no_agreement(offset)));
        }
        let winner = winner(&results).filter(|(_, votes)| *votes >= self.threshold);
        let Some((winner, votes)) = winner else { return Err(self.no_agreement(offset)) };
        if self.rewrite && votes < successes {
            self.mend(offset, &results, winner).await;
        }
        results.swap_remove(winner)
    }

    /// Writes what the copy `winner` has to those that differ from it.
    async fn mend(&self, offset: u64, results: &[Result<IoBufMut>], winner: usize) {
        let Some(Ok(right)) = results.get(winner) else { return };
        let right = IoBuf::copy_of(right);
        let wrong = self.children.iter().zip(results).filter(|(_, result)| match result {
            Ok(found) => found[..] != right[..],
            Err(_) => false,
        });
        let writes = wrong.map(|(child, _)| child.write(offset, right.clone(), WriteFlags::FUA));
        // The read has its answer; a copy that cannot be mended is outvoted again the next time.
        drop(join_all(writes).await);
    }

    fn no_agreement(&self, offset: u64) -> Error {
        let text = format!("fewer than {} copies agree", self.threshold);
        Error::os(Op::Read, self.label.as_str(), Some(offset), std::io::Error::other(text))
    }
}

/// The first of the copies with the most equals, and the number of them.
fn winner(results: &[Result<IoBufMut>]) -> Option<(usize, usize)> {
    let mut best: Option<(usize, usize)> = None;
    for (number, result) in results.iter().enumerate() {
        let Ok(content) = result else { continue };
        let equal =
            |other: &&Result<IoBufMut>| other.as_ref().is_ok_and(|other| other[..] == content[..]);
        let votes = results.iter().filter(equal).count();
        if best.is_none_or(|(_, most)| votes > most) {
            best = Some((number, votes));
        }
    }
    best
}

impl Driver for Quorum {
    fn info(&self) -> &'static DriverInfo {
        &QUORUM
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        self.children.iter().map(|child| child.size()).min().unwrap_or(0)
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn write_flags(&self) -> WriteFlags {
        WriteFlags::FUA
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            let len = buf.len();
            drop(buf);
            match self.pattern {
                Pattern::Quorum => self.read_vote(offset, len).await,
                Pattern::Fifo => self.read_first(offset, len).await,
            }
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.all(|child| {
                let (child, buf) = (Arc::clone(child), buf.clone());
                async move { child.write(offset, buf, flags).await }
            })
            .await
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        // Copies that are left different by a fallback in the middle would lose the next vote.
        let flags = flags - WriteFlags::NO_FALLBACK;
        Box::pin(async move {
            self.all(|child| {
                let child = Arc::clone(child);
                async move { child.write_zeroes(offset, len, flags).await }
            })
            .await
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.all(|child| {
                let child = Arc::clone(child);
                async move { child.flush().await }
            })
            .await
        })
    }

    fn flushes_children(&self) -> bool {
        true
    }

    fn block_status(&self, offset: u64, len: u64, precise: bool) -> DriverFuture<'_, Extent> {
        Box::pin(async move {
            // The copies say zeroes only together; a copy that does not answer has no say.
            let mut len = len;
            let mut zero = true;
            for child in &self.children {
                let found = status_above(&child.node(), None, offset, len, precise).await;
                let Ok(found) = found else { continue };
                len = len.min(found.extent.len.max(1));
                zero &= found.extent.status.contains(Status::ZERO);
            }
            let status = if zero { Status::ZERO } else { Status::DATA };
            Ok(Extent { len, status: status | Status::ALLOCATED, map: None })
        })
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            for child in &self.children {
                child.resize(size, how).await?;
            }
            Ok(())
        })
    }

    fn child_perms(&self, role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
        let (mut used, shared) = default_child_perms(role, perm, shared, read_only);
        if self.rewrite && !read_only {
            used |= Perm::WRITE;
        }
        (used, shared & !(Perm::WRITE | Perm::RESIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_content_wins() {
        let copy = |byte| Ok(IoBufMut::copy_of(&[byte; 8]));
        let failed = || Err(Error::unsupported("x", "fails"));
        assert_eq!(winner(&[copy(1), copy(2), copy(2)]), Some((1, 2)));
        assert_eq!(winner(&[copy(1), copy(2)]), Some((0, 1)));
        assert_eq!(winner(&[failed(), copy(2), copy(3), copy(3)]), Some((2, 2)));
        assert_eq!(winner(&[failed(), failed()]), None);
    }
}
