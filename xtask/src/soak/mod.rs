//! `cargo xtask soak`: many clients of one NBD server, some of them bad, for minutes.
//!
//! First the good clients are alone; then slow ones, which ask for much and take 1 KiB a second of it, and connections
//! that say nothing join them. The good ones must hardly notice: a request must not take longer than twice what it took
//! before (at the 99th percentile), a new client must be served within a second at any time, and when the others are
//! gone the server's memory must be what it was.

mod client;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder, Scope};
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result};
use crate::shell;
use client::{Client, PAGE};

/// Size of the export in bytes.
const SIZE: u64 = 256 << 20;
/// Stack of a client's thread, in bytes.
const STACK: usize = 96 << 10;
/// How often a good client asks.
const PACE: Duration = Duration::from_millis(200);
/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a slow client asks for at once, and takes at a time, each second. In bytes.
const GULP: u64 = 1 << 20;
const SIP: usize = 1 << 10;
/// How long a silent connection stays, unless the server ends it.
const SILENCE: Duration = Duration::from_secs(12);
/// Silent connections that come at one moment.
const SILENT_BURST: usize = 20;
/// Longest time until a new client has read its first page.
const ENTRY: Duration = Duration::from_secs(1);
/// Memory that the server may keep more than before the bad clients came, in KiB.
const KEPT: u64 = 16 << 10;

struct Options {
    good: usize,
    slow: usize,
    silent: usize,
    alone: Duration,
    together: Duration,
    ours: Option<PathBuf>,
}

/// What good clients have seen.
#[derive(Default)]
struct Seen {
    latencies: Mutex<Vec<Duration>>,
    entries: Mutex<Vec<Duration>>,
    failures: Mutex<Vec<String>>,
}

/// A server that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Resident memory in KiB (`proc(5)`, `VmRSS`).
    fn memory(&self) -> Result<u64> {
        let path = PathBuf::from(format!("/proc/{}/status", self.0.id()));
        let status = std::fs::read_to_string(&path).at(&path)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| Error::Wrong("the system does not tell the server's memory".to_owned()))
    }
}

/// Runs the soak test.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let program = if let Some(path) = &options.ours {
        std::fs::canonicalize(path).at(path)?
    } else {
        shell::show(shell::cargo().args(["build", "--release", "--locked", "-p", "cairn-nbd"]))?;
        shell::target().join("release/cairn-nbd")
    };
    let folder = shell::fresh_folder("soak")?;
    let image = folder.join("image");
    let bytes: Vec<u8> = (0..SIZE / 8).flat_map(|number| (number + 1).to_le_bytes()).collect();
    std::fs::write(&image, bytes).at(&image)?;
    let socket = folder.join("socket");
    let mut command = Command::new(program);
    command.args(["-t", "-e", "0", "-f", "raw", "-r", "-k"]).arg(&socket).arg(&image);
    let shown = shell::shown(&command);
    let child = command.spawn().map_err(|source| Error::Start { command: shown, source })?;
    let server = Server(child);
    wait_for(&socket)?;

    let Options { good, slow, silent, alone, together, .. } = options;
    println!("{good} clients alone for {} s", alone.as_secs());
    let before = Seen::default();
    soak(&before, &socket, (good, 0, 0), alone)?;
    let memory = server.memory()?;
    println!(
        "{good} clients with {slow} slow ones and {silent} silent ones for {} s",
        together.as_secs()
    );
    let with = Seen::default();
    soak(&with, &socket, (good, slow, silent), together)?;
    thread::sleep(Duration::from_secs(5));
    judge(&before, &with, memory, server.memory()?)
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        good: 900,
        slow: 100,
        silent: 2000,
        alone: Duration::from_secs(20),
        together: Duration::from_mins(3),
        ours: None,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| Error::Usage(format!("{arg} needs a value")))?;
        let number = || {
            value.parse().map_err(|_| Error::Usage(format!("'{value}' is not a number for {arg}")))
        };
        match arg.as_str() {
            "--seconds" => options.together = Duration::from_secs(number()?),
            "--ours" => options.ours = Some(PathBuf::from(value)),
            _ => return Err(Error::Usage(format!("soak has no option '{arg}'"))),
        }
    }
    Ok(options)
}

fn wait_for(socket: &Path) -> Result<()> {
    let begun = Instant::now();
    while UnixStream::connect(socket).is_err() {
        if begun.elapsed() > PATIENCE {
            return Err(Error::Wrong("the server does not listen".to_owned()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Lets so many good, slow and silent clients use the server for some time.
fn soak(
    seen: &Seen,
    socket: &Path,
    (good, slow, silent): (usize, usize, usize),
    time: Duration,
) -> Result<()> {
    let over = AtomicBool::new(false);
    let over = &over;
    let started: std::io::Result<()> = thread::scope(|scope| {
        let started = (|| {
            for number in 0..good {
                start(scope, move || seen.note(good_client(seen, socket, number, over)))?;
            }
            for number in 0..slow {
                start(scope, move || seen.note(slow_client(socket, number, over)))?;
            }
            start(scope, move || silent_clients(socket, silent, over))?;
            start(scope, move || newcomers(seen, socket, over))
        })();
        if started.is_ok() {
            thread::sleep(time);
        }
        over.store(true, Ordering::SeqCst);
        started
    });
    started.map_err(|source| Error::Start { command: "a thread".to_owned(), source })
}

fn start<'s>(scope: &'s Scope<'s, '_>, work: impl FnOnce() + Send + 's) -> std::io::Result<()> {
    Builder::new().stack_size(STACK).spawn_scoped(scope, work).map(drop)
}

/// A place to read that differs from time to time and from client to client.
fn place(client: usize, turn: u64) -> u64 {
    let mixed = (client as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(turn * 7919);
    mixed % (SIZE / PAGE as u64) * PAGE as u64
}

/// Whether `page` is what the image has at `offset`.
fn is_right(page: &[u8; PAGE], offset: u64) -> bool {
    page[..8] == (offset / 8 + 1).to_le_bytes()
}

/// The content of a lock; a client that panicked leaves nothing half done in it.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn good_client(
    seen: &Seen,
    socket: &Path,
    number: usize,
    over: &AtomicBool,
) -> std::io::Result<()> {
    // Not all at once.
    thread::sleep(PACE * u32::try_from(number % 64).unwrap_or(0) / 64);
    let mut client = Client::connect(socket, PATIENCE)?;
    let mut latencies = Vec::new();
    for turn in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let offset = place(number, turn);
        let begun = Instant::now();
        let page = client.read_page(offset)?;
        latencies.push(begun.elapsed());
        if !is_right(&page, offset) {
            return Err(std::io::Error::other("a page is wrong"));
        }
        thread::sleep(PACE.saturating_sub(begun.elapsed()));
    }
    held(&seen.latencies).extend(latencies);
    Ok(())
}

/// Keeps asking for more than it takes.
fn slow_client(socket: &Path, number: usize, over: &AtomicBool) -> std::io::Result<()> {
    let mut client = Client::connect(socket, PATIENCE)?;
    for turn in 0..4 {
        client.ask(place(number, turn).min(SIZE - GULP), GULP)?;
    }
    while !over.load(Ordering::SeqCst) {
        client.sip(&mut [0; SIP])?;
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Connections that say nothing; the server may hang up, then others come in their place. They come
/// [`SILENT_BURST`] at once: all in one moment would keep the good clients' threads from running, which share
/// the processors with them.
fn silent_clients(socket: &Path, count: usize, over: &AtomicBool) {
    let mut open: Vec<Option<(UnixStream, Instant)>> = Vec::new();
    open.resize_with(count, || None);
    while !over.load(Ordering::SeqCst) {
        let is_old = |(_, since): &(UnixStream, Instant)| since.elapsed() >= SILENCE;
        let due = open.iter_mut().filter(|place| place.as_ref().is_none_or(is_old));
        for place in due.take(SILENT_BURST) {
            *place = UnixStream::connect(socket).ok().map(|stream| (stream, Instant::now()));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Clients that come, read a page, and leave.
fn newcomers(seen: &Seen, socket: &Path, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let read = Client::connect(socket, PATIENCE).and_then(|mut client| client.read_page(0));
        seen.note(read.map(drop));
        held(&seen.entries).push(begun.elapsed());
        thread::sleep(Duration::from_millis(500));
    }
}

impl Seen {
    fn note(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            held(&self.failures).push(error.to_string());
        }
    }

    /// Requests, and their median and 99th percentile.
    fn figures(&self) -> (usize, Duration, Duration) {
        let mut latencies = held(&self.latencies);
        latencies.sort_unstable();
        let at = |percent: usize| {
            latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default()
        };
        (latencies.len(), at(50), at(99))
    }

    fn slowest_entry(&self) -> Duration {
        let entries = held(&self.entries);
        entries.iter().max().copied().unwrap_or_default()
    }
}

/// Prints what was seen, and fails if that is not good enough.
fn judge(before: &Seen, with: &Seen, memory_before: u64, memory_after: u64) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, seen) in [("alone", before), ("together", with)] {
        let (requests, median, p99) = seen.figures();
        let entry = seen.slowest_entry();
        println!(
            "{name:<10}{requests:>9} requests, median {median:>9.2?}, 99 % within {p99:>9.2?}, \
             slowest new client {entry:.2?}"
        );
        let failures = held(&seen.failures);
        if let Some(first) = failures.first() {
            wrong.push(format!("{} clients failed {name}, the first: {first}", failures.len()));
        }
        if entry > ENTRY {
            wrong.push(format!("a new client waited {entry:.2?} ({name})"));
        }
    }
    println!("memory    {memory_before} KiB before, {memory_after} KiB after the bad clients");
    let (_, _, alone) = before.figures();
    let (_, _, together) = with.figures();
    if together > 2 * alone {
        wrong.push(format!("99 % of the requests took {together:.2?}, alone {alone:.2?}"));
    }
    if memory_after > memory_before + KEPT {
        wrong.push("the server keeps memory".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Wrong(wrong.join("\n"))) }
}
