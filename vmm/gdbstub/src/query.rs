//! `q` and `Q` packets.

use crate::packet::{self, hex, number};
use crate::session::{Answer, FAILED, MALFORMED, Session, UNKNOWN, range};
use crate::{Calls, Object, ThreadId};

/// Threads that are told of in one answer.
const THREADS: usize = 200;

impl Session<'_> {
    pub(crate) fn query(&mut self, kind: u8, text: &str) -> Answer {
        let end = text.find([':', ',']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let rest = rest.strip_prefix([':', ',']).unwrap_or(rest);
        match (kind, name) {
            (b'q', "Supported") => self.supported(rest),
            (b'q', "Attached") => "1".into(),
            (b'q', "C") => format!("QC{}", self.name_of(self.thread)).into(),
            (b'q', "fThreadInfo") => {
                self.listed = self.target.threads();
                self.threads()
            }
            (b'q', "sThreadInfo") => self.threads(),
            (b'q', "ThreadExtraInfo") => {
                let thread = self.thread_of(rest);
                let name = thread.and_then(|thread| self.target.thread_name(thread));
                name.map_or(FAILED.into(), |name| hex(name.as_bytes()).into())
            }
            (b'q', "Offsets") => self.target.offset().map_or(UNKNOWN.into(), |offset| {
                format!("Text={offset:x};Data={offset:x};Bss={offset:x}").into()
            }),
            (b'q', "Symbol") => "OK".into(),
            (b'q', "Xfer") => self.transfer(rest),
            (b'Q', "StartNoAckMode") => {
                self.acknowledge = false;
                "OK".into()
            }
            (b'Q', _) if text.starts_with("CatchSyscalls:") => self.catch(rest),
            _ => UNKNOWN.into(),
        }
    }

    fn supported(&mut self, text: &str) -> Answer {
        for feature in text.split(';') {
            match feature {
                "swbreak+" | "hwbreak+" => self.peer.breakpoints = true,
                "multiprocess+" => self.peer.processes = true,
                _ => {}
            }
        }
        let mut out = format!(
            "PacketSize={:x};qXfer:features:read+;QStartNoAckMode+;multiprocess+;swbreak+;hwbreak+;vContSupported+",
            packet::SIZE
        );
        for (object, name) in OBJECTS {
            if self.target.object(object).is_some() {
                out.extend([";qXfer:", name, ":read+"]);
            }
        }
        out.push_str(";qXfer:siginfo:read+");
        if self.target.catch_calls(Calls::None) {
            out.push_str(";QCatchSyscalls+");
        }
        out.into()
    }

    /// The next part of the list of threads.
    fn threads(&mut self) -> Answer {
        if self.listed.is_empty() {
            return "l".into();
        }
        let rest = self.listed.split_off(self.listed.len().min(THREADS));
        let part: Vec<ThreadId> = std::mem::replace(&mut self.listed, rest);
        let names: Vec<String> = part.into_iter().map(|thread| self.name_of(thread)).collect();
        format!("m{}", names.join(",")).into()
    }

    /// `object:read:annex:offset,length`
    fn transfer(&self, text: &str) -> Answer {
        let parts: Vec<&str> = text.split(':').collect();
        let [object, "read", annex, place] = parts[..] else { return UNKNOWN.into() };
        let Some((offset, len)) = range(place) else { return MALFORMED.into() };
        let kind = OBJECTS.iter().find(|(_, name)| *name == object).map(|(object, _)| *object);
        let whole = match (object, annex, kind) {
            ("features", "target.xml", _) => Some(self.target.registers().xml().into_bytes()),
            ("siginfo", "", _) => self.target.object(Object::SignalInfo(self.thread)),
            (_, _, Some(kind)) => self.target.object(kind),
            _ => None,
        };
        let Some(whole) = whole else { return FAILED.into() };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(rest) = whole.get(offset..) else { return FAILED.into() };
        // What is escaped takes two bytes.
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len()).min(packet::SIZE / 2);
        let mut out = vec![if len == rest.len() { b'l' } else { b'm' }];
        out.extend(&rest[..len]);
        Answer::Bytes(out)
    }

    /// `0`, `1`, or `1` with numbers.
    fn catch(&self, text: &str) -> Answer {
        let mut words = text.split(';');
        let calls = match words.next() {
            Some("0") => Calls::None,
            Some("1") => {
                let numbers: Option<Vec<u64>> = words.map(number).collect();
                match numbers {
                    Some(numbers) if numbers.is_empty() => Calls::All,
                    Some(numbers) => Calls::Some(numbers),
                    None => return MALFORMED.into(),
                }
            }
            _ => return MALFORMED.into(),
        };
        if self.target.catch_calls(calls) { "OK" } else { UNKNOWN }.into()
    }
}

/// Objects that do not depend on a thread, and their names.
const OBJECTS: [(Object, &str); 3] = [
    (Object::AuxiliaryVector, "auxv"),
    (Object::ExecutableFile, "exec-file"),
    (Object::MemoryMap, "memory-map"),
];
