//! What the reference wrote is read, and what was written here the reference reads.

use std::path::Path;

use cairn_block::dirty_bitmap::BitmapChange;
use cairn_block::driver::WriteFlags;
use cairn_block::{Error, IoBufMut, Result};

use super::support::{create, expect, graph, open, run};

/// Bytes of the disks.
const SIZE: usize = 1 << 20;

/// Writes `5` to all of the image and `9` to one sector of it.
fn fill(image: &str) -> Result<()> {
    run(async {
        let image = open(&graph(), image).await?;
        let mut data = IoBufMut::zeroed(SIZE);
        data.fill(5);
        image.write(0, data.freeze(), WriteFlags::empty()).await?;
        let mut sector = IoBufMut::zeroed(512);
        sector.fill(9);
        image.write(300 << 10, sector.freeze(), WriteFlags::empty()).await?;
        image.close().await
    })
}

/// What is wrong with an image that should have what [`fill`] or [`stock_fill`] wrote.
fn read_back(image: &str) -> Result<Option<usize>> {
    run(async {
        let image = open(&graph(), image).await?;
        let data = image.read(0, IoBufMut::new(SIZE)).await?;
        image.close().await?;
        let sector = 300 << 10..(300 << 10) + 512;
        let wanted = |at: usize| if sector.contains(&at) { 9 } else { 5 };
        Ok(data.iter().enumerate().position(|(at, &byte)| byte != wanted(at)))
    })
}

fn stock_io(dir: &Path, image: &str, commands: &[&str]) {
    for command in commands {
        let said = expect(dir, &["qemu-io", "--image-opts", image, "-c", command]);
        assert!(!said.contains("failed"), "{image}: {said}");
    }
}

fn both_ways(format: &str, prefix: &str, list: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let made = format!("{prefix}key-secret=s,{prefix}iter-time=1,{list}");
    let made =
        if list.contains("format=aes") { made.replace("encrypt.iter-time=1,", "") } else { made };
    let name = |file: &str| {
        let path = dir.path().join(file);
        format!(
            "driver={format},file.driver=file,file.filename={},{prefix}key-secret=s",
            path.display()
        )
    };
    expect(dir.path(), &["qemu-img", "create", "-q", "-f", format, "-o", &made, "theirs", "1M"]);
    stock_io(dir.path(), &name("theirs"), &["write -P 5 0 1M", "write -P 9 300k 512"]);
    let read = read_back(&name("theirs")).unwrap_or_else(|error| panic!("{list}: {error}"));
    assert_eq!(read, None, "{list}: wrong from here on");

    create(format, &dir.path().join("ours"), &format!("size=1M,{made}"))
        .and_then(|()| fill(&name("ours")))
        .unwrap_or_else(|error| panic!("{list}: {error}"));
    let reads = ["read -P 5 0 300k", "read -P 9 300k 512", "read -P 5 307712 723k"];
    stock_io(dir.path(), &name("ours"), &reads);
}

#[test]
fn luks_images_go_both_ways() {
    for list in [
        "cipher-alg=aes-256",
        "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5,hash-alg=sha1",
        "cipher-alg=aes-192,hash-alg=sha512",
        "cipher-alg=aes-256,cipher-mode=ecb,hash-alg=ripemd160",
        "cipher-alg=aes-128,cipher-mode=ctr,hash-alg=sha224",
        "cipher-alg=serpent-256,cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sm3",
        "cipher-alg=serpent-128,ivgen-alg=plain,hash-alg=sha384",
        "cipher-alg=twofish-192,hash-alg=md5",
        "cipher-alg=twofish-256,cipher-mode=ctr",
        "cipher-alg=cast5-128,cipher-mode=cbc",
    ] {
        both_ways("luks", "", list);
    }
}

#[test]
fn encrypted_qcow2_images_go_both_ways() {
    for list in [
        "encrypt.format=luks",
        "encrypt.format=luks,cluster_size=512,encrypt.cipher-mode=cbc",
        "encrypt.format=luks,cluster_size=16k,extended_l2=on",
        "encrypt.format=luks,preallocation=metadata",
        "encrypt.format=aes",
        "encrypt.format=aes,compat=0.10,cluster_size=4k",
    ] {
        both_ways("qcow2", "encrypt.", list);
    }
}

#[test]
fn a_raw_data_file_holds_encrypted_data() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let list = format!("encrypt.format=luks,data_file={},data_file_raw=on", data.display());
    both_ways("qcow2", "encrypt.", &list);
    let stored = std::fs::read(&data).expect("there");
    assert_eq!(stored.len(), SIZE);
    let plain = stored.chunks(512).filter(|sector| sector.iter().all(|&byte| byte == 5)).count();
    assert_eq!(plain, 0, "sectors that everybody can read");
}

#[test]
fn bitmaps_of_encrypted_images_record_discards_of_any_length() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    let list = "size=1M,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=0";
    create("qcow2", &path, list).expect("created");
    let image = format!(
        "driver=qcow2,file.driver=file,file.filename={},encrypt.key-secret=s",
        path.display()
    );
    let recorded = run(async {
        let graph = graph();
        let image = open(&graph, &image).await?;
        let add = BitmapChange::Add { granularity_bits: Some(9), enabled: true };
        graph.change_bitmap(&image.node(), "record", add).await?;
        image.discard(1000, 10).await?;
        image.discard(300_000, 1000).await?;
        let bitmap = graph.load_bitmap(&image.node(), "record").await?;
        image.close().await?;
        Ok::<_, Error>([bitmap.next_dirty(0), bitmap.next_dirty(1024)])
    });
    assert_eq!(recorded.expect("recorded"), [Some(512..1024), Some(299_520..301_056)]);
}

#[test]
fn the_passphrase_must_be_there_and_right() {
    let dir = tempfile::tempdir().expect("a directory");
    for (format, prefix, more) in [("luks", "", ""), ("qcow2", "encrypt.", "encrypt.format=luks,")]
    {
        let path = dir.path().join(format);
        let list = format!("size=1M,{more}{prefix}key-secret=s,{prefix}iter-time=0");
        create(format, &path, &list).expect("created");
        let image = format!("driver={format},file.driver=file,file.filename={}", path.display());
        let error = |more: String| {
            let opened = run(async { open(&graph(), &format!("{image}{more}")).await.map(drop) });
            opened.expect_err("must be refused").to_string()
        };
        let wrong = error(format!(",{prefix}key-secret=wrong"));
        assert!(wrong.contains("passphrase"), "{wrong}");
        let none = error(String::new());
        assert!(none.contains("key-secret' is required"), "{none}");
        let unknown = error(format!(",{prefix}key-secret=nobody"));
        assert!(unknown.contains("'nobody' does not exist"), "{unknown}");
    }
}
