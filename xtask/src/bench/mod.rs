//! `cargo xtask bench NAME`: speed and memory beside stock, and the distance to what the machine can do.
//!
//! Both tools run alternately in one go, each pair in the other order than the last, so that drift of the
//! machine hits both. Before each run the previous output is deleted and written data is on the disk.

mod cases;
mod cipher;
mod inputs;
mod limits;
mod nbd;
mod report;
mod runner;
mod user;

use std::path::PathBuf;

use cairn_tests::sample::Disk;
use cairn_tests::tool::Tool;

use crate::error::{At, Error, Result};
use crate::{apt, shell};
use cases::{Case, Group};
use inputs::Inputs;
use limits::Limits;
use report::Measured;

/// What the command line asks for.
struct Options {
    groups: Vec<Group>,
    disk: Disk,
    pairs: usize,
    only: Option<String>,
    dir: PathBuf,
    ours: Option<PathBuf>,
    json: Option<PathBuf>,
}

/// Runs the benchmarks that `args` name.
pub(crate) fn run(args: Vec<String>) -> Result<()> {
    if args.first().is_some_and(|name| name == "user") {
        return user::run(&args[1..]);
    }
    if args.first().is_some_and(|name| name == "nbd") {
        return nbd::run(&args[1..]);
    }
    let options = Options::parse(args)?;
    apt::ensure(&[apt::E2FSPROGS, apt::NBDKIT])?;
    apt::ensure_stock(&[apt::STOCK_TOOLS])?;
    let ours = match &options.ours {
        Some(path) => std::fs::canonicalize(path).at(path)?,
        None => shell::build_release()?,
    };
    let ours = Tool::at("ours", ours);
    let stock = Tool::stock();
    let limits = Limits::build()?;
    std::fs::create_dir_all(&options.dir).at(&options.dir)?;
    let dir = std::fs::canonicalize(&options.dir).at(&options.dir)?;
    limits.warm_memory()?;
    let inputs = Inputs::prepare(&dir, options.disk, &stock)?;

    report::heading(&options.groups, options.pairs, &stock)?;
    let ciphers =
        if options.groups.contains(&Group::Crypto) { cipher::measure()? } else { Vec::new() };
    report::ciphers(&ciphers);
    let mut all = Vec::new();
    for case in options.cases() {
        let pairs = case.pairs(options.pairs);
        let runs = runner::alternate(&case, &ours, &stock, inputs.dir(), pairs)?;
        let limits = limits.measure(&case, &inputs)?;
        let measured = Measured { case, runs, limits };
        report::line(&measured);
        all.push(measured);
    }
    if all.is_empty() {
        return Err(Error::Usage("no case has that name".to_owned()));
    }
    report::summary(&all, &ciphers);
    if let Some(path) = options.json {
        std::fs::write(&path, report::json(&all, &ciphers)).at(path)?;
    }
    Ok(())
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self> {
        let mut options = Options {
            groups: Vec::new(),
            disk: Disk::FULL,
            pairs: 5,
            only: None,
            dir: shell::target().join("bench"),
            ours: None,
            json: None,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value =
                || args.next().ok_or_else(|| Error::Usage(format!("{arg} needs a value")));
            match arg.as_str() {
                "--size" => {
                    options.disk = match value()?.as_str() {
                        "full" => Disk::FULL,
                        "quick" => Disk::QUICK,
                        other => return Err(Error::Usage(format!("no sample disk is '{other}'"))),
                    }
                }
                "--pairs" => {
                    let text = value()?;
                    options.pairs =
                        text.parse().ok().filter(|pairs| *pairs > 0).ok_or_else(|| {
                            Error::Usage(format!("--pairs takes a number above 0, not '{text}'"))
                        })?;
                }
                "--only" => options.only = Some(value()?),
                "--dir" => options.dir = value()?.into(),
                "--ours" => options.ours = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                "all" => options.groups = Group::ALL.to_vec(),
                name => match Group::ALL.into_iter().find(|group| group.name() == name) {
                    Some(group) => options.groups.push(group),
                    None => return Err(Error::Usage(format!("there is no benchmark '{name}'"))),
                },
            }
        }
        if options.groups.is_empty() {
            return Err(Error::Usage("`bench` takes the name of a benchmark".to_owned()));
        }
        Ok(options)
    }

    /// The cases to run, each once.
    fn cases(&self) -> Vec<Case> {
        let wanted = |case: &Case| {
            self.groups.iter().any(|group| case.belongs_to(*group))
                && self.only.as_ref().is_none_or(|text| case.name.contains(text.as_str()))
        };
        let memory_only = self.groups == [Group::Memory];
        cases::all(self.disk)
            .into_iter()
            .filter(wanted)
            .map(|case| case.for_memory(memory_only))
            .collect()
    }
}
