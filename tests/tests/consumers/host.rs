//! Two folders with equal images, and `qemu-img` in each: ours in one, stock in the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cairn_tests::json::Json;
use cairn_tests::pattern;
use cairn_tests::process::{self, Limits, Outcome};
use cairn_tests::tool::Tool;
use tempfile::TempDir;

use crate::python;

/// The narrowest limits that a consumer sets.
const LIMITS: Limits = Limits {
    address_space: Some(1 << 30),
    cpu_seconds: Some(2),
    file_size: None,
    wall: Some(Duration::from_mins(1)),
};

/// Members of reports that differ between equal images: what a file system allocates, when and where
/// something was made, and what is random.
const NOISE: [&str; 10] = [
    "actual-size",
    "children",
    "date-sec",
    "date-nsec",
    "fragmented-clusters",
    "image-end-offset",
    "iters",
    "master-key-iters",
    "offset",
    "uuid",
];

/// Size of the disks that every [`Host`] starts with, in bytes.
pub(crate) const SIZE: u64 = (3 << 20) + 64 * 1024;
/// The passphrase in the file `key`.
const PASSPHRASE: &str = "letmein";

/// Folders that hold `base.raw`, `base.qcow2` with the same content, the overlay `over.qcow2` of it, and
/// a file `key` with a passphrase.
pub(crate) struct Host {
    room: TempDir,
}

/// How both programs ended.
pub(crate) struct Answers {
    line: String,
    pub(crate) ours: Outcome,
    pub(crate) stock: Outcome,
}

impl Host {
    /// New folders.
    pub(crate) fn new() -> Host {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let room = tempfile::Builder::new().prefix("host-").tempdir_in(parent).expect("a folder");
        let stock = Tool::stock();
        for (name, program) in [("ours", Tool::ours()), ("stock", stock.clone())] {
            let dir = room.path().join(name);
            fs::create_dir_all(dir.join("bin")).expect("a folder");
            let link = dir.join("bin/qemu-img");
            std::os::unix::fs::symlink(program.path(), link).expect("a link");
            pattern::write_mixed(&dir.join("base.raw"), SIZE, 11).expect("a disk");
            fs::write(dir.join("key"), PASSPHRASE).expect("a file");
            stock.ok(&dir, "convert -f raw -O qcow2 base.raw base.qcow2");
            stock.ok(&dir, "create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2");
            let write = ["-f", "qcow2", "-c", "write -q -P 7 100k 300k", "over.qcow2"];
            let written = Tool::stock_io().run_with(&dir, write, Limits::default());
            assert_eq!(written.code(), Some(0), "{}", written.err());
        }
        Host { room }
    }

    /// Path of a file in our folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.room.path().join("ours").join(name)
    }

    /// Runs a command line of the shell in both folders, with `qemu-img` first in the search path.
    pub(crate) fn run(&self, line: &str) -> Answers {
        self.run_under(LIMITS, line)
    }

    /// The same without limits: the command line sets its own, or makes a key, which is slow by design.
    pub(crate) fn run_unlimited(&self, line: &str) -> Answers {
        self.run_under(Limits::default(), line)
    }

    fn run_under(&self, limits: Limits, line: &str) -> Answers {
        let ours = self.run_in("ours", limits, line);
        // Under the limits stock fails now and then, when it wants many threads at once.
        let stock = self.run_in("stock", Limits::default(), line);
        Answers { line: line.to_owned(), ours, stock }
    }

    /// Runs a command line in our folder alone, for what stock does not have. It must work silently.
    #[track_caller]
    pub(crate) fn ours(&self, line: &str) -> Outcome {
        let ours = self.run_in("ours", LIMITS, line);
        assert!(ours.code() == Some(0) && ours.stderr.is_empty(), "{line}: {}", ours.err());
        ours
    }

    fn run_in(&self, name: &str, limits: Limits, line: &str) -> Outcome {
        let dir = self.room.path().join(name);
        let path = python::search_path(dir.join("bin"));
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec {line}")]).current_dir(&dir);
        command.env("PATH", path).env("LC_ALL", "C").env("LANG", "C").env("TZ", "UTC");
        process::capture(&mut command, limits).expect("the shell runs")
    }

    /// Runs a command line that must work.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> Answers {
        let answers = self.run(line);
        answers.expect(0);
        answers
    }

    /// Runs a command line that must work and print what stock prints.
    #[track_caller]
    pub(crate) fn text(&self, line: &str) -> String {
        let answers = self.ok(line);
        let [ours, stock] = [&answers.ours, &answers.stock].map(|outcome| quiet(&outcome.out()));
        assert_eq!(ours, stock, "{line}");
        ours
    }

    /// Runs a command line that must print the JSON that stock prints.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Json {
        let answers = self.ok(line);
        let [ours, stock] = [&answers.ours, &answers.stock].map(|outcome| {
            Json::parse(&outcome.out()).unwrap_or_else(|e| panic!("{line}: {e}: {}", outcome.out()))
        });
        let differences = stock.differences(&ours, &NOISE);
        assert!(differences.is_empty(), "{line}: {}", differences.join("; "));
        ours
    }

    /// Both folders' files `name`, as qcow2 or raw, must hold what `base.raw` with `edits` holds.
    #[track_caller]
    pub(crate) fn holds(&self, name: &str, format: &str, like: &str) {
        for dir in ["ours", "stock"] {
            let dir = self.room.path().join(dir);
            let args = format!("compare -f {format} -F raw {name} {like}");
            let said = Tool::stock().ok(&dir, &args);
            assert!(said.contains("Images are identical."), "{name}: {said}");
        }
    }
}

impl Answers {
    /// Both must have ended with `code`; where stock is silent on standard error, so must ours be.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32) -> &Answers {
        let Answers { line, ours, stock } = self;
        assert_eq!(stock.code(), Some(code), "stock: {line}: {}", stock.err());
        assert_eq!(ours.code(), Some(code), "{line}: {}", ours.err());
        if stock.stderr.is_empty() {
            assert_eq!(ours.err(), "", "{line}");
        }
        self
    }

    /// Both must have ended with `code` and said `text` on standard error.
    #[track_caller]
    pub(crate) fn complains(&self, code: i32, text: &str) {
        self.expect(code);
        for outcome in [&self.ours, &self.stock] {
            assert!(outcome.err().contains(text), "{}: {}", self.line, outcome.err());
        }
    }

    /// Percentages in what both printed, found as consumers do, by `(N.NN/100%)`. Both must have some, in
    /// order, up to the whole.
    #[track_caller]
    pub(crate) fn shows_progress(&self) {
        for outcome in [&self.ours, &self.stock] {
            let out = outcome.out();
            let percentages: Vec<f64> = out
                .split('(')
                .filter_map(|rest| rest.split_once("/100%)")?.0.parse().ok())
                .collect();
            assert!(percentages.is_sorted(), "{}: {out:?}", self.line);
            assert_eq!(percentages.last(), Some(&100.0), "{}: {out:?}", self.line);
        }
    }
}

/// A report without the lines that show how many blocks a file occupies.
fn quiet(report: &str) -> String {
    let lines = report.split_inclusive('\n').filter(|line| !line.starts_with("disk size:"));
    lines.collect()
}

/// The number `name` of a report.
#[track_caller]
pub(crate) fn number(report: &Json, name: &str) -> u64 {
    let number = report.field(name).and_then(Json::integer);
    number.unwrap_or_else(|| panic!("no number '{name}' in {report:?}"))
}

/// The text `name` of a report, if there is one.
pub(crate) fn text<'j>(report: &'j Json, name: &str) -> Option<&'j str> {
    match report.field(name) {
        Some(Json::Text(text)) => Some(text),
        _ => None,
    }
}

/// What `name` says in the part of a report that is the format's own.
pub(crate) fn specific<'j>(report: &'j Json, name: &str) -> Option<&'j Json> {
    report.field("format-specific")?.field("data")?.field(name)
}
