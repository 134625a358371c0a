//! Runs a case with both tools in turn.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cairn_tests::process;
use cairn_tests::tool::Tool;

use super::cases::Case;
use super::inputs::names::OUTPUT;
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
