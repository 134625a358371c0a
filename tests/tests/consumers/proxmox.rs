//! Proxmox VE's storage library.

use crate::host::{Host, SIZE, number, text};

#[test]
fn volumes_are_made() {
    let host = Host::new();
    host.text("qemu-img create -F qcow2 -b base.qcow2 -f qcow2 -o extended_l2=on,cluster_size=128k linked");
    host.text("qemu-img create -o preallocation=metadata -f qcow2 disk.qcow2 4096K");
    let info = host.json("qemu-img info --output=json linked -f qcow2");
    assert_eq!(text(&info, "backing-filename"), Some("base.qcow2"));
    assert_eq!((text(&info, "format"), number(&info, "virtual-size")), (Some("qcow2"), SIZE));
    assert!(number(&info, "actual-size") > 0);
    let chain = host.json("qemu-img info --output=json linked -f qcow2 --backing-chain");
    assert_eq!(chain.elements().len(), 2);
    for options in ["", "-o extended_l2=on,cluster_size=128k"] {
        let line = format!("qemu-img measure --output=json --size 4096K -O qcow2 {options}");
        assert!(number(&host.json(&line), "fully-allocated") > 4 << 20);
    }
}

#[test]
fn volumes_are_copied_with_progress() {
    let host = Host::new();
    host.ok("qemu-img snapshot -c snap1 base.qcow2");
    host.ok(&format!("qemu-img create -q -f raw target {SIZE}"));
    for line in [
        "qemu-img convert -p -n -l snapshot.name=snap1 -f qcow2 -O raw base.qcow2 target",
        "qemu-img convert -p -n -f qcow2 -O raw -t none base.qcow2 target",
        "qemu-img convert -p -n -T none -f qcow2 -O raw base.qcow2 target",
        "qemu-img convert -p -n -r 1000000K -f qcow2 -O raw base.qcow2 target",
        "qemu-img convert -p -n -f qcow2 --target-image-opts base.qcow2 \
         driver=raw,file.driver=file,file.filename=target",
    ] {
        host.ok(line).shows_progress();
        host.holds("target", "raw", "base.raw");
    }
}

/// The filter that Proxmox adds to its `qemu-img`: the target is new, so zeroes need no writing.
#[test]
fn new_volumes_are_zero() {
    let host = Host::new();
    host.ok(&format!("qemu-img create -q -f raw target {SIZE}"));
    host.ours("qemu-img convert -p -n -f qcow2 -O raw base.qcow2 zeroinit:target");
    let copy = std::fs::read(host.path("target")).expect("the target");
    assert!(copy == std::fs::read(host.path("base.raw")).expect("the source"));
}

#[test]
fn snapshots_as_chains() {
    let host = Host::new();
    host.ok("qemu-img convert -O raw over.qcow2 want");
    host.ok("qemu-img rebase -b base.raw -F raw -f qcow2 over.qcow2");
    host.holds("over.qcow2", "qcow2", "want");
    host.ok("qemu-img commit over.qcow2");
    host.holds("base.raw", "raw", "want");
    for action in ["-c", "-a", "-d"] {
        host.text(&format!("qemu-img snapshot {action} snap base.qcow2"));
    }
}
