//! Progress of a long operation: a line that is rewritten, a bar, JSON lines, or on request.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cairn_block::options::{Dict, Value, json};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::{Error, Result};

/// A JSON line is due after this time even without visible progress.
const JSON_INTERVAL: Duration = Duration::from_secs(1);
const BAR_TEMPLATE: &str =
    "{bar:40} {percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} ETA {eta}";

/// How progress is shown.
#[derive(Debug)]
pub enum Style {
    /// Only when a signal asks for it.
    Silent,
    /// `    (17.35/100%)` and a carriage return on standard output, as programs parse it.
    Line,
    /// A bar on standard error.
    Bar,
    /// One JSON object a line.
    Json(JsonSink),
}

/// Where JSON lines go.
#[derive(Debug)]
pub enum JsonSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Another descriptor.
    File(File),
}

impl Style {
    /// The style that the value of `--progress` asks for.
    pub fn parse(value: Option<&str>, quiet: bool) -> Result<Style> {
        match value {
            _ if quiet => Ok(Style::Silent),
            None => Ok(Style::Silent),
            Some("text") if io::stdout().is_terminal() && io::stderr().is_terminal() => {
                Ok(Style::Bar)
            }
            Some("text") => Ok(Style::Line),
            Some("json") => Ok(Style::Json(JsonSink::Stderr)),
            Some(other) => match other.strip_prefix("json:").map(str::parse::<u32>) {
                Some(Ok(fd)) => JsonSink::open(fd).map(Style::Json),
                _ => Err(Error::Usage(format!(
                    "'{other}' is no form of progress; there are text, json and json:FD"
                ))),
            },
        }
    }
}

impl JsonSink {
    fn open(fd: u32) -> Result<JsonSink> {
        match fd {
            1 => Ok(JsonSink::Stdout),
            2 => Ok(JsonSink::Stderr),
            fd => {
                let path = format!("/dev/fd/{fd}");
                let file = OpenOptions::new().append(true).open(&path);
                file.map(JsonSink::File).map_err(|source| Error::File {
                    what: "cannot write progress to",
                    path: path.into(),
                    source,
                })
            }
        }
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        match self {
            JsonSink::Stdout => writeln!(io::stdout(), "{line}"),
            JsonSink::Stderr => writeln!(io::stderr(), "{line}"),
            JsonSink::File(file) => writeln!(file, "{line}"),
        }
    }
}

/// Progress of one operation, counted in bytes.
#[derive(Debug)]
pub struct Progress {
    /// A report was asked for by a signal.
    requested: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    style: Style,
    bar: Option<ProgressBar>,
    /// Least difference between two reports, in percent.
    min_step: f32,
    done: u64,
    total: u64,
    /// Percentage of the last report.
    reported: f32,
    started: Instant,
    reported_at: Instant,
}

impl Progress {
    /// Begins to show progress, at 0 %. Reports are at least `min_step` percent apart.
    pub fn start(style: Style, min_step: f32) -> Progress {
        let now = Instant::now();
        let mut state = State {
            style,
            bar: None,
            min_step,
            done: 0,
            total: 0,
            reported: 0.0,
            started: now,
            reported_at: now,
        };
        state.report(0.0);
        Progress { requested: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Asks for a report with the next step, even if progress is not shown.
    pub fn request_report(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }

    /// So many bytes are to be done.
    pub fn set_total(&self, bytes: u64) {
        let mut state = self.state();
        state.total = bytes;
        state.started = Instant::now();
        if matches!(state.style, Style::Bar) {
            let target = ProgressDrawTarget::stderr();
            let style = ProgressStyle::with_template(BAR_TEMPLATE)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            state.bar = Some(ProgressBar::with_draw_target(Some(bytes), target).with_style(style));
        }
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        let requested = self.requested.swap(false, Ordering::Relaxed);
        let mut state = self.state();
        state.done = state.done.saturating_add(bytes);
        if let Some(bar) = &state.bar {
            bar.set_position(state.done.min(state.total));
        }
        let percent = percent(state.done, state.total);
        if requested && matches!(state.style, Style::Silent) {
            // The output of the program itself does not depend on this.
            let _ = writeln!(io::stderr(), "    ({percent:.2}/100%)");
        }
        let step = percent > state.reported + state.min_step || percent >= 100.0;
        let late =
            matches!(state.style, Style::Json(_)) && state.reported_at.elapsed() >= JSON_INTERVAL;
        if step || late {
            state.report(percent);
        }
    }

    /// Everything is done, whatever was counted.
    pub fn complete(&self) {
        let mut state = self.state();
        state.done = state.total;
        state.report(100.0);
    }

    /// Ends the display.
    pub fn finish(self) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = &state.bar {
            if state.done >= state.total {
                bar.finish();
            } else {
                bar.abandon();
            }
        }
        if matches!(state.style, Style::Line) {
            let _ = writeln!(io::stdout());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn report(&mut self, percent: f32) {
        self.reported = percent;
        self.reported_at = Instant::now();
        let elapsed = self.started.elapsed();
        let (done, total) = (self.done, self.total);
        // A reader of progress that went away is no reason to stop.
        let _ = match &mut self.style {
            Style::Silent | Style::Bar => Ok(()),
            Style::Line => {
                let mut out = io::stdout();
                write!(out, "    ({percent:.2}/100%)\r").and_then(|()| out.flush())
            }
            Style::Json(sink) => sink.write_line(&json_line(done, total, percent, elapsed)),
        };
    }
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn percent(done: u64, total: u64) -> f32 {
    if total == 0 { 100.0 } else { (100.0 * done as f32 / total as f32).min(100.0) }
}

/// Bytes done and to be done, bytes per second, seconds left (`null` while unknown), and percent.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn json_line(done: u64, total: u64, percent: f32, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
    let left = total.saturating_sub(done) as f64;
    let eta = if left == 0.0 {
        Value::Int(0)
    } else if done == 0 {
        Value::Null
    } else {
        rounded(left / rate)
    };
    let mut dict = Dict::new();
    dict.insert("bytes", done);
    dict.insert("total", total);
    dict.insert("rate", if done == 0 { Value::Int(0) } else { rounded(rate) });
    dict.insert("eta", eta);
    dict.insert("percent", f64::from((percent * 100.0).round()) / 100.0);
    json::compact(&Value::Dict(dict))
}

#[expect(clippy::cast_possible_truncation, reason = "the conversion saturates")]
fn rounded(value: f64) -> Value {
    Value::Int(value.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_stay_in_range() {
        assert!((percent(0, 0) - 100.0).abs() < f32::EPSILON);
        assert!((percent(1, 4) - 25.0).abs() < f32::EPSILON);
        assert!((percent(5, 4) - 100.0).abs() < f32::EPSILON);
    }

    #[test]
    fn json_lines_say_what_is_known() {
        let line = json_line(1 << 20, 4 << 20, 25.0, Duration::from_secs(2));
        let parsed = json::parse(&line).expect("JSON");
        let get = |key| parsed.as_dict().and_then(|dict| dict.get(key)).cloned();
        assert_eq!(get("bytes"), Some(Value::Int(1 << 20)));
        assert_eq!(get("total"), Some(Value::Int(4 << 20)));
        assert_eq!(get("rate"), Some(Value::Int(1 << 19)));
        assert_eq!(get("eta"), Some(Value::Int(6)));
        let line = json_line(0, 10, 0.0, Duration::ZERO);
        let parsed = json::parse(&line).expect("JSON");
        assert_eq!(parsed.as_dict().and_then(|dict| dict.get("eta")), Some(&Value::Null));
    }

    #[test]
    fn styles_are_parsed() {
        assert!(matches!(Style::parse(None, false), Ok(Style::Silent)));
        assert!(matches!(Style::parse(Some("json"), true), Ok(Style::Silent)));
        assert!(matches!(Style::parse(Some("json"), false), Ok(Style::Json(JsonSink::Stderr))));
        assert!(matches!(Style::parse(Some("json:1"), false), Ok(Style::Json(JsonSink::Stdout))));
        for bad in ["yaml", "json:", "json:x", "json:-1", "json:4000000"] {
            assert!(Style::parse(Some(bad), false).is_err(), "{bad}");
        }
    }
}
