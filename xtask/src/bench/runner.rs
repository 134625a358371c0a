//! Runs a case with both tools in turn.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cairn_tests::process;
use cairn_tests::tool::Tool;

use super::cases::Case;
use super::inputs::names::{OUTPUT, SOCKET};
use crate::error::{At, Error, Result};
use crate::shell;

/// Figures of one tool, one element a pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// Time of one execution.
    pub(super) wall: Vec<Duration>,
    /// CPU time of one execution.
    pub(super) cpu: Vec<Duration>,
    /// Highest resident memory of any execution, in bytes.
    pub(super) peak_rss: u64,
}

/// Figures of both tools.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// The tool under test.
    pub(super) ours: Series,
    /// The reference.
    pub(super) stock: Series,
}

/// Runs `case` in `dir`: one unmeasured pair, then `pairs` pairs with the order changing each time.
pub(super) fn alternate(
    case: &Case,
    ours: &Tool,
    stock: &Tool,
    dir: &Path,
    pairs: usize,
) -> Result<Runs> {
    let _server = case.served.map(|words| Server::start(dir, words)).transpose()?;
    let mut runs = Runs::default();
    execute(case, ours, dir, &mut Series::default())?;
    execute(case, stock, dir, &mut Series::default())?;
    for pair in 0..pairs {
        if pair % 2 == 0 {
            execute(case, stock, dir, &mut runs.stock)?;
            execute(case, ours, dir, &mut runs.ours)?;
        } else {
            execute(case, ours, dir, &mut runs.ours)?;
            execute(case, stock, dir, &mut runs.stock)?;
        }
    }
    Ok(runs)
}

/// An NBD server that is killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts `nbdkit` with `words` in `dir` and waits until it takes connections.
    fn start(dir: &Path, words: &str) -> Result<Server> {
        let socket = dir.join(SOCKET);
        clear(&socket)?;
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-U", SOCKET]).args(words.split_whitespace()).current_dir(dir);
        let text = shell::shown(&command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server =
            Server(child.map_err(|source| Error::Start { command: text.clone(), source })?);
        while UnixStream::connect(&socket).is_err() {
            if let Ok(Some(status)) = server.0.try_wait() {
                return Err(Error::Failed { command: text, status, said: String::new() });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

/// Runs the case once, as often as it asks for, and adds the figures of one execution.
fn execute(case: &Case, tool: &Tool, dir: &Path, series: &mut Series) -> Result<()> {
    let output = dir.join(OUTPUT);
    clear(&output)?;
    if let Some(input) = case.starts_from {
        fs::copy(dir.join(input), &output).at(&output)?;
    }
    shell::settle();
    let (mut wall, mut cpu) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..case.repeat {
        let mut command = tool.command(dir, case.args.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let text = shell::shown(&command);
        let (status, usage) = process::measure(&mut command)
            .map_err(|source| Error::Start { command: text.clone(), source })?;
        if !status.success() {
            return Err(Error::Failed { command: text, status, said: String::new() });
        }
        wall += usage.wall;
        cpu += usage.cpu;
        series.peak_rss = series.peak_rss.max(usage.peak_rss);
    }
    clear(&output)?;
    series.wall.push(wall / case.repeat);
    series.cpu.push(cpu / case.repeat);
    Ok(())
}

fn clear(path: &Path) -> Result<()> {
    if path.exists() { fs::remove_file(path).at(path) } else { Ok(()) }
}
