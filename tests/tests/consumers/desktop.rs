//! lima, UTM, podman, packer, vagrant, image-builder and diskimage-builder.

use cairn_tests::json::Json;

use crate::host::{Host, SIZE, number, specific, text};

#[test]
fn lima_reads_the_files_of_an_image() {
    let host = Host::new();
    let info = host.json("qemu-img info --output=json --force-share base.qcow2");
    host.text(
        "bash -c 'qemu-img info --output=json --force-share base.qcow2 | grep -v actual-size'",
    );
    let children = info.field("children").expect("children").elements();
    assert_eq!(text(&children[0], "name"), Some("file"));
    let file = children[0].field("info").expect("what it is");
    assert_eq!((text(file, "format"), text(file, "filename")), (Some("file"), Some("base.qcow2")));
    assert_eq!(specific(&info, "compat"), Some(&Json::Text("1.1".to_owned())));
    host.ok("qemu-img convert -O raw base.qcow2 diffdisk");
    host.holds("diffdisk", "raw", "base.raw");
    host.ok("qemu-img resize -f raw diffdisk 8388608");
}

#[test]
fn utm_asks_for_keys_that_must_be_there() {
    let host = Host::new();
    let info = host.json("qemu-img info --output=json base.qcow2");
    assert_eq!(number(&info, "cluster-size"), 65536);
    assert_eq!(info.field("dirty-flag"), Some(&Json::Bool(false)));
    let done = host.ok("qemu-img convert -p -c -o compression_type=zstd -O qcow2 base.qcow2 small");
    done.shows_progress();
    host.holds("small", "qcow2", "base.raw");
    host.text("qemu-img resize -f qcow2 small 8388608");
}

#[test]
fn podman_and_packer_resize() {
    let host = Host::new();
    host.text("qemu-img resize base.qcow2 10G");
    host.text("qemu-img create -f qcow2 -b base.qcow2 -F qcow2 disk 10240M");
    host.text("qemu-img resize -f qcow2 disk 20480M");
    host.ok("qemu-img convert -c -O qcow2 disk packed");
    let info = host.json("qemu-img info --output=json packed");
    assert_eq!(number(&info, "virtual-size"), 20 << 30);
}

/// `info X | grep 'backing file:' | cut -d ':' -f2`
#[test]
fn vagrant_reads_text_for_people() {
    let host = Host::new();
    let pipe = |name: &str| {
        host.text(&format!(
            "bash -c \"qemu-img info {name} | grep 'backing file:' | cut -d ':' -f2\""
        ))
    };
    assert_eq!(pipe("over.qcow2"), " base.qcow2\n");
    host.ok("qemu-img convert -O raw over.qcow2 want");
    host.ok("qemu-img rebase -p -b '' over.qcow2").shows_progress();
    assert_eq!(pipe("over.qcow2"), "");
    host.holds("over.qcow2", "qcow2", "want");
    let info = host.text("qemu-img info over.qcow2");
    assert!(info.contains("file format: qcow2\n"), "{info}");
    assert!(info.contains(&format!("virtual size: 3.06 MiB ({SIZE} bytes)\n")), "{info}");
}

#[test]
fn diskimage_builder_compresses() {
    let host = Host::new();
    host.ok("qemu-img convert -c -f raw -O qcow2 base.raw image");
    host.holds("image", "qcow2", "base.raw");
    host.ok("qemu-img convert -c -f raw -O qcow2 -o cluster_size=2M,compat=0.10 base.raw old");
    host.holds("old", "qcow2", "base.raw");
}
