//! Images that refer to other files, or to themselves.

use std::fs;
use std::path::Path;

use cairn_tests::process::Limits;
use cairn_tests::qcow2::{Builder, EXT_BACKING_FORMAT, EXT_DATA_FILE, INCOMPATIBLE_DATA_FILE};
use cairn_tests::tool::Tool;

use crate::limits::{refuses, survives};

const SECRET: &[u8] = b"what only the host may read and write\n";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn overlay(dir: &Path, name: &str, backing: &str) {
    let mut image = Builder::new();
    image.extension(EXT_BACKING_FORMAT, b"qcow2").backing(backing);
    fs::write(dir.join(name), image.bytes()).expect("an image");
}

/// Commands that open the whole chain.
const DEEP: [&str; 4] = [
    "map --output=json disk",
    "convert -O raw disk output",
    "compare disk disk",
    "info --backing-chain disk",
];

#[test]
fn an_image_that_backs_itself() {
    let dir = folder();
    overlay(dir.path(), "disk", "disk");
    for command in DEEP {
        refuses(dir.path(), command);
    }
    survives(dir.path(), "check disk");
    let info = survives(dir.path(), "info --output=json disk");
    assert_eq!(info.code(), Some(0), "info looks at one image only: {}", info.excerpt());
}

#[test]
fn an_image_that_backs_itself_under_other_names() {
    let dir = folder();
    overlay(dir.path(), "disk", "./link");
    std::os::unix::fs::symlink("disk", dir.path().join("link")).expect("a link");
    for command in DEEP {
        refuses(dir.path(), command);
    }
}

#[test]
fn three_images_that_back_each_other() {
    let dir = folder();
    overlay(dir.path(), "disk", "second");
    overlay(dir.path(), "second", "third");
    overlay(dir.path(), "third", "disk");
    for command in DEEP {
        refuses(dir.path(), command);
    }
    survives(dir.path(), "check disk");
}

#[test]
fn a_chain_of_two_hundred_overlays_still_works() {
    let dir = folder();
    let stock = Tool::stock();
    let create = |name: &str, rest: &str| {
        stock.ok(
            dir.path(),
            &format!("create -q -f qcow2 -u -o cluster_size=512 {rest} {name} 64k"),
        );
    };
    create("0", "");
    let filled = ["-f", "qcow2", "-c", "write -P 5 4k 8k", "0"];
    let io = Tool::stock_io().run_with(dir.path(), filled, Limits::default());
    assert_eq!(io.code(), Some(0), "{}", io.err());
    for depth in 1..200 {
        create(&depth.to_string(), &format!("-b {} -F qcow2", depth - 1));
    }
    let done = survives(dir.path(), "convert -f qcow2 -O raw 199 output");
    assert_eq!(done.code(), Some(0), "{}", done.err());
    let bytes = fs::read(dir.path().join("output")).expect("the output");
    assert!(bytes[4096..12288].iter().all(|byte| *byte == 5));
    assert!(bytes[..4096].iter().chain(&bytes[12288..]).all(|byte| *byte == 0));
}

#[test]
fn a_backing_file_that_nobody_writes_to() {
    let dir = folder();
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status();
    assert!(made.expect("mkfifo runs").success());
    overlay(dir.path(), "disk", "pipe");
    for command in DEEP {
        refuses(dir.path(), command);
    }
}

/// Neither reading nor checking an image may change the host file it names, and `info` does not open it.
#[test]
fn a_data_file_that_is_a_file_of_the_host() {
    let dir = folder();
    let host = dir.path().join("host");
    fs::write(&host, SECRET).expect("a file");
    let plain = host.display().to_string();
    let nested = format!(r#"json:{{"driver":"file","filename":"{plain}"}}"#);
    for name in [plain.as_str(), &nested] {
        let mut image = Builder::new();
        image.incompatible(INCOMPATIBLE_DATA_FILE).extension(EXT_DATA_FILE, name.as_bytes());
        fs::write(dir.path().join("disk"), image.bytes()).expect("an image");
        let commands = [
            "info disk",
            "check disk",
            "map disk",
            "convert -O raw disk output",
            "check -r all disk",
        ];
        for command in commands {
            survives(dir.path(), command);
            assert_eq!(fs::read(&host).expect("the file"), SECRET, "{command} changed {name}");
        }
    }
}

#[test]
fn info_opens_no_file_that_the_image_names() {
    let dir = folder();
    overlay(dir.path(), "disk", "/nonexistent/backing");
    let info = survives(dir.path(), "info --output=json disk");
    assert_eq!(info.code(), Some(0), "{}", info.excerpt());
    let mut image = Builder::new();
    image.incompatible(INCOMPATIBLE_DATA_FILE).extension(EXT_DATA_FILE, b"/nonexistent/data");
    fs::write(dir.path().join("disk"), image.bytes()).expect("an image");
    let info = survives(dir.path(), "info --output=json disk");
    assert_eq!(
        info.code(),
        Tool::stock().run(dir.path(), "info disk").code(),
        "{}",
        info.excerpt()
    );
}

#[test]
fn an_image_that_is_its_own_data_file() {
    let dir = folder();
    let mut image = Builder::new();
    image.incompatible(INCOMPATIBLE_DATA_FILE).extension(EXT_DATA_FILE, b"disk");
    fs::write(dir.path().join("disk"), image.bytes()).expect("an image");
    for command in ["info disk", "check disk", "map disk", "convert -O raw disk output"] {
        survives(dir.path(), command);
    }
    assert_eq!(fs::read(dir.path().join("disk")).expect("the image"), image.bytes());
}
