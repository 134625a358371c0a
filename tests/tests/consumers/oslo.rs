//! oslo.utils itself, which Nova, Cinder and Glance read reports with: it must see the same in an image
//! of ours as in stock's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;

/// Where `cargo xtask test` installs Python packages.
fn packages() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder above");
    let packages = target.join("python");
    assert!(
        packages.join("oslo_utils").is_dir(),
        "oslo.utils is not in {}: `cargo xtask test` installs what the tests need",
        packages.display()
    );
    packages
}

#[test]
fn oslo_utils_reads_our_images_and_reports() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consumers/oslo.py");
    let host = Host::new();
    for line in [
        "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k overlay",
        "qemu-img create -q -f qcow2 -o lazy_refcounts=on,refcount_bits=64 lazy 5M",
        "qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd base.raw packed",
        "qemu-img convert -f raw -O qcow2 -o compat=0.10 base.raw old",
        "qemu-img snapshot -c one packed",
        "qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on outside 4M",
        "qemu-img convert -f qcow2 -O raw base.qcow2 plain",
    ] {
        host.ok(line);
    }
    let luks = "--object secret,id=s,file=key -o key-secret=s,iter-time=10";
    host.run_unlimited(&format!("qemu-img create -q -f luks {luks} l 2M")).expect(0);
    for (name, expected) in [
        ("overlay", "unsafe ['backing_file']"),
        ("lazy", "file_format qcow2"),
        ("packed", "snapshot 1 one 0"),
        ("old", "inspected qcow2 3211264"),
        ("outside", "unsafe ['data_file']"),
        ("plain", "file_format raw"),
        ("l", "file_format luks"),
    ] {
        let answers = host.ok(&format!("qemu-img info --output=json {name}"));
        let [ours, stock] =
            [("ours", &answers.ours), ("stock", &answers.stock)].map(|(dir, info)| {
                let dir = host.path("..").join(dir);
                fs::write(dir.join("report"), &info.stdout).expect("a report");
                let mut python = Command::new("python3");
                python.arg(&script).args(["report", name]).current_dir(dir);
                let output = python.env("PYTHONPATH", packages()).output().expect("python3 runs");
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{name}: {errors}");
                String::from_utf8(output.stdout).expect("UTF-8")
            });
        assert_eq!(ours, stock, "{name}");
        assert!(ours.contains(expected), "{name}: {ours}");
    }
}
