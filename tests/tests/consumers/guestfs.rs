//! virt-v2v and libguestfs.

use cairn_tests::json::Json;

use crate::host::{Host, SIZE, number, text};

#[test]
fn features_are_found_in_the_help() {
    let host = Host::new();
    let help = host.ok("qemu-img --help").ours.out();
    for word in ["-U", "convert", "dd", "measure"] {
        assert!(help.contains(word), "{word} is not in the help");
    }
}

#[test]
fn disks_are_inspected() {
    let host = Host::new();
    for force_share in ["", "-U "] {
        let info = host.json(&format!("qemu-img info {force_share}--output json ./over.qcow2"));
        assert_eq!((text(&info, "format"), number(&info, "virtual-size")), (Some("qcow2"), SIZE));
        assert_eq!(text(&info, "backing-filename"), Some("base.qcow2"));
    }
}

#[test]
fn disks_are_made_and_copied() {
    let host = Host::new();
    host.text(
        "qemu-img create -f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2,compat=1.1 ./disk",
    );
    host.text(&format!(
        "qemu-img create -f qcow2 -o backing_file=base.raw,backing_fmt=raw,compat=1.1 ./two {}",
        2 * SIZE
    ));
    host.ok("qemu-img convert -f qcow2 -O raw ./disk ./flat");
    host.holds("flat", "raw", "base.raw");
    host.ok("qemu-img dd -f raw -O raw if=base.raw of=./head bs=256k count=1");
    assert_eq!(std::fs::metadata(host.path("head")).expect("the copy").len(), 256 << 10);
}

#[test]
fn a_filter_compresses_what_is_written() {
    let host = Host::new();
    host.ok(&format!("qemu-img create -q -f qcow2 small {SIZE}"));
    host.ok("qemu-img convert -n -f raw --target-image-opts base.raw \
         driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename=small");
    host.holds("small", "qcow2", "base.raw");
    let check = host.json("qemu-img check --output=json small");
    assert!(number(&check, "compressed-clusters") > 0);
}

#[test]
fn a_part_of_a_file_is_a_disk() {
    let host = Host::new();
    let name = r#"'json:{"driver":"raw","offset":65536,"size":131072,"file":{"driver":"file","filename":"base.raw"}}'"#;
    let info = host.json(&format!("qemu-img info --output=json {name}"));
    assert_eq!(number(&info, "virtual-size"), 131_072);
    host.ok(&format!("qemu-img convert -O raw {name} part"));
    let whole = std::fs::read(host.path("base.raw")).expect("the disk");
    let part = std::fs::read(host.path("part")).expect("the part");
    assert!(part == whole[65536..][..131_072]);
    assert!(matches!(info.field("format"), Some(Json::Text(format)) if format == "raw"));
}
