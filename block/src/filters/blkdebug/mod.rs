//! `blkdebug`: makes requests fail, or wait, at chosen places, and pretends other limits.
//!
//! Rules come from a configuration file ([`config`]) and from options; [`rules`] is the state machine
//! that events drive. Breakpoints stop requests until someone lets them go on.

mod breakpoint;
mod config;
mod options;
mod rules;

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;

pub use breakpoint::{BreakNotice, Breakpoints, Watcher, breakpoints};
pub use config::parse_config;
pub use rules::{Inject, IoType, Rule, RuleAction};

use super::{FILTERED, Filter, Filtered, INFO, split_name};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{
    Driver, DriverFuture, DriverInfo, Extent, Limits, Perm, Role, WriteFlags, unsupported,
};
use crate::error::{Error, Op, Result};
use crate::event::Event;
use crate::graph::{Edge, OpenContext, default_child_perms};
use options::BlkdebugOptions;
use rules::Rules;

/// Prefix of names: `blkdebug:CONFIG:IMAGE`.
const PREFIX: &str = "blkdebug:";

/// The driver's entry in the registry.
pub(crate) static BLKDEBUG: DriverInfo = DriverInfo {
    name: "blkdebug",
    open: |context| Box::pin(open(context)),
    prefixes: &["blkdebug"],
    parse_filename: Some(|name, options| {
        let (config, image) = split_name(name, PREFIX)?;
        options.insert("x-image", image);
        if !config.is_empty() {
            options.insert("config", config);
        }
        Ok(())
    }),
    options: BlkdebugOptions::TABLE,
    ..INFO
};

/// The driver instance.
struct BlkDebug {
    image: Arc<Edge>,
    label: String,
    limits: options::PretendedLimits,
    take: Perm,
    unshare: Perm,
    rules: Rules,
    breakpoints: Arc<Breakpoints>,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = BlkdebugOptions::take(&mut context.options)?;
    let rules = options.rules().await?;
    let limits = options.limits()?;
    if let Some(name) = &options.image {
        context.name_child("image", name)?;
    }
    let image = context.child("image", FILTERED).await?;
    let (take, unshare) = options.permissions();
    let label = image.node().label();
    let driver = BlkDebug {
        image,
        label,
        limits,
        take,
        unshare,
        rules: Rules::new(rules),
        breakpoints: Arc::default(),
    };
    // Rules that wait for no event are in force from here on.
    driver.rules.event(Event::None);
    Ok(Box::new(Filtered(driver)))
}

impl BlkDebug {
    /// Fails a request on a range, if a rule in force says so.
    async fn check(&self, op: Op, io: IoType, offset: u64, len: u64) -> Result<()> {
        let Some(inject) = self.rules.failure(io, offset, len) else { return Ok(()) };
        if !inject.immediately {
            // As a device would: later than the request was made.
            tokio::task::yield_now().await;
        }
        let source = std::io::Error::from_raw_os_error(inject.errno);
        Err(Error::os(op, self.label.as_str(), Some(offset), source))
    }

    /// Whether a range is too short to be passed on as one without data.
    fn is_below(len: u64, align: u32) -> bool {
        len < u64::from(align)
    }
}

impl Filter for BlkDebug {
    fn info(&self) -> &'static DriverInfo {
        &BLKDEBUG
    }

    fn child(&self) -> &Arc<Edge> {
        &self.image
    }

    fn limits(&self) -> Limits {
        self.limits.over(self.image.node().driver().limits())
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            self.check(Op::Read, IoType::READ, offset, buf.len() as u64).await?;
            self.image.read(offset, buf).await
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.check(Op::Write, IoType::WRITE, offset, buf.len() as u64).await?;
            self.image.write(offset, buf, flags).await
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        let limits = self.limits();
        if BlkDebug::is_below(len, limits.write_zeroes_alignment.max(limits.request_alignment)) {
            return unsupported(BLKDEBUG.name, "the range is below the pretended alignment");
        }
        Box::pin(async move {
            self.check(Op::WriteZeroes, IoType::WRITE_ZEROES, offset, len).await?;
            self.image.write_zeroes(offset, len, flags).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        if BlkDebug::is_below(len, self.limits().request_alignment) {
            return unsupported(BLKDEBUG.name, "the range is below the pretended alignment");
        }
        Box::pin(async move {
            self.check(Op::Discard, IoType::DISCARD, offset, len).await?;
            self.image.discard(offset, len).await
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(self.check(Op::Flush, IoType::FLUSH, 0, 0))
    }

    fn block_status(&self, offset: u64, len: u64, _: bool) -> DriverFuture<'_, Extent> {
        Box::pin(async move {
            self.check(Op::BlockStatus, IoType::BLOCK_STATUS, offset, len).await?;
            Ok(super::status_of_child(&self.image, offset, len))
        })
    }

    fn watches_events(&self) -> bool {
        true
    }

    fn event(&self, event: Event) -> LocalBoxFuture<'_, ()> {
        self.rules.event(event);
        Box::pin(self.breakpoints.pass(event))
    }

    fn child_perms(&self, role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
        let (used, shared) = default_child_perms(role, perm, shared, read_only);
        (used | self.take, shared & !self.unshare)
    }
}
