//! Shows figures to people and writes them for programs.

use std::path::Path;
use std::time::Duration;

use cairn_tests::tool::Tool;

use super::cases::{Case, Group};
use super::cipher::Speed;
use super::limits::Bound;
use super::runner::{Runs, Series};
use crate::error::Result;
use crate::shell;

/// Memory that ours may use beyond stock, in bytes.
const MEMORY_ALLOWANCE: u64 = 16 << 20;

/// A case with its figures.
pub(super) struct Measured {
    pub(super) case: Case,
    pub(super) runs: Runs,
    pub(super) limits: Vec<Bound>,
}

impl Measured {
    /// Stock's median time divided by ours.
    fn ratio(&self) -> f64 {
        quotient(middle(&self.runs.stock), middle(&self.runs.ours))
    }

    /// The lowest and the highest ratio of a single pair.
    fn spread(&self) -> (f64, f64) {
        let pairs = self.runs.stock.wall.iter().zip(&self.runs.ours.wall);
        pairs
            .map(|(stock, ours)| quotient(*stock, *ours))
            .fold((f64::MAX, f64::MIN), |(low, high), ratio| (low.min(ratio), high.max(ratio)))
    }

    fn fast_enough(&self) -> bool {
        self.case.target.is_none_or(|target| self.ratio() >= target)
    }

    fn small_enough(&self) -> bool {
        self.runs.ours.peak_rss <= self.runs.stock.peak_rss + MEMORY_ALLOWANCE
    }
}

/// The middle one of `times`, which must not be empty.
pub(super) fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Says what is measured and on what machine.
pub(super) fn heading(groups: &[Group], pairs: usize, stock: &Tool) -> Result<()> {
    let names: Vec<_> = groups.iter().map(|group| group.name()).collect();
    let version = shell::read(&mut stock.command(Path::new("."), ["--version"]))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{} · median of {pairs} pairs · {cores} cores", names.join(", "));
    println!("stock is {}\n", version.lines().next().unwrap_or("unknown"));
    println!(
        "{:<26}{:>10}{:>10}{:>8}{:>8}{:>14}{:>12}",
        "case", "stock", "ours", "ratio", "target", "pairs", "peak MiB"
    );
    Ok(())
}

/// Shows what ciphers do alone.
pub(super) fn ciphers(speeds: &[Speed]) {
    for speed in speeds {
        let target = match speed.target {
            Some(target) => {
                let mark = if speed.fast_enough() { "✓" } else { "✗" };
                format!(", target {:.1} {mark}", target / 1e9)
            }
            None => String::new(),
        };
        println!("{:<26}{:>10.2} GB/s on a core{target}", speed.name, speed.rate / 1e9);
    }
}

/// Shows one case.
pub(super) fn line(measured: &Measured) {
    let Measured { case, runs, limits } = measured;
    let target = match case.target {
        Some(target) => format!("{target:.1}{}", if measured.fast_enough() { " ✓" } else { " ✗" }),
        None => String::new(),
    };
    let (low, high) = measured.spread();
    let memory = format!("{}/{}", mib(runs.ours.peak_rss), mib(runs.stock.peak_rss));
    println!(
        "{:<26}{:>10}{:>10}{:>8.2}{:>8}{:>14}{:>12}{}",
        case.name,
        time(middle(&runs.stock)),
        time(middle(&runs.ours)),
        measured.ratio(),
        target,
        format!("{low:.2}..{high:.2}"),
        memory,
        if measured.small_enough() { "" } else { " ✗" }
    );
    for bound in limits {
        println!(
            "    limit: {:<26}{:>10}, ours takes {:.2} times that",
            bound.name,
            time(bound.time),
            quotient(middle(&runs.ours), bound.time)
        );
    }
}

/// Says which targets were missed.
pub(super) fn summary(all: &[Measured], ciphers: &[Speed]) {
    let missed = all.iter().filter(|measured| !measured.fast_enough());
    let fat = all.iter().filter(|measured| !measured.small_enough());
    println!("\npeak MiB is ours/stock; a run may need stock's and {} more", mib(MEMORY_ALLOWANCE));
    let mut fine = true;
    for measured in missed {
        fine = false;
        let target = measured.case.target.unwrap_or_default();
        println!("missed: {}: {:.2} of {target:.1}", measured.case.name, measured.ratio());
    }
    for speed in ciphers.iter().filter(|speed| !speed.fast_enough()) {
        fine = false;
        println!("missed: {}: {:.2} GB/s", speed.name, speed.rate / 1e9);
    }
    for measured in fat {
        fine = false;
        println!("too much memory: {}", measured.case.name);
    }
    if fine {
        println!("every target is reached");
    }
}

/// The figures as a JSON array, times in seconds, memory in bytes and speeds in bytes a second.
pub(super) fn json(all: &[Measured], ciphers: &[Speed]) -> String {
    let target =
        |target: Option<f64>| target.map_or("null".to_owned(), |target| target.to_string());
    let speeds = ciphers.iter().map(|Speed { name, rate, target: wanted }| {
        format!(r#"  {{"cipher": "{name}", "target": {}, "rate": {rate}}}"#, target(*wanted))
    });
    let cases = all.iter().map(|Measured { case, runs, limits }| {
        let bounds: Vec<_> = limits
            .iter()
            .map(|bound| {
                format!(r#"{{"name": "{}", "seconds": {}}}"#, bound.name, bound.time.as_secs_f64())
            })
            .collect();
        format!(
            r#"  {{"case": "{}", "target": {}, "ratio": {:.4}, "stock": {}, "ours": {}, "limits": [{}]}}"#,
            case.name,
            target(case.target),
            quotient(middle(&runs.stock), middle(&runs.ours)),
            series(&runs.stock),
            series(&runs.ours),
            bounds.join(", ")
        )
    });
    let objects: Vec<_> = speeds.chain(cases).collect();
    format!("[\n{}\n]\n", objects.join(",\n"))
}

fn series(series: &Series) -> String {
    let list = |times: &[Duration]| {
        let texts: Vec<_> = times.iter().map(|time| time.as_secs_f64().to_string()).collect();
        texts.join(", ")
    };
    format!(
        r#"{{"wall": [{}], "cpu": [{}], "peak_rss": {}}}"#,
        list(&series.wall),
        list(&series.cpu),
        series.peak_rss
    )
}

fn middle(series: &Series) -> Duration {
    median(&mut series.wall.clone())
}

fn quotient(dividend: Duration, divisor: Duration) -> f64 {
    dividend.as_secs_f64() / divisor.as_secs_f64().max(1e-9)
}

fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 0.1 { format!("{seconds:.2} s") } else { format!("{:.2} ms", seconds * 1000.0) }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
