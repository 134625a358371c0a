//! Real disks both ways: a disk with an ext4 file system made from files of this system, and a bootable CD
//! image from a Debian package, go to every kind of qcow2 and back.
//!
//! The disk has 256 MiB; with `CAIRN_TEST_FULL` in the environment (`cargo xtask test --full`) 6 GiB.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use cairn_tests::process::Limits;
use cairn_tests::sample::Disk;
use cairn_tests::tool::Tool;

const RESCUE_ISO: &str = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso";

/// Where a disk comes from.
#[derive(Clone, Copy)]
enum Input {
    Ext4,
    Iso,
}

impl Input {
    fn path(self) -> PathBuf {
        match self {
            Input::Ext4 => {
                let full = env::var_os("CAIRN_TEST_FULL").is_some();
                let disk = if full { Disk::FULL } else { Disk::SMALL };
                disk.cached(Path::new(env!("CARGO_TARGET_TMPDIR")))
                    .expect("the sample disk can be made")
            }
            Input::Iso => {
                let path = PathBuf::from(RESCUE_ISO);
                assert!(path.exists(), "grub-rescue-pc is missing: `cargo xtask test` installs it");
                path
            }
        }
    }
}

/// Declares the tests of one kind of qcow2: the options that convert to it.
macro_rules! kinds {
    ($($name:ident: $options:literal;)+) => {
        $(
            mod $name {
                use super::{Input, there_and_back};

                #[test]
                fn ext4() {
                    there_and_back(Input::Ext4, $options);
                }

                #[test]
                fn iso() {
                    there_and_back(Input::Iso, $options);
                }
            }
        )+
    };
}

kinds! {
    version_2: "-o compat=0.10";
    version_3: "-o compat=1.1";
    extended_l2: "-o extended_l2=on";
    zlib: "-c";
    zstd: "-c -o compression_type=zstd";
    data_file: "-o data_file=image.data";
    raw_data_file: "-o data_file=image.data,data_file_raw=on";
    clusters_of_512_bytes: "-o cluster_size=512";
    clusters_of_2_mib: "-o cluster_size=2M";
}

/// Each tool converts the disk to qcow2; both tools accept each result, and ours converts it back.
#[track_caller]
fn there_and_back(input: Input, options: &str) {
    let (stock, ours) = (Tool::stock(), Tool::ours());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let dir = dir.path();
    link(&input.path(), dir);
    for maker in [&ours, &stock] {
        maker.ok(dir, &format!("convert -f raw -O qcow2 {options} disk image"));
        accepted(dir, &[&stock, &ours]);
        ours.ok(dir, "convert -f qcow2 -O raw image back");
        stock.ok(dir, "compare -f raw -F raw disk back");
        let sizes =
            ["disk", "back"].map(|name| fs::metadata(dir.join(name)).expect("a file").len());
        assert_eq!(sizes[0], sizes[1], "the size of the disk changed");
        for name in ["image", "image.data", "back"] {
            let _ = fs::remove_file(dir.join(name));
        }
    }
}

/// An overlay takes changes; its backing file stays as it was, and both together are read as one disk.
#[track_caller]
fn overlay_there_and_back(input: Input) {
    let (stock, ours) = (Tool::stock(), Tool::ours());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let dir = dir.path();
    link(&input.path(), dir);
    for maker in [&ours, &stock] {
        maker.ok(dir, "convert -f raw -O qcow2 disk base");
        maker.ok(dir, "create -q -f qcow2 -b base -F qcow2 image");
        accepted(dir, &[&stock, &ours]);
        let change =
            ["-f", "qcow2", "-c", "write -P 0x5a 1M 3000k", "-c", "write -z 4200k 64k", "image"];
        let changed = Tool::stock_io().run_with(dir, change, Limits::default());
        assert_eq!(changed.code(), Some(0), "{}", changed.err());
        for tool in [&stock, &ours] {
            tool.ok(dir, "check image");
            tool.ok(dir, "compare -f raw -F qcow2 disk base");
            assert_eq!(tool.run(dir, "compare -f raw -F qcow2 disk image").code(), Some(1));
        }
        ours.ok(dir, "convert -f qcow2 -O raw image back");
        stock.ok(dir, "compare -f raw -F qcow2 back image");
        maker.ok(dir, "convert -O qcow2 -B base -F qcow2 image copy");
        for tool in [&stock, &ours] {
            tool.ok(dir, "check copy");
            tool.ok(dir, "compare -f raw -F qcow2 back copy");
        }
        for name in ["image", "base", "copy", "back"] {
            fs::remove_file(dir.join(name)).expect("the file was made");
        }
    }
}

#[test]
fn overlay_on_ext4() {
    overlay_there_and_back(Input::Ext4);
}

#[test]
fn overlay_on_iso() {
    overlay_there_and_back(Input::Iso);
}

/// Makes the input available as `disk` in `dir`.
fn link(input: &Path, dir: &Path) {
    std::os::unix::fs::symlink(input, dir.join("disk")).expect("a link");
}

/// Every tool finds `image` without errors and identical to `disk`.
#[track_caller]
fn accepted(dir: &Path, tools: &[&Tool]) {
    for tool in tools {
        tool.ok(dir, "check -f qcow2 image");
        tool.ok(dir, "compare -f raw -F qcow2 disk image");
    }
}
