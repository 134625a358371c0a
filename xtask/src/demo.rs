//! `cargo xtask demo`: a disk with a real file system goes to qcow2 and back, and is still the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_tests::sample::Disk;
use cairn_tests::tool::find_in_path;

use crate::error::{At, Error, Result};
use crate::{apt, shell};

const DISK: Disk = Disk::SMALL;

/// Runs the demonstration.
pub(crate) fn run(args: Vec<String>) -> Result<()> {
    if let Some(arg) = args.first() {
        return Err(Error::Usage(format!("`demo` takes no argument, not '{arg}'")));
    }
    apt::ensure(&[apt::E2FSPROGS])?;
    let program = shell::build_release()?;
    Demo { program, dir: shell::fresh_folder("demo")? }.show()
}

struct Demo {
    program: PathBuf,
    dir: PathBuf,
}

impl Demo {
    fn show(&self) -> Result<()> {
        let version = shell::read(self.command().arg("--version"))?;
        let binary = fs::metadata(&self.program).at(&self.program)?.len();
        println!(
            "\n{}, a binary of {}",
            version.lines().next().unwrap_or("cairn-img"),
            size(binary)
        );

        step("Make a disk with an ext4 file system, filled with files of this system");
        let disk = self.dir.join("disk.raw");
        let started = Instant::now();
        DISK.make(&disk).at(&disk)?;
        println!("  {} in {}", self.describe("disk.raw")?, seconds(started.elapsed()));

        step("Create an empty qcow2 disk of the same size");
        self.run(&format!("create -q -f qcow2 empty.qcow2 {}", DISK.size))?;
        println!("  {}", self.describe("empty.qcow2")?);

        step("Convert the disk to qcow2, plain and compressed");
        self.convert("-f raw -O qcow2 disk.raw", "disk.qcow2")?;
        self.convert("-c -o compression_type=zstd -f raw -O qcow2 disk.raw", "small.qcow2")?;

        step("Look at the compressed image");
        self.say("info small.qcow2")?;

        step("Check both images, and compare them with the disk");
        for image in ["disk.qcow2", "small.qcow2"] {
            self.say(&format!("check {image}"))?;
            self.say(&format!("compare -f raw -F qcow2 disk.raw {image}"))?;
        }

        step("Convert the compressed image back to raw");
        self.convert("-f qcow2 -O raw small.qcow2", "back.raw")?;
        self.same_bytes("disk.raw", "back.raw")?;
        println!("  disk.raw and back.raw hold the same {}", size(DISK.size));
        self.file_system("back.raw")?;
        self.stock("small.qcow2")?;
        println!("\nThe disk went to qcow2 and came back unchanged. See {}", self.dir.display());
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.dir);
        command
    }

    /// Runs the tool with `args` split at blanks, shows the command line, and returns what it said.
    fn run(&self, args: &str) -> Result<String> {
        println!("  $ cairn-img {args}");
        shell::read(self.command().args(args.split_whitespace()))
    }

    /// Runs the tool and shows what it said.
    fn say(&self, args: &str) -> Result<()> {
        let said = self.run(args)?;
        for line in said.trim_end().lines() {
            println!("    {line}");
        }
        Ok(())
    }

    /// Converts into `target` and shows its size and the rate, counted in bytes of the disk.
    fn convert(&self, args: &str, target: &str) -> Result<()> {
        let started = Instant::now();
        self.run(&format!("convert {args} {target}"))?;
        let took = started.elapsed();
        let rate = mib(DISK.size) / took.as_secs_f64().max(0.001);
        println!(
            "    {} in {} ({rate:.0} MiB of disk a second)",
            self.describe(target)?,
            seconds(took)
        );
        Ok(())
    }

    /// A file's size and what it occupies.
    fn describe(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        let data = fs::metadata(&path).at(&path)?;
        // st_blocks counts units of 512 bytes whatever the file system's block size is (stat(2)).
        Ok(format!("{name}: {}, {} on disk", size(data.len()), size(data.blocks() * 512)))
    }

    fn same_bytes(&self, left: &str, right: &str) -> Result<()> {
        shell::read(Command::new("cmp").args([left, right]).current_dir(&self.dir)).map(drop)
    }

    /// Lets the file system's own checker look at the disk.
    fn file_system(&self, disk: &str) -> Result<()> {
        shell::read(Command::new("/sbin/e2fsck").args(["-f", "-n", disk]).current_dir(&self.dir))?;
        println!("  e2fsck finds no error in the file system of {disk}");
        Ok(())
    }

    /// Lets the reference's tool check our image, where it happens to be installed.
    fn stock(&self, image: &str) -> Result<()> {
        if let Some(stock) = find_in_path("qemu-img") {
            shell::read(Command::new(stock).args(["check", image]).current_dir(&self.dir))?;
            println!("  qemu-img check accepts {image}, too");
        }
        Ok(())
    }
}

fn step(title: &str) {
    println!("\n{title}");
}

/// Bytes as MiB, exact to a KiB, for display.
fn mib(bytes: u64) -> f64 {
    let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    f64::from(kib) / 1024.0
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 {
        format!("{:.1} MiB", mib(bytes))
    } else {
        format!("{} KiB", bytes / 1024)
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
