//! Packets that let the target run.

use crate::packet::number;
use crate::session::{Answer, End, FAILED, MALFORMED, Session, UNKNOWN};
use crate::{Action, ThreadId};

impl Session<'_> {
    /// `v` packets.
    pub(crate) fn verbose(&mut self, text: &str) -> Answer {
        match text.split_at_checked(4) {
            Some(("Cont", "?")) => "vCont;c;C;s;S".into(),
            Some(("Cont", actions)) => self.resume_each(actions),
            Some(("Kill", _)) => {
                self.target.kill();
                self.end = Some(End::Killed);
                "OK".into()
            }
            _ => UNKNOWN.into(),
        }
    }

    /// `;action[:thread]`…, of which the first one that fits a thread is for it. Threads without one stay as they are.
    fn resume_each(&mut self, text: &str) -> Answer {
        let mut given: Vec<(Option<ThreadId>, Action)> = Vec::new();
        for part in text.split(';').skip(1) {
            let (action, name) =
                part.split_once(':').map_or((part, None), |(action, name)| (action, Some(name)));
            let Some(action) = parse(action) else { return MALFORMED.into() };
            let all = name.is_none_or(|name| name == "-1" || name.ends_with(".-1"));
            let thread = match name {
                Some(name) if !all => match self.thread_of(name) {
                    Some(thread) => Some(thread),
                    None => return FAILED.into(),
                },
                _ => None,
            };
            given.push((thread, action));
        }
        let actions: Vec<(ThreadId, Action)> = self
            .target
            .threads()
            .into_iter()
            .filter_map(|thread| {
                let fits = |(of, _): &&(Option<ThreadId>, Action)| of.is_none_or(|of| of == thread);
                given.iter().find(fits).map(|(_, action)| (thread, *action))
            })
            .collect();
        self.resume(&actions)
    }

    /// `c`, `s`, `C` and `S`: the chosen thread does that, and all others run on.
    pub(crate) fn resume_old(&mut self, kind: u8, text: &str) -> Answer {
        let signal = match kind {
            b'C' | b'S' => match number(text).and_then(|signal| u8::try_from(signal).ok()) {
                Some(signal) => Some(signal),
                None => return MALFORMED.into(),
            },
            // With an address to go on at, which GDB has not sent for long.
            _ if !text.is_empty() => return UNKNOWN.into(),
            _ => None,
        };
        let step = matches!(kind, b's' | b'S');
        let actions: Vec<(ThreadId, Action)> = self
            .target
            .threads()
            .into_iter()
            .map(|thread| match (thread == self.stepper, step) {
                (true, true) => (thread, Action::Step(signal)),
                (true, false) => (thread, Action::Continue(signal)),
                (false, _) => (thread, Action::Continue(None)),
            })
            .collect();
        self.resume(&actions)
    }

    fn resume(&mut self, actions: &[(ThreadId, Action)]) -> Answer {
        if actions.is_empty() {
            return FAILED.into();
        }
        self.running = true;
        self.target.resume(actions);
        Answer::Later
    }
}

/// `c`, `s`, `Cxx` or `Sxx`. Signal 0 is none.
fn parse(text: &str) -> Option<Action> {
    let (kind, signal) = text.split_at_checked(1)?;
    let signal = if signal.is_empty() {
        None
    } else {
        Some(u8::try_from(number(signal)?).ok()?).filter(|signal| *signal != 0)
    };
    match kind {
        "c" | "C" => Some(Action::Continue(signal)),
        "s" | "S" => Some(Action::Step(signal)),
        _ => None,
    }
}
