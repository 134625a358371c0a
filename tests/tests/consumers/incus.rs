//! Incus and LXD: everything under two seconds of CPU time and 1 GiB of address space.

use cairn_tests::json::Json;

use crate::host::{Host, SIZE, number, specific, text};

#[test]
fn images_are_inspected_under_limits() {
    let host = Host::new();
    let line = "prlimit --cpu=2 --as=1073741824 qemu-img info -f qcow2 --output=json base.qcow2";
    let info = host.json(line);
    assert_eq!((text(&info, "format"), number(&info, "virtual-size")), (Some("qcow2"), SIZE));
    let chain = host.json("qemu-img info -U --backing-chain --output=json over.qcow2");
    let names: Vec<_> = chain.elements().iter().filter_map(|i| text(i, "filename")).collect();
    assert_eq!(names, ["over.qcow2", "base.qcow2"]);
}

#[test]
fn images_are_unpacked() {
    let host = Host::new();
    for line in [
        "nice -n19 qemu-img convert -p -f qcow2 -O raw -t writeback base.qcow2 disk",
        "nice -n19 qemu-img convert -p -f qcow2 -O raw -T none -t none base.qcow2 disk",
    ] {
        host.ok(line).shows_progress();
        host.holds("disk", "raw", "base.raw");
    }
}

#[test]
fn volumes_have_their_data_elsewhere() {
    let host = Host::new();
    host.ok("qemu-img create -f qcow2 \
         -o data_file=disk.data,data_file_raw=on,preallocation=metadata disk 4M");
    host.ok("qemu-img bitmap --add disk nightly");
    let info = host.json("qemu-img info -f qcow2 --output=json disk");
    assert_eq!(specific(&info, "data-file"), Some(&Json::Text("disk.data".to_owned())));
    let bitmaps = specific(&info, "bitmaps").expect("bitmaps").elements();
    assert_eq!(text(&bitmaps[0], "name"), Some("nightly"));
    host.json("qemu-img measure -f qcow2 -O qcow2 --output=json disk");
    host.ok("qemu-img convert -O raw over.qcow2 want");
    host.ok("qemu-img rebase -u -F raw -b base.raw over.qcow2");
    host.ok("qemu-img commit -f qcow2 over.qcow2");
    host.holds("base.raw", "raw", "want");
}
