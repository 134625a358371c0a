//! `throttle`: requests wait until the limits of a group allow them.
//!
//! Groups are objects of the graph ([`ThrottleGroups`]); all nodes of one group share its limits, and
//! take turns. [`bucket`] is the arithmetic.

mod bucket;
mod group;
mod limits;

use std::sync::Arc;

pub use group::{ThrottleGroup, ThrottleGroups, create};
pub use limits::{LimitOptions, Limits as ThrottleLimits};

use super::{FILTERED, Filter, Filtered, INFO};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{Driver, DriverFuture, DriverInfo, WriteFlags};
use crate::error::Result;
use crate::graph::{Edge, OpenContext};
use group::{Direction, Member};

/// The driver's entry in the registry.
pub(crate) static THROTTLE: DriverInfo = DriverInfo {
    name: "throttle",
    open: |context| Box::pin(open(context)),
    options: Options::TABLE,
    ..INFO
};

/// Type of the objects that are groups.
pub const OBJECT: &str = "throttle-group";

crate::options! {
    /// Options for opening.
    struct Options {
        /// ID of the group whose limits count.
        "throttle-group" => group: String [strong],
    }
}

struct Throttle {
    file: Arc<Edge>,
    member: Member,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    let group = context.throttle_groups().find(&options.group)?;
    let file = context.child("file", FILTERED).await?;
    Ok(Box::new(Filtered(Throttle { file, member: Member::new(group) })))
}

impl Throttle {
    async fn after_turn<T>(
        &self,
        direction: Direction,
        len: u64,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.member.wait(direction, len).await;
        request.await
    }
}

impl Filter for Throttle {
    fn info(&self) -> &'static DriverInfo {
        &THROTTLE
    }

    fn child(&self) -> &Arc<Edge> {
        &self.file
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        let len = buf.len() as u64;
        Box::pin(self.after_turn(Direction::Read, len, self.file.read(offset, buf)))
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        let len = buf.len() as u64;
        Box::pin(self.after_turn(Direction::Write, len, self.file.write(offset, buf, flags)))
    }

    fn write_compressed(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        let len = buf.len() as u64;
        let request = self.file.write_compressed(offset, buf);
        Box::pin(self.after_turn(Direction::Write, len, request))
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        let request = self.file.write_zeroes(offset, len, flags);
        Box::pin(self.after_turn(Direction::Write, len, request))
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(self.after_turn(Direction::Write, len, self.file.discard(offset, len)))
    }
}
