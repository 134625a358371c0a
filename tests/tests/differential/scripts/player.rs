//! Plays a script on two equal images. Each operation is done on one image by ours and on the other by
//! stock, and the next one the other way round, so that each tool works on what the other one left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_tests::process::{Limits, Outcome};
use cairn_tests::random::Random;
use cairn_tests::tool::Tool;
use tempfile::TempDir;

use super::config::{BACKING, Config};
use super::model::{Model, usize_of};
use super::op::{BitmapChange, Fill, Op};

/// Requests that one process of an I/O exerciser does at most.
const BATCH: usize = 8;
/// Operations after which the images are looked at.
const INTERVAL: usize = 34;

/// What one process may take, so that none stays behind.
pub(crate) const LIMITS: Limits = Limits {
    address_space: None,
    cpu_seconds: Some(20),
    file_size: None,
    wall: Some(Duration::from_mins(2)),
};

/// A maker of images and its I/O exerciser.
pub(crate) struct Tools {
    /// The image tool.
    pub(crate) img: Tool,
    io: Tool,
}

/// One of the two images.
pub(crate) struct Side {
    /// The folder with its files.
    pub(crate) dir: PathBuf,
    /// Who works on it next: an index into [`Player::tools`].
    pub(crate) next: usize,
}

/// Where a script failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Number of operations that had been begun.
    pub(crate) begun: usize,
    /// What was wrong.
    pub(crate) text: String,
    /// What had been run.
    pub(crate) commands: Vec<String>,
    /// The folder with both images, which is kept until this is dropped.
    pub(crate) room: TempDir,
}

/// Two images on which a script is under way.
pub(crate) struct Player {
    pub(crate) config: Config,
    /// Ours and stock.
    pub(crate) tools: [Tools; 2],
    pub(crate) sides: [Side; 2],
    pub(crate) model: Model,
    noise: Vec<u8>,
    commands: Vec<String>,
}

/// Plays `ops` on new images.
pub(crate) fn play(config: Config, ops: &[Op]) -> Result<(), Box<Failure>> {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let room = tempfile::Builder::new().prefix("script-").tempdir_in(parent).expect("a folder");
    let mut player = Player::new(config, room.path());
    let mut begun = 0;
    match player.all(ops, &mut begun) {
        Ok(()) => Ok(()),
        Err(text) => Err(Box::new(Failure { begun, text, commands: player.commands, room })),
    }
}

impl Player {
    fn new(config: Config, room: &Path) -> Self {
        let tools = [
            Tools { img: Tool::ours(), io: Tool::ours_io() },
            Tools { img: Tool::stock(), io: Tool::stock_io() },
        ];
        let mut noise = vec![0; usize_of(config.cluster)];
        Random::new(1).fill(&mut noise);
        let mut backing = Vec::new();
        let sides = [0, 1].map(|side| {
            let dir = room.join(["a", "b"][side]);
            fs::create_dir(&dir).expect("a folder");
            fs::write(dir.join("noise"), &noise).expect("a file");
            backing = config.create(&tools[side].img, &dir);
            Side { dir, next: 1 - side }
        });
        Self {
            config,
            tools,
            sides,
            model: Model::new(config, backing),
            noise,
            commands: Vec::new(),
        }
    }

    fn all(&mut self, ops: &[Op], begun: &mut usize) -> Result<(), String> {
        let mut requests = Vec::new();
        let mut looked = 0;
        for (index, op) in ops.iter().enumerate() {
            if let Some(request) = self.request(op) {
                if !matches!(op, Op::Read(_)) {
                    self.model.touch(request.offset, request.len);
                }
                requests.push(request);
                // A read knows what to expect only after all before it.
                if requests.len() < BATCH && !matches!(ops.get(index + 1), Some(Op::Read(_))) {
                    continue;
                }
            }
            *begun = index + 1;
            self.exercise(&mut requests)?;
            self.command(op)?;
            if *begun - looked >= INTERVAL {
                looked = *begun;
                self.look(false)?;
            }
        }
        *begun = ops.len();
        self.exercise(&mut requests)?;
        self.look(true)
    }

    /// The exerciser's command for `op`, if it is a request that the disk has room for.
    fn request(&self, op: &Op) -> Option<Request> {
        let (size, cluster) = (self.model.size(), self.config.cluster);
        let request = |text: String, offset, len, effect| {
            Some(Request { text: format!("{text} {offset} {len}"), offset, len, effect })
        };
        match *op {
            Op::Write(span, fill) => {
                let (offset, len) = span.on(size, cluster);
                request(format!("write {}", source(fill)), offset, len, Effect::Write(fill))
            }
            Op::Compressed(span, fill) => {
                let (offset, _) = span.on(size, cluster);
                let effect = Effect::Write(fill);
                let fits = offset + cluster <= size && self.model.is_compressible(offset);
                fits.then(|| {
                    request(format!("write -c {}", source(fill)), offset, cluster, effect)
                })?
            }
            Op::Zero { span, unmap } => {
                let (offset, len) = span.on(size, cluster);
                let flags = if unmap { "-z -u" } else { "-z" };
                request(format!("write {flags}"), offset, len, Effect::Write(Fill::Byte(0)))
            }
            Op::Discard(span) => {
                let (offset, len) = span.on(size, cluster);
                request("discard".to_owned(), offset, len, Effect::Discard)
            }
            Op::Read(span) => {
                let (offset, len) = span.on(size, cluster);
                let (byte, len) = self.model.run(offset, len);
                request(format!("read -P {byte}"), offset, len, Effect::None)
            }
            _ => None,
        }
    }

    /// Sends the requests to both images and empties the list.
    fn exercise(&mut self, requests: &mut Vec<Request>) -> Result<(), String> {
        if requests.is_empty() {
            return Ok(());
        }
        let mut args = vec!["-d".to_owned(), "unmap".to_owned()];
        args.extend(requests.iter().flat_map(|r| ["-c".to_owned(), r.text.clone()]));
        args.extend(self.config.target());
        let outcomes = self.both(&args, |tools| &tools.io)?;
        let [left, right] = outcomes.each_ref().map(results);
        if left != right || left.len() != requests.len() {
            return Err(format!("results differ: {left:?} and {right:?}"));
        }
        for (request, result) in requests.drain(..).zip(left) {
            if result.contains("failed") {
                if matches!(request.effect, Effect::None) {
                    return Err(format!("{}: {result}", request.text));
                }
                continue;
            }
            let Request { offset, len, effect, .. } = request;
            match effect {
                Effect::None => {}
                Effect::Discard => self.model.discard(offset, len),
                Effect::Write(Fill::Byte(byte)) => self.model.fill(offset, len, byte),
                Effect::Write(Fill::Noise) => self.model.write(offset, len, &self.noise),
            }
        }
        Ok(())
    }

    /// Does `op` with the image tools, if it is one for them and possible now.
    #[expect(clippy::collapsible_match, reason = "guards run no commands")]
    fn command(&mut self, op: &Op) -> Result<(), String> {
        let has_snapshots = !self.model.snapshots.is_empty();
        match *op {
            // A second snapshot of that name would be allowed, but not be found.
            Op::CreateSnapshot(name) if !self.model.snapshots.iter().any(|(n, _)| *n == name) => {
                if self.img("snapshot", &["-c", name], &[])? {
                    self.model.create_snapshot(name);
                }
            }
            // Stock refuses that while there are bitmaps; ours notes in them that all is changed.
            Op::ApplySnapshot(name) if self.model.bitmaps.is_empty() => {
                if self.img("snapshot", &["-a", name], &[])? {
                    self.model.apply_snapshot(name);
                }
            }
            Op::DeleteSnapshot(name) => {
                if self.img("snapshot", &["-d", name], &[])? {
                    self.model.delete_snapshot(name);
                }
            }
            Op::Bitmap(name, change) => {
                let options: &[&str] = match change {
                    BitmapChange::Add { granularity, disabled: false } => {
                        &["--add", "-g", granularity]
                    }
                    BitmapChange::Add { granularity, disabled: true } => {
                        &["--add", "--disable", "-g", granularity]
                    }
                    BitmapChange::Remove => &["--remove"],
                    BitmapChange::Enable => &["--enable"],
                    BitmapChange::Disable => &["--disable"],
                    BitmapChange::Clear => &["--clear"],
                    BitmapChange::Merge(other) => &["--merge", other],
                };
                if self.img("bitmap", options, &[name])? {
                    match change {
                        BitmapChange::Add { .. } => drop(self.model.bitmaps.insert(name)),
                        BitmapChange::Remove => drop(self.model.bitmaps.remove(name)),
                        _ => {}
                    }
                }
            }
            Op::Resize { size, preallocation } => {
                // Stock leaves old data behind the end, inside the last cluster, and shows it again when it
                // makes the disk larger.
                let before = self.model.size();
                let shrinks = size < before;
                let size = if shrinks { size.next_multiple_of(self.config.cluster) } else { size };
                let text = size.to_string();
                let mut options = vec!["-q", "--shrink"];
                options
                    .extend(preallocation.into_iter().flat_map(|kind| ["--preallocation", kind]));
                if self.img("resize", &options, &[&text])? {
                    self.model.resize(size);
                    if preallocation.is_some_and(|kind| kind != "off") && size > before {
                        self.model.touch(0, size);
                        // Stock shows what was in the storage before.
                        let (offset, len) = (before, size - before);
                        let effect = Effect::Write(Fill::Byte(0));
                        let text = format!("write -z {offset} {len}");
                        self.exercise(&mut vec![Request { text, offset, len, effect }])?;
                    }
                }
            }
            // Stock goes to version 2 without bitmaps or compression that it does not know; ours refuses.
            Op::Amend("compat=0.10")
                if !self.model.bitmaps.is_empty() || self.config.options.contains("zstd") => {}
            // With clusters of 2 MiB stock does not come to an end with wider refcounts.
            Op::Amend(options)
                if self.config.cluster < 2 << 20 || !options.contains("refcount") =>
            {
                if self.img("amend", &["-o", options], &[])? {
                    self.model.amend(options);
                }
            }
            // Snapshots show what is below where they hold nothing, so they would change.
            Op::Commit { keep } if !has_snapshots => {
                let options: &[_] = if keep { &["-q", "-d"] } else { &["-q"] };
                if self.img("commit", options, &[])? {
                    self.model.commit();
                }
            }
            Op::Rebase(name) if !has_snapshots => {
                let done = match name {
                    Some(name) => {
                        let format = Config::backing_format(name);
                        self.img("rebase", &["-b", name, "-F", format], &[])?
                    }
                    None => self.img("rebase", &["-b", ""], &[])?,
                };
                if done {
                    self.model.rebase(name);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Runs a command of the image tools on both images. Returns whether it succeeded.
    fn img(&mut self, command: &str, options: &[&str], rest: &[&str]) -> Result<bool, String> {
        let mut args = vec![command.to_owned()];
        args.extend(options.iter().map(|option| (*option).to_owned()));
        args.extend(self.config.target());
        args.extend(rest.iter().map(|word| (*word).to_owned()));
        let [left, _] = self.both(&args, |tools| &tools.img)?;
        Ok(left.code() == Some(0))
    }

    /// Runs a program of each tool on the image whose turn it is. Both must end alike.
    fn both(
        &mut self,
        args: &[String],
        program: impl Fn(&Tools) -> &Tool,
    ) -> Result<[Outcome; 2], String> {
        let mut outcomes = Vec::new();
        for side in &mut self.sides {
            let tool = program(&self.tools[side.next]);
            side.next = 1 - side.next;
            self.commands.push(shown(&side.dir, tool, args));
            outcomes.push((tool.name, tool.run_with(&side.dir, args, LIMITS)));
        }
        let [(first, left), (second, right)]: [_; 2] =
            outcomes.try_into().expect("there are two sides");
        if left.code() != right.code() || left.code().is_none() {
            return Err(format!(
                "{first}: {}: {}{}\n{second}: {}: {}{}",
                left.status,
                left.out(),
                left.err(),
                right.status,
                right.out(),
                right.err()
            ));
        }
        for (name, outcome) in [(first, &left), (second, &right)] {
            if outcome.code() == Some(0) && name.starts_with("ours") && !outcome.stderr.is_empty() {
                return Err(format!("noise on standard error: {}", outcome.err()));
            }
        }
        Ok([left, right])
    }

    /// What the file of [`BACKING`] with this number must hold, and how to name it to a tool.
    pub(crate) fn backing(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        BACKING.into_iter().zip(self.model.backing.iter().map(Vec::as_slice))
    }
}

/// One command of an I/O exerciser, and what it does to the disk.
struct Request {
    text: String,
    offset: u64,
    len: u64,
    effect: Effect,
}

enum Effect {
    None,
    Discard,
    Write(Fill),
}

/// Options of a write for what is written.
fn source(fill: Fill) -> String {
    match fill {
        Fill::Byte(byte) => format!("-P {byte}"),
        Fill::Noise => "-s noise".to_owned(),
    }
}

/// The line with the result of each request; lines with times are left out.
fn results(outcome: &Outcome) -> Vec<String> {
    outcome.out().lines().filter(|line| !line.contains(" ops; ")).map(str::to_owned).collect()
}

/// A command line that can be run by hand.
fn shown(dir: &Path, tool: &Tool, args: &[String]) -> String {
    let quoted = args.iter().map(|arg| {
        let plain = !arg.is_empty() && !arg.contains(' ');
        if plain { arg.clone() } else { format!("'{arg}'") }
    });
    let folder = dir.file_name().unwrap_or_default().display();
    let program = tool.path().file_name().unwrap_or_default().display();
    format!("(cd {folder}; {program} {})", quoted.collect::<Vec<_>>().join(" "))
}

/// The first place where `found` is not `expected`.
pub(crate) fn difference(found: &[u8], expected: &[u8]) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} bytes, not {}", found.len(), expected.len()));
    }
    // Comparing slices is far faster than comparing bytes, in builds for tests.
    if found == expected {
        return None;
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b)?;
    Some(format!("byte {at:#x} is {:#x}, not {:#x}", found[at], expected[at]))
}
