//! Nova, Cinder and Glance. They read `info` through oslo.utils, and set limits on each call.

use cairn_tests::json::Json;
use cairn_tests::qcow2::{Builder, EXT_DATA_FILE, INCOMPATIBLE_DATA_FILE};

use crate::host::{Host, SIZE, number, specific, text};

#[test]
fn nova_looks_at_images() {
    let host = Host::new();
    let absolute = "$PWD/over.qcow2";
    for format in ["", " -f qcow2"] {
        let info = host.run(&format!(
            "env LC_ALL=C LANG=C qemu-img info {absolute} --force-share --output=json{format}"
        ));
        info.expect(0);
        let info = Json::parse(&info.ours.out()).expect("JSON");
        assert_eq!(text(&info, "filename"), host.path("over.qcow2").to_str());
        assert_eq!(text(&info, "format"), Some("qcow2"));
        assert_eq!(text(&info, "backing-filename"), Some("base.qcow2"));
        assert_eq!(text(&info, "backing-filename-format"), Some("qcow2"));
        assert_eq!(number(&info, "virtual-size"), SIZE);
        assert_eq!(number(&info, "cluster-size"), 65536);
        assert!(number(&info, "actual-size") > 0);
        assert_eq!(info.field("encrypted"), None);
        assert_eq!(specific(&info, "data-file"), None);
    }
    host.run("qemu-img info missing --force-share --output=json")
        .complains(1, "No such file or directory");
}

#[test]
fn nova_reads_snapshots() {
    let host = Host::new();
    host.ok("qemu-img snapshot -c before base.qcow2");
    let info = host.json("qemu-img info base.qcow2 --force-share --output=json");
    let snapshots = info.field("snapshots").expect("snapshots").elements();
    assert_eq!(snapshots.len(), 1);
    assert_eq!(text(&snapshots[0], "name"), Some("before"));
    assert_eq!(text(&snapshots[0], "id"), Some("1"));
    for member in ["vm-state-size", "date-sec", "date-nsec", "vm-clock-sec", "vm-clock-nsec"] {
        number(&snapshots[0], member);
    }
    host.ok("qemu-img convert -l before -f qcow2 -O raw base.qcow2 copy");
    host.holds("copy", "raw", "base.raw");
    host.ok("qemu-img snapshot -d before base.qcow2");
}

#[test]
fn nova_makes_and_flattens_disks() {
    let host = Host::new();
    host.ok(
        "qemu-img create -f qcow2 -o backing_file=base.raw,backing_fmt=raw,cluster_size=4096 disk",
    );
    host.ok("qemu-img resize -f qcow2 disk 4194304");
    let info = host.json("qemu-img info disk --force-share --output=json -f qcow2");
    assert_eq!((number(&info, "virtual-size"), number(&info, "cluster-size")), (4 << 20, 4096));
    host.ok("qemu-img rebase -b base.qcow2 -F qcow2 disk");
    host.ok("qemu-img convert -t none -O raw -f qcow2 disk flat");
    host.ok("qemu-img convert -t writeback -O qcow2 -f raw -c flat small");
    host.holds("small", "qcow2", "flat");
    // Options may follow the file names, and add up.
    host.ok(
        "qemu-img create disk2 8M -f qcow2 -o compat=1.1 -o cluster_size=128k -o lazy_refcounts",
    );
    let info = host.json("qemu-img info disk2 --output=json");
    assert_eq!(number(&info, "cluster-size"), 128 << 10);
    assert_eq!(specific(&info, "lazy-refcounts"), Some(&Json::Bool(true)));
}

#[test]
fn nova_and_cinder_encrypt_disks() {
    let host = Host::new();
    let secret = "--object secret,id=sec0,file=key";
    let luks = "-o key-secret=sec0 -o cipher-alg=aes-256 -o cipher-mode=xts -o hash-alg=sha256 \
                -o iter-time=10";
    host.run_unlimited(&format!("qemu-img create -q -f luks {secret} {luks} volume {SIZE}"))
        .expect(0);
    host.ok(&format!(
        "qemu-img convert -t none -n -f raw {secret} --target-image-opts base.raw \
         driver=luks,key-secret=sec0,file.filename=volume"
    ));
    host.ok(&format!(
        "qemu-img convert {secret} --image-opts driver=luks,key-secret=sec0,file.filename=volume \
         -O raw plain"
    ));
    host.holds("plain", "raw", "base.raw");
    let info = host.json("qemu-img info -f luks --output=json --force-share volume");
    assert_eq!((text(&info, "format"), number(&info, "virtual-size")), (Some("luks"), SIZE));
    assert_eq!(info.field("encrypted"), Some(&Json::Bool(true)));
    host.run("qemu-img info -f luks --output=json --force-share base.raw").expect(1);

    host.run_unlimited(&format!(
        "qemu-img convert {secret} -f raw -O qcow2 -o encrypt.format=luks,encrypt.key-secret=sec0 \
         -o encrypt.iter-time=10 base.raw locked"
    ))
    .expect(0);
    host.ok(&format!(
        "qemu-img convert {secret} --image-opts \
         encrypt.format=luks,encrypt.key-secret=sec0,file.filename=locked,driver=qcow2 -O raw open"
    ));
    host.holds("open", "raw", "base.raw");
}

#[test]
fn cinder_handles_volumes() {
    let host = Host::new();
    let version = host.ok("qemu-img --version").ours.out();
    let number: String = version
        .strip_prefix("qemu-img version ")
        .expect("what the version is looked for behind")
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    assert_eq!(number, "10.0.2");
    let info =
        host.json("env LC_ALL=C qemu-img info -f qcow2 --output=json --force-share over.qcow2");
    assert_eq!(text(&info, "backing-filename"), Some("base.qcow2"));
    host.ok("qemu-img convert -O raw -t none -S 0 -f qcow2 base.qcow2 volume");
    host.holds("volume", "raw", "base.raw");
    host.ok("qemu-img convert -O qcow2 -t none -c -f raw volume upload");
    host.holds("upload", "qcow2", "base.raw");
    host.ok("qemu-img convert -O raw -f qcow2 over.qcow2 want");
    host.ok("qemu-img commit -d over.qcow2");
    host.holds("base.qcow2", "qcow2", "want");
    host.ok("qemu-img rebase -u -b base.qcow2 over.qcow2 -F qcow2");
    host.ok("qemu-img resize -f qcow2 over.qcow2 1G");
}

#[test]
fn glance_takes_silence_for_success() {
    let host = Host::new();
    for (format, name) in [("raw", "base.raw"), ("qcow2", "base.qcow2"), ("qcow2", "over.qcow2")] {
        let info = host.json(&format!("qemu-img info -f {format} --output=json {name}"));
        assert_eq!((text(&info, "format"), number(&info, "virtual-size")), (Some(format), SIZE));
    }
    host.ok("qemu-img convert -f qcow2 -O raw base.qcow2 image");
    host.holds("image", "raw", "base.raw");
    host.run("qemu-img info -f qcow2 --output=json base.raw").expect(1);
    // An import is refused for the file that such an image names; `info` must name it and not open it.
    let mut image = Builder::new();
    image.incompatible(INCOMPATIBLE_DATA_FILE).extension(EXT_DATA_FILE, b"/etc/hostname");
    for dir in ["ours", "stock"] {
        let path = host.path("..").join(dir).join("evil");
        std::fs::write(path, image.bytes()).expect("an image");
    }
    let info = host.json("qemu-img info -f qcow2 --output=json evil");
    assert_eq!(specific(&info, "data-file"), Some(&Json::Text("/etc/hostname".to_owned())));
}
