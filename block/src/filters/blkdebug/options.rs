//! Options of a `blkdebug` node.

use super::config;
use super::rules::{Inject, IoType, Rule, RuleAction};
use crate::driver::{Limits, Perm};
use crate::engine;
use crate::error::{Error, Op, Result};
use crate::event::Event;
use crate::options::{OptionError, Size};

crate::option_words! {
    /// A kind of requests.
    pub(super) enum IoWord {
        /// Reads.
        Read = "read",
        /// Writes of data.
        Write = "write",
        /// Writes of zeroes.
        WriteZeroes = "write-zeroes",
        /// Discards.
        Discard = "discard",
        /// Flushes.
        Flush = "flush",
        /// Queries of block status.
        BlockStatus = "block-status",
    }
}

crate::option_words! {
    /// A permission.
    pub(super) enum PermWord {
        /// Relies on reads being consistent.
        ConsistentRead = "consistent-read",
        /// Changes data.
        Write = "write",
        /// Writes without changing data.
        WriteUnchanged = "write-unchanged",
        /// Changes the size.
        Resize = "resize",
    }
}

crate::options! {
    /// A rule that makes requests fail.
    pub(super) struct InjectError {
        /// Event that brings the failure into force.
        "event" => event: Event,
        /// State that the node must be in (0: any).
        "state" => state: u64 = "0",
        /// Kind of requests that fail; by default all but queries of block status.
        "iotype" => iotype: Option<IoWord>,
        /// Error number of the failure (5: input/output error).
        "errno" => errno: i64 = "5",
        /// Sector of 512 bytes that a request must touch (-1: any).
        "sector" => sector: i64 = "-1",
        /// The failure hits once only.
        "once" => once: bool = "off",
        /// The failure comes without a pause.
        "immediately" => immediately: bool = "off",
    }
}

crate::options! {
    /// A rule that changes the state.
    pub(super) struct SetState {
        /// Event at which the state changes.
        "event" => event: Event,
        /// State that the node must be in (0: any).
        "state" => state: u64 = "0",
        /// State that follows.
        "new_state" => new_state: u64 = "0",
    }
}

crate::options! {
    /// Options for opening.
    pub(super) struct BlkdebugOptions {
        /// File with rules.
        "config" => config: Option<String> [strong],
        /// Name of the image.
        "x-image" => image: Option<String>,
        /// Alignment that requests are made to keep.
        "align" => align: Option<Size> [strong],
        /// Longest request.
        "max-transfer" => max_transfer: Option<Size> [strong],
        /// Alignment of zero writes.
        "opt-write-zero" => opt_write_zero: Option<Size> [strong],
        /// Longest zero write.
        "max-write-zero" => max_write_zero: Option<Size> [strong],
        /// Alignment of discards.
        "opt-discard" => opt_discard: Option<Size> [strong],
        /// Longest discard.
        "max-discard" => max_discard: Option<Size> [strong],
        /// Failures.
        "inject-error" => inject_error: Vec<InjectError> [strong],
        /// Changes of state.
        "set-state" => set_state: Vec<SetState> [strong],
        /// Permissions needed on the image besides those of the users.
        "take-child-perms" => take: Vec<PermWord>,
        /// Permissions that others must not have on the image.
        "unshare-child-perms" => unshare: Vec<PermWord>,
    }
}

/// Limits that stand in for those of the image; `None` where they do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PretendedLimits {
    align: Option<u32>,
    max_transfer: Option<u64>,
    opt_write_zero: Option<u32>,
    max_write_zero: Option<u64>,
    opt_discard: Option<u32>,
    max_discard: Option<u64>,
}

impl PretendedLimits {
    /// These limits, and those of the image where there is none.
    pub(super) fn over(self, image: Limits) -> Limits {
        Limits {
            request_alignment: self.align.unwrap_or(1),
            max_transfer: self.max_transfer.unwrap_or(image.max_transfer),
            write_zeroes_alignment: self.opt_write_zero.unwrap_or(image.write_zeroes_alignment),
            max_write_zeroes: self.max_write_zero.unwrap_or(image.max_write_zeroes),
            discard_alignment: self.opt_discard.unwrap_or(image.discard_alignment),
            max_discard: self.max_discard.unwrap_or(image.max_discard),
            ..image
        }
    }
}

fn invalid(name: &str, value: i64, expected: &str) -> Error {
    OptionError::invalid(name, &value.into(), expected).into()
}

impl InjectError {
    pub(super) fn rule(&self) -> Result<Rule> {
        let kinds = match self.iotype {
            None => IoType::all() - IoType::BLOCK_STATUS,
            Some(IoWord::Read) => IoType::READ,
            Some(IoWord::Write) => IoType::WRITE,
            Some(IoWord::WriteZeroes) => IoType::WRITE_ZEROES,
            Some(IoWord::Discard) => IoType::DISCARD,
            Some(IoWord::Flush) => IoType::FLUSH,
            Some(IoWord::BlockStatus) => IoType::BLOCK_STATUS,
        };
        let errno = i32::try_from(self.errno).ok().filter(|errno| *errno >= 0);
        let errno =
            errno.ok_or_else(|| invalid("errno", self.errno, "an error number of the system"))?;
        let sector = match self.sector {
            -1 => None,
            sector => Some(
                u64::try_from(sector)
                    .map_err(|_| invalid("sector", sector, "a sector, or -1 for any"))?,
            ),
        };
        let (once, immediately) = (self.once, self.immediately);
        let inject = Inject { kinds, errno, sector, once, immediately };
        Ok(Rule { event: self.event, state: self.state, action: RuleAction::Inject(inject) })
    }
}

impl SetState {
    pub(super) fn rule(&self) -> Rule {
        let action = RuleAction::SetState(self.new_state);
        Rule { event: self.event, state: self.state, action }
    }
}

impl BlkdebugOptions {
    /// The rules of the file and of the options.
    pub(super) async fn rules(&self) -> Result<Vec<Rule>> {
        let mut rules = match &self.config {
            None => Vec::new(),
            Some(path) => {
                let file = path.clone();
                let text = engine::run_blocking(move || config::read(&file)).await;
                let text = text.map_err(|error| Error::os(Op::Open, path, None, error))?;
                config::parse_config(&text)
                    .map_err(|error| error.context(format!("cannot read the rules in '{path}'")))?
            }
        };
        for inject in &self.inject_error {
            rules.push(inject.rule()?);
        }
        rules.extend(self.set_state.iter().map(SetState::rule));
        Ok(rules)
    }

    /// The limits that the options name.
    pub(super) fn limits(&self) -> Result<PretendedLimits> {
        let align = alignment("align", self.align, 1)?;
        if let Some(align) = align.filter(|align| !align.is_power_of_two()) {
            return Err(invalid("align", align.into(), "a power of two"));
        }
        let unit = u64::from(align.unwrap_or(1));
        let max_transfer = multiple("max-transfer", self.max_transfer, unit)?;
        let opt_write_zero = alignment("opt-write-zero", self.opt_write_zero, unit)?;
        let opt_discard = alignment("opt-discard", self.opt_discard, unit)?;
        let over = |opt: Option<u32>| unit.max(u64::from(opt.unwrap_or(1)));
        let max_write_zero = multiple("max-write-zero", self.max_write_zero, over(opt_write_zero))?;
        let max_discard = multiple("max-discard", self.max_discard, over(opt_discard))?;
        Ok(PretendedLimits {
            align,
            max_transfer,
            opt_write_zero,
            max_write_zero,
            opt_discard,
            max_discard,
        })
    }

    /// Permissions to take, and those not to share.
    pub(super) fn permissions(&self) -> (Perm, Perm) {
        let set = |words: &[PermWord]| {
            words.iter().fold(Perm::empty(), |set, word| {
                set | match word {
                    PermWord::ConsistentRead => Perm::CONSISTENT_READ,
                    PermWord::Write => Perm::WRITE,
                    PermWord::WriteUnchanged => Perm::WRITE_UNCHANGED,
                    PermWord::Resize => Perm::RESIZE,
                }
            })
        };
        (set(&self.take), set(&self.unshare))
    }
}

/// A multiple of `unit`; 0 is none.
fn alignment(name: &str, size: Option<Size>, unit: u64) -> Result<Option<u32>> {
    let Some(Size(size)) = size.filter(|size| size.0 != 0) else { return Ok(None) };
    u32::try_from(size)
        .ok()
        .filter(|align| size.is_multiple_of(unit) && *align <= 1 << 30)
        .map(Some)
        .ok_or_else(|| {
            let expected = format!("a multiple of {unit} up to 1G");
            OptionError::invalid(name, &size.into(), expected).into()
        })
}

/// A multiple of `unit`; 0 is none.
fn multiple(name: &str, size: Option<Size>, unit: u64) -> Result<Option<u64>> {
    let Some(Size(size)) = size.filter(|size| size.0 != 0) else { return Ok(None) };
    if size.is_multiple_of(unit) && i32::try_from(size).is_ok() {
        return Ok(Some(size));
    }
    let expected = format!("a multiple of {unit} below 2G");
    Err(OptionError::invalid(name, &size.into(), expected).into())
}
