//! `cargo xtask bench nbd`: the server beside the reference's and nbdkit, on the same image.
//!
//! The servers run alternately in one go, in another order each round; a case counts by the medians. The
//! client is fio's nbd engine, or nbdcopy for whole images. Beside the speed stands the processor time
//! that the server spent on each request.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result};
use crate::{apt, shell};

/// Size of the image in bytes.
const SIZE: u64 = 1 << 30;
/// Port of servers that listen on TCP.
const PORT: &str = "10919";
/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clock ticks of a second, as `/proc/PID/stat` counts processor time.
const TICKS: f64 = 100.0;

/// A server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Stock,
    Nbdkit,
}

const KINDS: [Kind; 3] = [Kind::Ours, Kind::Stock, Kind::Nbdkit];

/// What the client does.
#[derive(Clone, Copy)]
enum Load {
    /// fio with this pattern, block size, depth and number of connections.
    Fio(&'static str, &'static str, u32, u32),
    /// nbdcopy of the whole image to nowhere.
    Copy,
}

const LOADS: [(&str, Load); 6] = [
    ("4k read, 1 conn", Load::Fio("randread", "4k", 32, 1)),
    ("4k read, 4 conn", Load::Fio("randread", "4k", 32, 4)),
    ("4k write, 1 conn", Load::Fio("randwrite", "4k", 32, 1)),
    ("4k write, 4 conn", Load::Fio("randwrite", "4k", 32, 4)),
    ("256k read", Load::Fio("read", "256k", 8, 1)),
    ("nbdcopy", Load::Copy),
];

struct Options {
    pairs: usize,
    seconds: u32,
    ours: Option<PathBuf>,
    only: Option<String>,
}

/// One way to serve the image.
struct Setting {
    format: &'static str,
    direct: bool,
    tcp: bool,
}

/// What one run yields.
#[derive(Clone, Copy)]
struct Run {
    /// MiB a second.
    speed: f64,
    /// Processor time of the server for each MiB, in microseconds.
    cpu: f64,
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options { pairs: 3, seconds: 4, ours: None, only: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| Error::Usage(format!("{arg} needs a value")));
        let number = |text: &String| {
            text.parse()
                .ok()
                .filter(|&number: &u32| number > 0)
                .ok_or_else(|| Error::Usage(format!("{arg} takes a number above 0, not '{text}'")))
        };
        match arg.as_str() {
            "--pairs" => options.pairs = number(value()?)? as usize,
            "--seconds" => options.seconds = number(value()?)?,
            "--ours" => options.ours = Some(value()?.into()),
            "--only" => options.only = Some(value()?.clone()),
            other => return Err(Error::Usage(format!("bench nbd does not know '{other}'"))),
        }
    }
    Ok(options)
}

/// Runs the benchmark.
pub(super) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    apt::ensure(&[apt::FIO, apt::LIBNBD, apt::NBDKIT])?;
    apt::ensure_stock(&[apt::STOCK_TOOLS])?;
    let ours = if let Some(path) = &options.ours {
        fs::canonicalize(path).at(path)?
    } else {
        shell::show(shell::cargo().args(["build", "--release", "--locked", "-p", "cairn-nbd"]))?;
        shell::target().join("release/cairn-nbd")
    };
    let folder = shell::fresh_folder("bench-nbd")?;
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>7} {:>7}  {:>23}",
        "case", "ours", "stock", "nbdkit", "/stock", "/kit", "server CPU us/MiB"
    );
    for format in ["raw", "qcow2"] {
        let image = folder.join(format);
        make(&image, format)?;
        for direct in [false, true] {
            for tcp in [false, true] {
                let setting = Setting { format, direct, tcp };
                for (name, load) in LOADS {
                    let name = label(&setting, name);
                    if options.only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
                        measure(&name, &setting, load, &options, &ours, &image)?;
                    }
                }
            }
        }
        fs::remove_file(&image).at(&image)?;
    }
    Ok(())
}

fn label(setting: &Setting, load: &str) -> String {
    let cache = if setting.direct { "direct" } else { "cached" };
    let way = if setting.tcp { "tcp" } else { "unix" };
    format!("{} {cache} {way}, {load}", setting.format)
}

/// Makes an image full of data that does not compress to nothing.
fn make(image: &Path, format: &str) -> Result<()> {
    let mut create = Command::new("qemu-img");
    shell::show(create.args(["create", "-q", "-f", format]).arg(image).arg(SIZE.to_string()))?;
    let mut fill = Command::new("qemu-io");
    let commands = ["write -q -P 0x5a 0 512M", "write -q -P 0xa5 512M 512M", "flush"];
    let commands = commands.iter().flat_map(|command| ["-c", *command]);
    shell::show(fill.args(["-f", format]).args(commands).arg(image))
}

/// Measures one case with all servers and prints its line.
fn measure(
    name: &str,
    setting: &Setting,
    load: Load,
    options: &Options,
    ours: &Path,
    image: &Path,
) -> Result<()> {
    let mut runs: [Vec<Run>; 3] = Default::default();
    for round in 0..options.pairs {
        for turn in 0..KINDS.len() {
            let at = (round + turn) % KINDS.len();
            // nbdkit serves plain files only.
            if KINDS[at] == Kind::Nbdkit && (setting.format != "raw" || setting.direct) {
                continue;
            }
            let server = Server::start(KINDS[at], setting, ours, image)?;
            runs[at].push(server.run(load, options.seconds)?);
        }
    }
    let middle =
        |value: fn(&Run) -> f64| [0, 1, 2].map(|at| median(runs[at].iter().map(value).collect()));
    let (speed, cpu) = (middle(|run| run.speed), middle(|run| run.cpu));
    let mut line = format!("{name:<34}");
    for value in speed {
        let _ = write!(line, " {value:>9.1}");
    }
    let (stock, kit) = (speed[0] / speed[1], speed[0] / speed[2]);
    let _ = write!(line, " {stock:>7.2} {kit:>7.2} ");
    for value in cpu {
        let _ = write!(line, " {value:>7.0}");
    }
    println!("{line}");
    Ok(())
}

/// The median; not a number where there is nothing to measure.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A server that runs.
struct Server {
    child: Child,
    uri: String,
}

impl Server {
    fn start(kind: Kind, setting: &Setting, ours: &Path, image: &Path) -> Result<Server> {
        let socket = image.with_extension("sock");
        // It is there if a server was killed.
        let _ = fs::remove_file(&socket);
        let path = socket.to_string_lossy().into_owned();
        let mut command = match kind {
            Kind::Ours => Command::new(ours),
            Kind::Stock => Command::new("qemu-nbd"),
            Kind::Nbdkit => Command::new("nbdkit"),
        };
        if kind == Kind::Nbdkit {
            command.args(["-f", "--exit-with-parent"]);
            if setting.tcp {
                command.args(["-i", "127.0.0.1", "-p", PORT]);
            } else {
                command.args(["-U", &path]);
            }
            command.arg("file").arg(image);
        } else {
            command.args(["-t", "-e", "0", "-f", setting.format]);
            command.args(["--cache", if setting.direct { "none" } else { "writeback" }]);
            if setting.tcp {
                command.args(["-b", "127.0.0.1", "-p", PORT]);
            } else {
                command.args(["-k", &path]);
            }
            command.arg(image);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().at(command.get_program())?;
        let uri = if setting.tcp {
            format!("nbd://127.0.0.1:{PORT}")
        } else {
            format!("nbd+unix:///?socket={path}")
        };
        let server = Server { child, uri };
        let started = Instant::now();
        loop {
            let mut ask = Command::new("nbdinfo");
            ask.args(["--size", &server.uri]).stdout(Stdio::null()).stderr(Stdio::null());
            if ask.status().is_ok_and(|status| status.success()) {
                return Ok(server);
            }
            if started.elapsed() > PATIENCE {
                return Err(Error::Wrong(format!("no server at {}", server.uri)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Seconds of processor time so far: user and system, fields 14 and 15 of proc(5)'s stat.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
    }

    fn run(&self, load: Load, seconds: u32) -> Result<Run> {
        let before = self.cpu();
        let started = Instant::now();
        let mib = match load {
            Load::Copy => {
                shell::read(Command::new("nbdcopy").args([self.uri.as_str(), "null:"]))?;
                mebibytes(SIZE)
            }
            Load::Fio(pattern, block, depth, connections) => {
                let mut fio = Command::new("fio");
                fio.args(["--name=nbd", "--ioengine=nbd", "--output-format=terse", "--thread"]);
                fio.args(["--time_based", "--group_reporting", "--norandommap", "--randrepeat=0"]);
                fio.arg(format!("--uri={}", self.uri)).arg(format!("--size={SIZE}"));
                fio.arg(format!("--rw={pattern}")).arg(format!("--bs={block}"));
                fio.arg(format!("--iodepth={depth}")).arg(format!("--numjobs={connections}"));
                fio.arg(format!("--runtime={seconds}"));
                let text = shell::read(&mut fio)?;
                let line = text.lines().find(|line| line.starts_with("3;")).unwrap_or_default();
                // Kilobytes that were read and written: fields 6 and 47 of fio's terse form.
                let field = |at: usize| line.split(';').nth(at).and_then(|kb| kb.parse().ok());
                let kib: f64 = field(5).unwrap_or(0.0) + field(46).unwrap_or(0.0);
                kib / 1024.0
            }
        };
        if mib <= 0.0 {
            return Err(Error::Wrong("the client transferred nothing".to_owned()));
        }
        let (wall, cpu) = (started.elapsed().as_secs_f64(), self.cpu() - before);
        let wall = if let Load::Fio(..) = load { f64::from(seconds) } else { wall };
        Ok(Run { speed: mib / wall, cpu: cpu * 1e6 / mib })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, which the client then has told.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
