//! Running an operation: the main thread becomes an I/O thread, and signals are minded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_block::engine::{self, EngineConfig};
use cairn_block::graph::{Graph, Policy};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Result};

/// An empty graph whose warnings and findings go to standard error, and whose images may ask for what
/// `policy` allows.
pub fn graph(policy: Policy) -> Arc<Graph> {
    let graph = Graph::with_policy(policy);
    graph.on_warning(|text| eprintln!("WARNING: {}", text.replace('\n', "\n         ")));
    graph.on_finding(|line| eprintln!("{line}"));
    graph
}

/// Runs `operation` on this thread, which becomes an I/O thread for it.
pub fn run<T>(config: &EngineConfig, operation: impl Future<Output = Result<T>>) -> Result<T> {
    engine::block_on(config, operation).map_err(setup)?
}

/// Like [`run`] for operations that take long. A signal to end drops the operation, so that it cleans
/// up behind itself; `on_report` is called for each `SIGUSR1`.
pub(crate) fn run_watched<T>(
    operation: impl Future<Output = Result<T>>,
    on_report: impl Fn(),
) -> Result<T> {
    run(&EngineConfig::default(), async {
        let mut ending = Ending::new().map_err(setup)?;
        let mut report = signal(SignalKind::user_defined1()).map_err(setup)?;
        let mut operation = std::pin::pin!(operation);
        loop {
            tokio::select! {
                result = &mut operation => return result,
                signal = ending.recv() => return Err(Error::Interrupted { signal }),
                _ = report.recv() => on_report(),
            }
        }
    })
}

/// Like [`run_watched`] for operations that must not be cut off: a signal sets `stop`, which the
/// operation looks at. A second signal drops it.
pub(crate) fn run_to_stop<T>(
    operation: impl Future<Output = Result<T>>,
    stop: &AtomicBool,
    on_report: impl Fn(),
) -> Result<T> {
    run(&EngineConfig::default(), async {
        let mut ending = Ending::new().map_err(setup)?;
        let mut report = signal(SignalKind::user_defined1()).map_err(setup)?;
        let mut operation = std::pin::pin!(operation);
        let mut received = None;
        loop {
            tokio::select! {
                result = &mut operation => {
                    let result = result?;
                    return match received {
                        Some(signal) => Err(Error::Interrupted { signal }),
                        None => Ok(result),
                    };
                }
                signal = ending.recv() => {
                    if received.replace(signal).is_some() {
                        return Err(Error::Interrupted { signal });
                    }
                    stop.store(true, Ordering::Relaxed);
                }
                _ = report.recv() => on_report(),
            }
        }
    })
}

fn setup(source: io::Error) -> Error {
    Error::Setup { what: "set up an I/O thread", source }
}

/// The signals that ask a program to end.
pub struct Ending {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Ending {
    /// Begins to watch for them.
    pub fn new() -> io::Result<Ending> {
        let ignored = ignored_signals();
        // A signal that was ignored when the program began (`nohup`) stays ignored.
        let watch = |kind: SignalKind| {
            let bit = 1u64.checked_shl(kind.as_raw_value().unsigned_abs() - 1).unwrap_or(0);
            if ignored & bit != 0 { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Ending {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hang_up: watch(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them and returns its number.
    pub async fn recv(&mut self) -> i32 {
        tokio::select! {
            () = next(&mut self.interrupt) => SignalKind::interrupt().as_raw_value(),
            () = next(&mut self.terminate) => SignalKind::terminate().as_raw_value(),
            () = next(&mut self.hang_up) => SignalKind::hangup().as_raw_value(),
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    if let Some(signal) = signal {
        // `None` means that no more signals can come.
        if signal.recv().await.is_some() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// The set of ignored signals, signal n being bit n - 1; empty where the system does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
