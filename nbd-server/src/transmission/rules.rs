//! Which requests are refused, and with which error: as the reference does, and in its order.

use cairn_nbd_wire::{Command, CommandFlags, HeaderStyle, MAX_PAYLOAD, NbdErrno, Request};

use crate::session::Session;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: NbdErrno,
    pub(super) message: &'static str,
}

impl Refusal {
    pub(super) const fn invalid(message: &'static str) -> Refusal {
        Refusal { error: NbdErrno::Inval, message }
    }
}

/// What a kind of request may look like.
struct Rule {
    flags: CommandFlags,
    /// It writes.
    writes: bool,
    /// It transfers its length.
    transfers: bool,
}

fn rule(command: Command, style: HeaderStyle) -> Option<Rule> {
    let since = |first: HeaderStyle, flag: CommandFlags| {
        if style >= first { flag } else { CommandFlags::empty() }
    };
    let (flags, writes, transfers) = match command {
        Command::READ => (since(HeaderStyle::Structured, CommandFlags::DF), false, true),
        Command::WRITE => (since(HeaderStyle::Extended, CommandFlags::PAYLOAD_LEN), true, true),
        Command::FLUSH => (CommandFlags::empty(), false, false),
        Command::TRIM => (CommandFlags::empty(), true, false),
        Command::CACHE => (CommandFlags::empty(), false, true),
        Command::WRITE_ZEROES => (CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO, true, false),
        Command::BLOCK_STATUS => {
            let payload = since(HeaderStyle::Extended, CommandFlags::PAYLOAD_LEN);
            (payload | CommandFlags::REQ_ONE, false, false)
        }
        _ => return None,
    };
    Some(Rule { flags: flags | CommandFlags::FUA, writes, transfers })
}

/// Checks a request, whose length is that of its effect.
pub(super) fn check(session: &Session, request: &Request) -> Result<(), Refusal> {
    let Some(rule) = rule(request.command, session.style) else {
        return Err(Refusal::invalid("unknown request"));
    };
    if rule.transfers && request.len > u64::from(MAX_PAYLOAD) {
        return Err(Refusal::invalid("the request is longer than 32 MiB"));
    }
    if rule.writes && !session.export.is_writable() {
        return Err(Refusal { error: NbdErrno::Perm, message: "the export is read-only" });
    }
    let size = session.export.size();
    if request.offset > size || request.len > size - request.offset {
        let grows = matches!(request.command, Command::WRITE | Command::WRITE_ZEROES);
        let error = if grows { NbdErrno::NoSpc } else { NbdErrno::Inval };
        return Err(Refusal { error, message: "the request reaches beyond the end" });
    }
    if !rule.flags.contains(request.flags) {
        return Err(Refusal::invalid("the request has flags that are not allowed"));
    }
    if request.command == Command::BLOCK_STATUS {
        if session.contexts.is_empty() {
            return Err(Refusal::invalid("no metadata context was negotiated"));
        }
        if request.len == 0 {
            return Err(Refusal::invalid("the range is empty"));
        }
    }
    Ok(())
}
