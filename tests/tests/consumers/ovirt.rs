//! oVirt's imageio and VDSM.

use crate::host::{Host, SIZE, number, specific, text};

#[test]
fn volumes_are_measured() {
    let host = Host::new();
    for line in [
        "qemu-img measure --output json -O qcow2 base.raw",
        "qemu-img measure --output json -f qcow2 -O qcow2 over.qcow2",
        "qemu-img measure --output json -f qcow2 -O raw over.qcow2",
        "qemu-img measure --output json -O qcow2 \
         'json:{\"driver\":\"qcow2\",\"backing\":null,\"file\":{\"driver\":\"file\",\"filename\":\"over.qcow2\"}}'",
    ] {
        let measured = host.json(line);
        assert!(number(&measured, "required") <= number(&measured, "fully-allocated"), "{line}");
    }
}

#[test]
fn volumes_are_compared() {
    let host = Host::new();
    host.run("qemu-img compare -f raw -F qcow2 base.raw base.qcow2").expect(0);
    // One of them has holes where the other has zeroes.
    host.run("qemu-img compare -s -f raw -F qcow2 base.raw base.qcow2").expect(1);
    host.run("qemu-img compare -s -f qcow2 -F qcow2 base.qcow2 base.qcow2").expect(0);
    host.run("qemu-img compare -f qcow2 -F qcow2 base.qcow2 over.qcow2").expect(1);
    host.run("qemu-img compare -f qcow2 -F qcow2 base.qcow2 missing").expect(2);
}

#[test]
fn backups_use_bitmaps() {
    let host = Host::new();
    host.ok("qemu-img bitmap --add base.qcow2 backup-1");
    host.ok("qemu-img bitmap --add --disable -g 4096 base.qcow2 backup-2");
    host.ok("qemu-img bitmap --merge backup-1 base.qcow2 backup-2");
    let info = host.json("qemu-img info --output json base.qcow2");
    let bitmaps = specific(&info, "bitmaps").expect("bitmaps").elements();
    let names: Vec<_> = bitmaps.iter().filter_map(|bitmap| text(bitmap, "name")).collect();
    assert_eq!(names, ["backup-1", "backup-2"]);
    assert_eq!(number(&bitmaps[0], "granularity"), 65536);
    let measured = host.json("qemu-img measure --output json -f qcow2 -O qcow2 base.qcow2");
    assert!(number(&measured, "bitmaps") > 0);
    host.ok("qemu-img convert -f qcow2 -O qcow2 --bitmaps base.qcow2 copy.qcow2");
    host.json("qemu-img info --output json copy.qcow2");
    host.ok("qemu-img bitmap --remove base.qcow2 backup-1");
}

#[test]
fn chains_are_changed_unsafely() {
    let host = Host::new();
    host.ok("qemu-img rebase -u -f qcow2 -b base.raw -F raw over.qcow2");
    host.ok("qemu-img rebase -u -b '' over.qcow2");
    let info = host.json("qemu-img info --output json over.qcow2");
    assert_eq!((text(&info, "backing-filename"), number(&info, "virtual-size")), (None, SIZE));
    host.json("qemu-img check --output json -f qcow2 over.qcow2");
    host.json("qemu-img map --output json -f qcow2 over.qcow2");
}
