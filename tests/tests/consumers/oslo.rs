//! oslo.utils itself, which Nova, Cinder and Glance read reports with: it must see the same in an image
//! of ours as in stock's.

use std::fs;

use crate::host::Host;
use crate::python;

#[test]
fn oslo_utils_reads_our_images_and_reports() {
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
                let mut script = python::script("oslo.py", "oslo_utils");
                python::output(script.args(["report", name]).current_dir(dir))
            });
        assert_eq!(ours, stock, "{name}");
        assert!(ours.contains(expected), "{name}: {ours}");
    }
}
