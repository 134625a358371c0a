//! `cargo xtask bench user`: programs of another architecture beside the reference's user-mode tool.
//!
//! The kernels are compiled for RISC-V and for the host. Both emulators run them alternately, each pair in the other order
//! than the last, ours once more without regions; a kernel counts by its own processor time, which is that of the compiler of
//! regions, too, and by the median of the pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::error::{At, Error, Result};
use crate::{apt, shell};

const REFERENCE: &str = "qemu-riscv64";
const COMPILER: &str = "riscv64-linux-gnu-gcc";
/// Runs of a short program that are timed together.
const SHORT_RUNS: u32 = 5;

struct Options {
    pairs: usize,
    /// How much longer the kernels run.
    scale: u32,
    ours: Option<PathBuf>,
    /// Where Debian's python3 for RISC-V is unpacked.
    sysroot: Option<PathBuf>,
}

/// Milliseconds and checksum of each kernel.
type Times = BTreeMap<String, (f64, String)>;

/// Runs the benchmark.
pub(super) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    apt::ensure(&[apt::RISCV_COMPILER])?;
    apt::ensure_stock(&[apt::STOCK_TOOLS, apt::STOCK_USER])?;
    let ours = if let Some(path) = options.ours {
        std::fs::canonicalize(&path).at(&path)?
    } else {
        shell::show(shell::cargo().args(["build", "--release", "--locked", "-p", "cairn-user"]))?;
        shell::target().join("release/cairn-user")
    };
    let folder = shell::target().join("bench-user");
    std::fs::create_dir_all(&folder).at(&folder)?;
    let source = shell::root().join("vmm/user/benches/kernels.c");
    let (guest, native) = (folder.join("kernels-riscv64"), folder.join("kernels"));
    for (compiler, output) in [(COMPILER, &guest), ("cc", &native)] {
        let mut command = Command::new(compiler);
        shell::show(command.args(["-O2", "-static", "-o"]).arg(output).arg(&source))?;
    }

    let natively = kernels(&native, &[], None, options.scale)?;
    let mut pairs: Vec<[Times; 3]> = Vec::new();
    for pair in 0..options.pairs {
        let run = |emulator: &Path, arguments: &[&str]| {
            kernels(emulator, arguments, Some(&guest), options.scale)
        };
        let stock = || run(Path::new(REFERENCE), &[]);
        let units = run(&ours, &["-accel", "tcg,jit=t1"])?;
        pairs.push(if pair % 2 == 0 {
            let stock = stock()?;
            [stock, run(&ours, &[])?, units]
        } else {
            let ours = run(&ours, &[])?;
            [stock()?, ours, units]
        });
    }
    println!(
        "{:<12} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "kernel", "native ms", "stock ms", "units ms", "ours ms", "ratio"
    );
    let mut product = 0.0;
    for (name, (native, sum)) in &natively {
        let column = |tool: usize| -> Vec<f64> {
            pairs.iter().filter_map(|pair| Some(pair[tool].get(name)?.0)).collect()
        };
        let wrong = pairs.iter().flatten().any(|times| times.get(name).map(|t| &t.1) != Some(sum));
        if wrong {
            return Err(Error::Wrong(format!("the checksum of {name} is not {sum} everywhere")));
        }
        let ratios = pairs.iter().map(|pair| pair[0][name].0 / pair[1][name].0).collect();
        let [stock, ours, units] = [0, 1, 2].map(|tool| median(column(tool)));
        let ratio = median(ratios);
        product += ratio.ln();
        println!("{name:<12} {native:>10.1} {stock:>10.1} {units:>10.1} {ours:>10.1} {ratio:>8.2}");
    }
    #[allow(clippy::cast_precision_loss)]
    let count = natively.len() as f64;
    println!("{:<12} {:>53.2}", "geomean", (product / count).exp());
    if let Some(sysroot) = options.sysroot {
        let python = sysroot.join("usr/bin/python3");
        let mut ratios = Vec::new();
        for _ in 0..options.pairs {
            let time = |emulator: &Path| -> Result<f64> {
                let start = Instant::now();
                for _ in 0..SHORT_RUNS {
                    let mut command = Command::new(emulator);
                    command.arg("-L").arg(&sysroot).arg(&python).args(["-c", "pass"]);
                    shell::read(&mut command)?;
                }
                Ok(start.elapsed().as_secs_f64())
            };
            ratios.push(time(Path::new(REFERENCE))? / time(&ours)?);
        }
        println!("{:<12} {:>53.2}", "python3", median(ratios));
    }
    Ok(())
}

/// Runs all kernels, natively or under an emulator.
fn kernels(program: &Path, arguments: &[&str], guest: Option<&Path>, scale: u32) -> Result<Times> {
    let mut command = Command::new(program);
    command.args(arguments).args(guest).arg(scale.to_string());
    let text = shell::read(&mut command)?;
    let mut times = Times::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(time), Some(sum)) = (words.next(), words.next(), words.next())
            && let Ok(time) = time.parse()
        {
            times.insert(name.to_owned(), (time, sum.to_owned()));
        }
    }
    Ok(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `[--pairs N] [--scale N] [--ours FILE] [--sysroot DIR]`
fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options { pairs: 5, scale: 1, ours: None, sysroot: None };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| Error::Usage(format!("{word} needs a value")))?;
        match word.as_str() {
            "--pairs" => {
                options.pairs = value.parse().ok().filter(|pairs| *pairs > 0).ok_or_else(|| {
                    Error::Usage(format!("--pairs takes a number, not '{value}'"))
                })?;
            }
            "--scale" => {
                options.scale = value.parse().ok().filter(|scale| *scale > 0).ok_or_else(|| {
                    Error::Usage(format!("--scale takes a number, not '{value}'"))
                })?;
            }
            "--ours" => options.ours = Some(value.into()),
            "--sysroot" => options.sysroot = Some(value.into()),
            _ => return Err(Error::Usage(format!("`bench user` does not know '{word}'"))),
        }
    }
    Ok(options)
}
