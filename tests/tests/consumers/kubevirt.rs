//! KubeVirt's containerized data importer and its virt-launcher.

use cairn_tests::json::Json;

use crate::host::{Host, SIZE, number, text};

#[test]
fn the_importer_converts_with_progress() {
    let host = Host::new();
    let info = host.json("qemu-img info --output=json over.qcow2");
    assert_eq!(text(&info, "backing-filename"), Some("base.qcow2"));
    assert_eq!((text(&info, "format"), number(&info, "virtual-size")), (Some("qcow2"), SIZE));
    assert!(number(&info, "actual-size") > 0);
    for options in ["-t none", "-t writeback", "-t writeback -S 0"] {
        let done = host.ok(&format!("qemu-img convert {options} -p -O raw base.qcow2 disk.img"));
        done.shows_progress();
        host.holds("disk.img", "raw", "base.raw");
    }
    for preallocation in ["falloc", "full"] {
        let options = format!("-o preallocation={preallocation}");
        host.ok(&format!("qemu-img convert -t writeback -p {options} -O raw base.qcow2 full.img"));
        host.holds("full.img", "raw", "base.raw");
    }
}

#[test]
fn the_importer_makes_and_grows_disks() {
    let host = Host::new();
    host.ok("qemu-img create -f raw -o preallocation=falloc disk.img 5242880");
    host.ok("qemu-img create -f raw blank.img 1073741824");
    host.ok("qemu-img resize -f raw blank.img 2147483648");
    let info = host.json("qemu-img info --output=json blank.img");
    assert_eq!((text(&info, "format"), number(&info, "virtual-size")), (Some("raw"), 2 << 30));
}

/// The importer tries again without preallocation when it finds these words.
#[test]
fn the_importer_looks_for_an_english_text() {
    let host = Host::new();
    host.run("qemu-img resize -f raw --preallocation=metadata base.raw 8M")
        .complains(1, "Unsupported preallocation mode");
}

#[test]
fn the_importer_merges_checkpoints() {
    let host = Host::new();
    host.ok("qemu-img convert -O raw over.qcow2 want");
    host.ok("qemu-img rebase -p -u -F raw -b base.raw over.qcow2").shows_progress();
    host.ok("qemu-img commit -p over.qcow2").shows_progress();
    host.holds("base.raw", "raw", "want");
}

#[test]
fn the_launcher_sets_limits_in_a_shell() {
    let host = Host::new();
    let line = "ulimit -t 10 && ulimit -v 1048576 && qemu-img info over.qcow2 --output json";
    let answers = host.run_unlimited(&format!("bash -c '{line}'"));
    answers.expect(0);
    let info = Json::parse(&answers.ours.out()).expect("JSON");
    assert_eq!(text(&info, "format"), Some("qcow2"));
    host.text("qemu-img create -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2");
    host.text("qemu-img resize --preallocation=off disk.qcow2 4194304");
    host.text("qemu-img resize --preallocation=metadata disk.qcow2 5242880");
    host.json("qemu-img check --output=json disk.qcow2");
}
