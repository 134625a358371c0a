//! One packet after the other, and what is answered.

use std::io::{self, BufReader};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::address::Connection;
use crate::packet::{self, Incoming, hex, number, unhex};
use crate::{Input, Notifier, Point, PointAnswer, PointKind, Stop, Target, ThreadId};

/// How a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The target runs on, without GDB.
    Detached,
    /// The target has ended, or is to end.
    Killed,
}

/// What GDB can do; the target need not tell it what GDB does not understand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    /// It takes `swbreak` and `hwbreak` as reasons.
    pub(crate) breakpoints: bool,
    /// It names threads by process and thread.
    pub(crate) processes: bool,
}

/// A session in the making of its next answer.
pub(crate) struct Session<'a> {
    pub(crate) target: &'a dyn Target,
    pub(crate) peer: Peer,
    /// The thread that registers and memory are of, and the one that steps.
    pub(crate) thread: ThreadId,
    pub(crate) stepper: ThreadId,
    pub(crate) stop: Stop,
    pub(crate) running: bool,
    /// Threads that have not been told of yet, of a list in parts.
    pub(crate) listed: Vec<ThreadId>,
    pub(crate) acknowledge: bool,
    pub(crate) end: Option<End>,
}

/// What is said to a packet.
pub(crate) enum Answer {
    Text(String),
    Bytes(Vec<u8>),
    /// Nothing, until the target stops.
    Later,
}

impl From<&str> for Answer {
    fn from(text: &str) -> Answer {
        Answer::Text(text.to_owned())
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Answer {
        Answer::Text(text)
    }
}

/// Something is not done, for a reason that GDB cannot change.
pub(crate) const FAILED: &str = "E01";
/// A packet does not make sense.
pub(crate) const MALFORMED: &str = "E22";
/// What GDB sees as "there is no such packet".
pub(crate) const UNKNOWN: &str = "";

/// Serves GDB on `connection` until it detaches, kills the target, goes away, or the target ends.
///
/// The target is stopped now, for the reason that `start` returns; it gets what tells of all later stops.
pub fn serve(
    connection: Connection,
    target: &dyn Target,
    start: impl FnOnce(Notifier) -> Stop,
) -> io::Result<End> {
    let (sender, inputs) = mpsc::channel();
    let stop = start(Notifier(sender.clone()));
    let mut reader = BufReader::new(connection.try_clone()?);
    let reading = thread::Builder::new().name("gdb".to_owned()).spawn(move || {
        loop {
            let input = match packet::read(&mut reader) {
                Ok(Some(incoming)) => Input::Gdb(incoming),
                Ok(None) | Err(_) => Input::Closed,
            };
            let last = matches!(input, Input::Closed);
            if sender.send(input).is_err() || last {
                return;
            }
        }
    })?;
    let mut session = Session {
        target,
        peer: Peer::default(),
        thread: stop.thread().unwrap_or(1),
        stepper: stop.thread().unwrap_or(1),
        stop,
        running: false,
        listed: Vec::new(),
        acknowledge: true,
        end: None,
    };
    let mut connection = connection;
    let end = session.run(&inputs, &mut connection);
    connection.shut();
    // It reads the end now.
    let _ = reading.join();
    end
}

impl Session<'_> {
    fn run(&mut self, inputs: &Receiver<Input>, connection: &mut Connection) -> io::Result<End> {
        use io::Write;
        let mut last = Vec::new();
        for input in inputs {
            let answer = match input {
                Input::Closed => {
                    self.target.detach();
                    return Ok(End::Detached);
                }
                Input::Gdb(Incoming::Interrupt) => {
                    self.target.interrupt();
                    Answer::Later
                }
                Input::Gdb(Incoming::Damaged) => {
                    connection.write_all(b"-")?;
                    Answer::Later
                }
                Input::Gdb(Incoming::Again) => Answer::Bytes(last.clone()),
                Input::Gdb(Incoming::Packet(data)) => {
                    if self.acknowledge {
                        connection.write_all(b"+")?;
                    }
                    // Only Ctrl-C may come while the target runs.
                    if self.running { Answer::Later } else { self.packet(&data) }
                }
                Input::Stopped(stop) => {
                    self.running = false;
                    self.stop = stop;
                    if let Some(thread) = stop.thread() {
                        (self.thread, self.stepper) = (thread, thread);
                    }
                    if matches!(stop, Stop::Exited(_) | Stop::Killed(_)) {
                        self.end = Some(End::Killed);
                    }
                    self.stop_reply()
                }
            };
            let reply = match answer {
                Answer::Later => None,
                Answer::Text(text) => Some(text.into_bytes()),
                Answer::Bytes(bytes) => Some(bytes),
            };
            if let Some(reply) = reply {
                packet::write(connection, &reply)?;
                last = reply;
            }
            if let Some(end) = self.end {
                return Ok(end);
            }
        }
        Ok(End::Detached)
    }

    fn packet(&mut self, data: &[u8]) -> Answer {
        let Some((kind, rest)) = data.split_first() else { return UNKNOWN.into() };
        if *kind == b'X' {
            return self.write_binary(rest);
        }
        // Everything else is text.
        let Ok(text) = std::str::from_utf8(rest) else { return MALFORMED.into() };
        match kind {
            b'?' => self.stop_reply(),
            b'g' => self.read_registers(),
            b'G' => self.write_registers(text),
            b'p' => self.read_register(text),
            b'P' => self.write_register(text),
            b'm' => self.read_memory(text),
            b'M' => self.write_memory(text),
            b'H' => self.choose_thread(text),
            b'T' => {
                let known = self.thread_of(text).is_some();
                if known { "OK" } else { FAILED }.into()
            }
            b'Z' => self.point(text, true),
            b'z' => self.point(text, false),
            b'c' | b's' | b'C' | b'S' => self.resume_old(*kind, text),
            b'v' => self.verbose(text),
            b'q' | b'Q' => self.query(*kind, text),
            b'D' => {
                self.target.detach();
                self.end = Some(End::Detached);
                "OK".into()
            }
            b'k' => {
                self.target.kill();
                self.end = Some(End::Killed);
                Answer::Later
            }
            b'!' => "OK".into(),
            _ => UNKNOWN.into(),
        }
    }

    /// The name of a thread.
    pub(crate) fn name_of(&self, thread: ThreadId) -> String {
        if self.peer.processes {
            format!("p{:x}.{thread:x}", self.target.process())
        } else {
            format!("{thread:x}")
        }
    }

    /// The thread of a name that GDB uses; `0` and `-1` are the current one. `None` if it does not exist.
    pub(crate) fn thread_of(&self, name: &str) -> Option<ThreadId> {
        let thread = match name.strip_prefix('p') {
            Some(pair) => {
                let (process, thread) = pair.split_once('.').unwrap_or((pair, "0"));
                let known =
                    matches!(process, "0" | "-1") || number(process) == Some(self.target.process());
                known.then_some(thread)?
            }
            None => name,
        };
        let threads = self.target.threads();
        match thread {
            "0" | "-1" if threads.contains(&self.thread) => Some(self.thread),
            "0" | "-1" => threads.first().copied(),
            _ => number(thread).filter(|thread| threads.contains(thread)),
        }
    }

    fn choose_thread(&mut self, text: &str) -> Answer {
        let Some((operation, name)) = text.split_at_checked(1) else { return MALFORMED.into() };
        let Some(thread) = self.thread_of(name) else { return FAILED.into() };
        match operation {
            "g" => self.thread = thread,
            "c" => self.stepper = thread,
            _ => return MALFORMED.into(),
        }
        "OK".into()
    }

    /// Why the target has stopped (appendix E.3).
    pub(crate) fn stop_reply(&self) -> Answer {
        let (signal, reason) = match self.stop {
            Stop::Exited(status) => return format!("W{status:02x}").into(),
            Stop::Killed(signal) => return format!("X{signal:02x}").into(),
            Stop::Signal(_, signal) => (signal, String::new()),
            Stop::Breakpoint(..) if !self.peer.breakpoints => (TRAP, String::new()),
            Stop::Breakpoint(_, PointKind::HardwareBreakpoint) => (TRAP, "hwbreak:;".to_owned()),
            Stop::Breakpoint(..) => (TRAP, "swbreak:;".to_owned()),
            Stop::Watch(_, kind, address) => {
                let name = match kind {
                    PointKind::Read => "rwatch",
                    PointKind::Access => "awatch",
                    _ => "watch",
                };
                (TRAP, format!("{name}:{address:x};"))
            }
            Stop::CallEntry(_, call) => (TRAP, format!("syscall_entry:{call:x};")),
            Stop::CallReturn(_, call) => (TRAP, format!("syscall_return:{call:x};")),
        };
        let thread = self.stop.thread().unwrap_or(self.thread);
        format!("T{signal:02x}thread:{};{reason}", self.name_of(thread)).into()
    }

    fn read_registers(&self) -> Answer {
        let mut out = String::new();
        for (index, register) in self.target.registers().iter().enumerate() {
            if register.general {
                out.push_str(&self.register(index, register.bits));
            }
        }
        out.into()
    }

    /// A register in hexadecimal digits, or as many `x` if it has no value.
    fn register(&self, index: usize, bits: u32) -> String {
        let digits = bits as usize / 4;
        self.target
            .read_register(self.thread, index)
            .map_or("x".repeat(digits), |bytes| hex(&bytes))
    }

    fn write_registers(&self, text: &str) -> Answer {
        let Some(bytes) = unhex(text.as_bytes()) else { return MALFORMED.into() };
        let mut rest = &bytes[..];
        for (index, register) in self.target.registers().iter().enumerate() {
            if !register.general {
                continue;
            }
            let Some((value, behind)) = rest.split_at_checked(register.bits as usize / 8) else {
                return MALFORMED.into();
            };
            // Those that cannot be changed stay.
            self.target.write_register(self.thread, index, value);
            rest = behind;
        }
        "OK".into()
    }

    fn read_register(&self, text: &str) -> Answer {
        let Some(wanted) = number(text) else { return MALFORMED.into() };
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        match self.target.registers().by_number(wanted) {
            Some((index, register)) => self.register(index, register.bits).into(),
            None => FAILED.into(),
        }
    }

    fn write_register(&self, text: &str) -> Answer {
        let parts = text.split_once('=').and_then(|(register, value)| {
            Some((usize::try_from(number(register)?).ok()?, unhex(value.as_bytes())?))
        });
        let Some((wanted, value)) = parts else { return MALFORMED.into() };
        let Some((index, register)) = self.target.registers().by_number(wanted) else {
            return FAILED.into();
        };
        let fits = value.len() == register.bits as usize / 8;
        let done = fits && self.target.write_register(self.thread, index, &value);
        if done { "OK" } else { FAILED }.into()
    }

    fn read_memory(&self, text: &str) -> Answer {
        let Some((address, len)) = range(text) else { return MALFORMED.into() };
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(packet::SIZE / 2);
        let bytes = self.target.read_memory(address, len);
        if bytes.is_empty() && len != 0 { FAILED.into() } else { hex(&bytes).into() }
    }

    fn write_memory(&self, text: &str) -> Answer {
        let parts = text
            .split_once(':')
            .and_then(|(place, data)| Some((range(place)?, unhex(data.as_bytes())?)));
        match parts {
            Some(((address, len), bytes)) if len == bytes.len() as u64 => {
                let done = bytes.is_empty() || self.target.write_memory(address, &bytes);
                if done { "OK" } else { FAILED }.into()
            }
            _ => MALFORMED.into(),
        }
    }

    fn write_binary(&self, data: &[u8]) -> Answer {
        let colon = data.iter().position(|byte| *byte == b':');
        let parts = colon
            .and_then(|at| Some((range(std::str::from_utf8(&data[..at]).ok()?)?, &data[at + 1..])));
        match parts {
            Some(((address, len), bytes)) if len == bytes.len() as u64 => {
                let done = bytes.is_empty() || self.target.write_memory(address, bytes);
                if done { "OK" } else { FAILED }.into()
            }
            _ => MALFORMED.into(),
        }
    }

    /// `kind,address,length`; conditions are not known here, and GDB checks them itself then.
    fn point(&self, text: &str, set: bool) -> Answer {
        let (text, _) = text.split_once(';').unwrap_or((text, ""));
        let Some((kind, place)) = text.split_once(',') else { return MALFORMED.into() };
        let kind = match kind {
            "0" => PointKind::SoftwareBreakpoint,
            "1" => PointKind::HardwareBreakpoint,
            "2" => PointKind::Write,
            "3" => PointKind::Read,
            "4" => PointKind::Access,
            _ => return UNKNOWN.into(),
        };
        let Some((address, len)) = range(place) else { return MALFORMED.into() };
        match self.target.set_point(Point { kind, address, len }, set) {
            PointAnswer::Done => "OK".into(),
            PointAnswer::Unsupported => UNKNOWN.into(),
            PointAnswer::Failed => FAILED.into(),
        }
    }
}

/// GDB's number of `SIGTRAP`.
const TRAP: u8 = 5;

/// `address,length`
pub(crate) fn range(text: &str) -> Option<(u64, u64)> {
    let (address, len) = text.split_once(',')?;
    Some((number(address)?, number(len)?))
}
