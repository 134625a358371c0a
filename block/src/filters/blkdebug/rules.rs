//! The rules of a `blkdebug` node and the state machine that they make.
//!
//! The node has a state, a number that begins as 1. When a request passes an event, the rules for that
//! event (and, if they name one, for the present state) act: they bring failures into force, in place of
//! those that were, or set the next state. A failure in force hits requests of its kinds that touch its
//! sector, until another event replaces it or, with `once`, it has hit.

use bitflags::bitflags;
use parking_lot::Mutex;

use crate::event::Event;

/// State in which a node begins.
const FIRST_STATE: u64 = 1;
/// Unit of `sector` in bytes.
const SECTOR: u64 = 512;

bitflags! {
    /// Kinds of requests.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IoType: u8 {
        /// Reads.
        const READ = 1;
        /// Writes of data.
        const WRITE = 2;
        /// Writes of zeroes.
        const WRITE_ZEROES = 4;
        /// Discards.
        const DISCARD = 8;
        /// Flushes.
        const FLUSH = 16;
        /// Queries of block status.
        const BLOCK_STATUS = 32;
    }
}

/// A failure to bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inject {
    /// Kinds of requests that it hits.
    pub kinds: IoType,
    /// Error number of the failure.
    pub errno: i32,
    /// Sector of 512 bytes that a request must touch; `None` for all requests.
    pub sector: Option<u64>,
    /// It hits once only.
    pub once: bool,
    /// It comes without a pause.
    pub immediately: bool,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Brings a failure into force.
    Inject(Inject),
    /// Makes this the next state.
    SetState(u64),
}

/// What happens at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The event.
    pub event: Event,
    /// State that the node must be in; 0 for any.
    pub state: u64,
    /// What is done.
    pub action: RuleAction,
}

/// The rules of one node and its state.
pub(super) struct Rules(Mutex<State>);

struct State {
    /// Rules by numbers, which stay what they are when a rule is used up.
    rules: Vec<Option<Rule>>,
    state: u64,
    /// Numbers of the rules whose failures are in force; the first that fits hits.
    active: Vec<usize>,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Rules {
        let rules = rules.into_iter().map(Some).collect();
        Rules(Mutex::new(State { rules, state: FIRST_STATE, active: Vec::new() }))
    }

    /// A request passes `event`.
    pub(super) fn event(&self, event: Event) {
        let mut inner = self.0.lock();
        let state = inner.state;
        let matching =
            |rule: &Rule| rule.event == event && (rule.state == 0 || rule.state == state);
        let mut next = None;
        let mut injected = Vec::new();
        for (number, rule) in inner.rules.iter().enumerate() {
            match rule.filter(matching).map(|rule| rule.action) {
                Some(RuleAction::Inject(_)) => injected.push(number),
                // Of several, the first counts.
                Some(RuleAction::SetState(state)) => next = next.or(Some(state)),
                None => {}
            }
        }
        if !injected.is_empty() {
            inner.active = injected;
        }
        inner.state = next.unwrap_or(state);
    }

    /// The failure that hits a request of one kind on a range, if any does.
    pub(super) fn failure(&self, kind: IoType, offset: u64, len: u64) -> Option<Inject> {
        let mut inner = self.0.lock();
        let hits = |inject: &Inject| {
            let touched = inject.sector.is_none_or(|sector| {
                let at = sector.saturating_mul(SECTOR);
                at >= offset && at < offset.saturating_add(len)
            });
            touched && inject.kinds.contains(kind)
        };
        let (place, number, inject) =
            inner.active.iter().enumerate().find_map(|(place, &number)| {
                match inner.rules.get(number)?.as_ref()?.action {
                    RuleAction::Inject(inject) if hits(&inject) => Some((place, number, inject)),
                    _ => None,
                }
            })?;
        if inject.once {
            inner.active.remove(place);
            if let Some(rule) = inner.rules.get_mut(number) {
                *rule = None;
            }
        }
        // An error number of 0 takes a failure out of force without putting another there.
        (inject.errno != 0).then_some(inject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Inject = Inject {
        kinds: IoType::READ.union(IoType::WRITE),
        errno: libc::EIO,
        sector: None,
        once: false,
        immediately: false,
    };

    fn inject(event: Event, state: u64, inject: Inject) -> Rule {
        Rule { event, state, action: RuleAction::Inject(inject) }
    }

    fn set_state(event: Event, state: u64, next: u64) -> Rule {
        Rule { event, state, action: RuleAction::SetState(next) }
    }

    fn errno(rules: &Rules, kind: IoType, offset: u64, len: u64) -> Option<i32> {
        rules.failure(kind, offset, len).map(|inject| inject.errno)
    }

    #[test]
    fn failures_come_into_force_with_their_event() {
        let rules = Rules::new(vec![inject(Event::L2Load, 0, ANY)]);
        assert_eq!(errno(&rules, IoType::READ, 0, 512), None);
        rules.event(Event::L2Update);
        assert_eq!(errno(&rules, IoType::READ, 0, 512), None);
        rules.event(Event::L2Load);
        assert_eq!(errno(&rules, IoType::READ, 0, 512), Some(libc::EIO));
        assert_eq!(errno(&rules, IoType::WRITE, 1 << 40, 1), Some(libc::EIO));
        assert_eq!(errno(&rules, IoType::FLUSH, 0, 0), None);
    }

    #[test]
    fn a_later_event_replaces_failures() {
        let other = Inject { errno: libc::ENOSPC, ..ANY };
        let none = Inject { errno: 0, ..ANY };
        let rules = Rules::new(vec![
            inject(Event::L2Load, 0, ANY),
            inject(Event::L2Update, 0, other),
            inject(Event::FlushToOs, 0, none),
        ]);
        rules.event(Event::L2Load);
        rules.event(Event::L2Update);
        assert_eq!(errno(&rules, IoType::READ, 0, 1), Some(libc::ENOSPC));
        rules.event(Event::L1Update);
        assert_eq!(errno(&rules, IoType::READ, 0, 1), Some(libc::ENOSPC));
        rules.event(Event::FlushToOs);
        assert_eq!(errno(&rules, IoType::READ, 0, 1), None);
    }

    #[test]
    fn once_is_once() {
        let rules = Rules::new(vec![inject(Event::L2Load, 0, Inject { once: true, ..ANY })]);
        rules.event(Event::L2Load);
        assert!(rules.failure(IoType::READ, 0, 1).is_some());
        assert!(rules.failure(IoType::READ, 0, 1).is_none());
        rules.event(Event::L2Load);
        assert!(rules.failure(IoType::READ, 0, 1).is_none());
    }

    #[test]
    fn sectors_must_be_touched() {
        let rules = Rules::new(vec![inject(Event::None, 0, Inject { sector: Some(2), ..ANY })]);
        rules.event(Event::None);
        assert_eq!(errno(&rules, IoType::READ, 0, 1024), None);
        assert_eq!(errno(&rules, IoType::READ, 0, 1025), Some(libc::EIO));
        assert_eq!(errno(&rules, IoType::READ, 1024, 1), Some(libc::EIO));
        assert_eq!(errno(&rules, IoType::READ, 1025, 4096), None);
    }

    #[test]
    fn states_lead_from_event_to_event() {
        let rules = Rules::new(vec![
            set_state(Event::WriteAio, 1, 2),
            set_state(Event::WriteAio, 2, 3),
            inject(Event::WriteAio, 3, ANY),
        ]);
        for _ in 0..2 {
            rules.event(Event::WriteAio);
            // State changes take effect behind the event.
            assert_eq!(errno(&rules, IoType::WRITE, 0, 1), None);
        }
        rules.event(Event::WriteAio);
        assert_eq!(errno(&rules, IoType::WRITE, 0, 1), Some(libc::EIO));
    }
}
