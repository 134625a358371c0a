//! Runs a program to its end under limits and says what it cost.
//!
//! Limits are those that consumers of image tools set (address space, CPU time, file size); the costs
//! are what the kernel accounts to the process: CPU time and the peak of its resident memory.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};

/// Bytes that are kept of each output stream; what a broken tool prints beyond is read and dropped.
const KEPT: u64 = 16 << 20;

/// What a process may use. `None` leaves the caller's own limit in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Address space in bytes (`RLIMIT_AS`).
    pub address_space: Option<u64>,
    /// CPU time in whole seconds (`RLIMIT_CPU`).
    pub cpu_seconds: Option<u64>,
    /// Largest file it may write, in bytes; writing beyond fails with `EFBIG` instead of a signal.
    pub file_size: Option<u64>,
    /// Time until it is killed, whether it uses the CPU or only waits.
    pub wall: Option<Duration>,
}

/// What the kernel accounted to a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// From start to exit.
    pub wall: Duration,
    /// User and system time.
    pub cpu: Duration,
    /// Peak of the resident memory, in bytes.
    pub peak_rss: u64,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// What it cost.
    pub usage: Usage,
    /// Whether it was killed for running longer than [`Limits::wall`].
    pub timed_out: bool,
}

impl Outcome {
    /// Exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The start of standard error, short enough for a message.
    pub fn excerpt(&self) -> String {
        self.err().chars().take(2000).collect()
    }

    /// Whether a signal ended it, as aborts and limits do.
    pub fn signalled(&self) -> bool {
        self.status.signal().is_some()
    }
}

/// Runs `command` to its end with its output captured and no standard input.
pub fn capture(command: &mut Command, limits: Limits) -> io::Result<Outcome> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    confine(command, limits);
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut stderr_pipe = child.stderr.take();
    let mut stdout = Vec::new();
    let watchdog = limits.wall.map(|wall| Watchdog::start(&child, wall));
    let stderr = thread::scope(|scope| {
        let reader = scope.spawn(|| stderr_pipe.as_mut().map_or(Ok(Vec::new()), drain));
        if let Some(mut pipe) = child.stdout.take() {
            stdout = drain(&mut pipe)?;
        }
        reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader of stderr panicked")))
    })?;
    let ended = reap(&child, started, watchdog)?;
    Ok(Outcome {
        status: ended.status,
        stdout,
        stderr,
        usage: ended.usage,
        timed_out: ended.timed_out,
    })
}

/// Reads to the end and keeps the first [`KEPT`] bytes.
fn drain(pipe: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    pipe.by_ref().take(KEPT).read_to_end(&mut kept)?;
    io::copy(pipe, &mut io::sink())?;
    Ok(kept)
}

/// Runs `command` to its end with its standard streams as the caller set them.
pub fn measure(command: &mut Command) -> io::Result<(ExitStatus, Usage)> {
    let started = Instant::now();
    let child = command.spawn()?;
    let ended = reap(&child, started, None)?;
    Ok((ended.status, ended.usage))
}

/// Applies `limits` to the process that `command` will start.
fn confine(command: &mut Command, limits: Limits) {
    let rlimits: Vec<(Resource, u64)> = [
        (Resource::As, limits.address_space),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Fsize, limits.file_size),
        (Resource::Core, Some(0)),
    ]
    .into_iter()
    .filter_map(|(resource, limit)| limit.map(|limit| (resource, limit)))
    .collect();
    let ignore_xfsz = limits.file_size.is_some();
    let apply = move || {
        for (resource, limit) in &rlimits {
            let limit = Rlimit { current: Some(*limit), maximum: Some(*limit) };
            rustix::process::setrlimit(*resource, limit)?;
        }
        if ignore_xfsz {
            // SAFETY: setting a disposition to "ignore" installs no handler; the call is async-signal-safe.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes plain system calls only: it neither allocates nor
    // takes a lock (`rlimits` was built before).
    unsafe { command.pre_exec(apply) };
}

/// Kills a process that outlives its time.
struct Watchdog {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watchdog {
    /// Watches `child`, which must not be reaped before [`Watchdog::stop`].
    fn start(child: &Child, wall: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let pid = rustix::process::Pid::from_child(child);
        let thread = thread::spawn(move || {
            let expired = stopped.recv_timeout(wall) == Err(mpsc::RecvTimeoutError::Timeout);
            if expired {
                // Failure means that the process ended by itself in this moment.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            expired
        });
        Self { stop, thread }
    }

    /// Ends the watch; true when the process was killed.
    fn stop(self) -> bool {
        // The watch may have ended by itself.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or(false)
    }
}

struct Ended {
    status: ExitStatus,
    usage: Usage,
    timed_out: bool,
}

/// Waits for `child` and takes its resource figures.
fn reap(child: &Child, started: Instant, watchdog: Option<Watchdog>) -> io::Result<Ended> {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let pid = Pid::from_child(child);
    // The process stays a zombie until wait4, so the watchdog can never hit a reused process id.
    let no_reap = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), no_reap))?;
    let wall = started.elapsed();
    let timed_out = watchdog.is_some_and(Watchdog::stop);

    let mut status = 0;
    // SAFETY: all-zero is a valid `rusage`, which holds integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the types that the call fills.
    let waited =
        unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage) };
    if waited < 0 {
        return Err(io::Error::last_os_error());
    }
    let usage = Usage {
        wall,
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        // The kernel counts in KiB (getrusage(2)).
        peak_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    };
    Ok(Ended { status: ExitStatus::from_raw(status), usage, timed_out })
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}
