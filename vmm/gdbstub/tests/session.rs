//! A session with a target that is a few numbers.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use cairn_gdbstub::{
    Action, Calls, Connection, End, Feature, Notifier, Object, Point, PointAnswer, PointKind,
    Register, Registers, Stop, Target, ThreadId, serve,
};

/// Two threads, two registers each, and memory from 0x1000 to 0x1100.
struct Toy {
    registers: Registers,
    values: Mutex<[[u8; 8]; 2]>,
    memory: Mutex<Vec<u8>>,
    done: Mutex<Vec<String>>,
    notifier: RefCell<Option<Notifier>>,
}

impl Toy {
    fn new() -> Toy {
        let register = |name: &str, number, general| Register {
            name: name.to_owned(),
            bits: 32,
            kind: "int",
            number,
            general,
        };
        let registers = vec![register("a", 0, true), register("b", 9, false)];
        let feature = Feature { name: "org.example", types: "", registers };
        Toy {
            registers: Registers::new("toy", vec![feature]),
            values: Mutex::new([[1, 0, 0, 0, 2, 0, 0, 0], [3, 0, 0, 0, 4, 0, 0, 0]]),
            memory: Mutex::new((0..=255).collect()),
            done: Mutex::new(Vec::new()),
            notifier: RefCell::new(None),
        }
    }

    fn note(&self, text: String) {
        self.done.lock().unwrap().push(text);
    }
}

impl Target for Toy {
    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn process(&self) -> u64 {
        0x10
    }

    fn threads(&self) -> Vec<ThreadId> {
        vec![0x11, 0x12]
    }

    fn thread_name(&self, thread: ThreadId) -> Option<String> {
        Some(format!("t{thread}"))
    }

    fn read_register(&self, thread: ThreadId, register: usize) -> Option<Vec<u8>> {
        let values = self.values.lock().unwrap();
        let thread = usize::try_from(thread - 0x11).unwrap();
        Some(values[thread][register * 4..][..4].to_vec())
    }

    fn write_register(&self, thread: ThreadId, register: usize, value: &[u8]) -> bool {
        let thread = usize::try_from(thread - 0x11).unwrap();
        self.values.lock().unwrap()[thread][register * 4..][..4].copy_from_slice(value);
        true
    }

    fn read_memory(&self, address: u64, len: usize) -> Vec<u8> {
        let memory = self.memory.lock().unwrap();
        let start = usize::try_from(address.saturating_sub(0x1000)).unwrap().min(memory.len());
        memory[start..memory.len().min(start.saturating_add(len))].to_vec()
    }

    fn write_memory(&self, address: u64, bytes: &[u8]) -> bool {
        let at = usize::try_from(address.saturating_sub(0x1000)).unwrap();
        let mut memory = self.memory.lock().unwrap();
        let Some(place) = memory.get_mut(at..at.saturating_add(bytes.len())) else { return false };
        place.copy_from_slice(bytes);
        true
    }

    fn set_point(&self, point: Point, set: bool) -> PointAnswer {
        self.note(format!("{point:?} {set}"));
        if point.kind == PointKind::Read { PointAnswer::Unsupported } else { PointAnswer::Done }
    }

    fn resume(&self, actions: &[(ThreadId, Action)]) {
        self.note(format!("{actions:x?}"));
        let stop = Stop::Breakpoint(0x12, PointKind::SoftwareBreakpoint);
        self.notifier.borrow().as_ref().unwrap().stopped(stop);
    }

    fn interrupt(&self) {}

    fn kill(&self) {
        self.note("kill".to_owned());
    }

    fn detach(&self) {
        self.note("detach".to_owned());
    }

    fn catch_calls(&self, calls: Calls) -> bool {
        self.note(format!("{calls:?}"));
        true
    }

    fn object(&self, object: Object) -> Option<Vec<u8>> {
        (object == Object::AuxiliaryVector).then(|| b"aux}vector".to_vec())
    }

    fn offset(&self) -> Option<u64> {
        Some(0x4000)
    }
}

fn packet(data: &[u8]) -> Vec<u8> {
    let sum = data.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", data, format!("#{sum:02x}").as_bytes()].concat()
}

/// Talks to a session: each packet, and the answer to it. Returns what the target was told, and the end.
fn talk(words: &[(&[u8], &str)]) -> (Vec<String>, End) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let server = thread::spawn(move || {
        let toy = Toy::new();
        let start = |notifier| {
            *toy.notifier.borrow_mut() = Some(notifier);
            Stop::Signal(0x11, 5)
        };
        let end = serve(Connection::Unix(theirs), &toy, start).unwrap();
        (toy.done.into_inner().unwrap(), end)
    });
    ours.write_all(&packet(b"QStartNoAckMode")).unwrap();
    let mut byte = [0];
    ours.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"+");
    assert_eq!(answer(&mut ours), "OK");
    for (data, expected) in words {
        ours.write_all(&packet(data)).unwrap();
        assert_eq!(answer(&mut ours), *expected, "{}", String::from_utf8_lossy(data));
    }
    drop(ours);
    server.join().unwrap()
}

fn answer(stream: &mut UnixStream) -> String {
    let mut out = Vec::new();
    let mut byte = [0];
    while !out.ends_with(b"#") {
        stream.read_exact(&mut byte).unwrap();
        out.push(byte[0]);
    }
    let mut sum = [0; 2];
    stream.read_exact(&mut sum).unwrap();
    let data = &out[1..out.len() - 1];
    assert_eq!(packet(data)[out.len()..], sum);
    String::from_utf8(data.to_vec()).unwrap()
}

#[test]
fn registers_and_memory() {
    talk(&[
        (b"?", "T05thread:11;"),
        (b"g", "01000000"),
        (b"p9", "02000000"),
        (b"p1", "E01"),
        (b"Hg12", "OK"),
        (b"p0", "03000000"),
        (b"P0=0a0b0c0d", "OK"),
        (b"P0=0a", "E01"),
        (b"g", "0a0b0c0d"),
        (b"G11223344", "OK"),
        (b"p0", "11223344"),
        (b"G1122", "E22"),
        (b"m1000,4", "00010203"),
        (b"m10fe,4", "feff"),
        (b"m2000,4", "E01"),
        (b"M1001,2:aabb", "OK"),
        (b"M1001,2:aa", "E22"),
        (b"X1003,2:}\x03\x7f", "OK"),
        (b"m1000,5", "00aabb237f"),
        (b"mnonsense", "E22"),
    ]);
}

#[test]
fn threads_and_queries() {
    talk(&[
        (b"qfThreadInfo", "m11,12"),
        (b"qsThreadInfo", "l"),
        (b"qC", "QC11"),
        (b"T12", "OK"),
        (b"T99", "E01"),
        (b"Hg99", "E01"),
        (b"qThreadExtraInfo,12", "743138"),
        (b"qOffsets", "Text=4000;Data=4000;Bss=4000"),
        (b"qXfer:auxv:read::0,100", "laux}]vector"),
        (b"qXfer:auxv:read::2,3", "mx}]v"),
        (b"qXfer:auxv:read::99,3", "E01"),
        (b"qXfer:memory-map:read::0,9", "E01"),
        (b"qUnknown", ""),
        (b"vMustReplyEmpty", ""),
        (b"vCont?", "vCont;c;C;s;S"),
    ]);
}

#[test]
fn the_target_runs_and_stops() {
    let (done, end) = talk(&[
        (b"qSupported:swbreak+;multiprocess+", SUPPORTED),
        (b"Z0,1010,2", "OK"),
        (b"Z3,1010,8", ""),
        (b"z0,1010,2", "OK"),
        (b"Z9,1,1", ""),
        (b"vCont;s:p10.12;c", "T05thread:p10.12;swbreak:;"),
        (b"Hc11", "OK"),
        (b"C0f", "T05thread:p10.12;swbreak:;"),
        (b"vCont;x", "E22"),
        (b"QCatchSyscalls:1;40;5d", "OK"),
        (b"vKill;10", "OK"),
    ]);
    let point =
        |kind: &str, len, set| format!("Point {{ kind: {kind}, address: 4112, len: {len} }} {set}");
    assert_eq!(
        done,
        [
            "None".to_owned(),
            point("SoftwareBreakpoint", 2, true),
            point("Read", 8, true),
            point("SoftwareBreakpoint", 2, false),
            "[(11, Continue(None)), (12, Step(None))]".to_owned(),
            "[(11, Continue(Some(f))), (12, Continue(None))]".to_owned(),
            "Some([64, 93])".to_owned(),
            "kill".to_owned(),
        ]
    );
    assert_eq!(end, End::Killed);
}

const SUPPORTED: &str = "PacketSize=4000;qXfer:features:read+;QStartNoAckMode+;multiprocess+;swbreak+;hwbreak+;\
                         vContSupported+;qXfer:auxv:read+;qXfer:siginfo:read+;QCatchSyscalls+";

#[test]
fn whoever_goes_away_detaches() {
    let (done, end) = talk(&[(b"?", "T05thread:11;")]);
    assert_eq!((done, end), (vec!["detach".to_owned()], End::Detached));
    let (done, end) = talk(&[(b"D", "OK")]);
    assert_eq!((done, end), (vec!["detach".to_owned()], End::Detached));
}
