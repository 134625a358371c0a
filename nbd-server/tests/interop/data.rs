//! Data through the server, by the clients that people use.

use std::fs;

use crate::server::{Lab, ours, stock};

#[test]
fn whole_images_are_copied() {
    let lab = Lab::new();
    lab.chain();
    let server = lab.serve(&ours(), &["-t", "-e", "0", "-r", "-f", "qcow2", "top.qcow2"]);
    let uri = server.uri("");
    lab.run("nbdcopy", &[&uri, "copy.raw"]);
    lab.run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", "top.qcow2", "copy.raw"]);
    lab.run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, "copy.qcow2"]);
    lab.run("qemu-img", &["compare", "top.qcow2", "copy.qcow2"]);
    server.stop();

    lab.run("qemu-img", &["create", "-q", "-f", "qcow2", "target.qcow2", "16M"]);
    let args = ["-t", "-e", "0", "--discard=unmap", "-f", "qcow2", "target.qcow2"];
    let server = lab.serve(&ours(), &args);
    let uri = server.uri("");
    lab.run("nbdcopy", &["--flush", "copy.raw", &uri]);
    lab.run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, "copy.raw"]);
    lab.run("qemu-io", &["-f", "raw", "-c", "write -P 9 0 16M", &uri]);
    lab.run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", "copy.raw", &uri]);
    server.stop();
    lab.run("qemu-img", &["check", "target.qcow2"]);
    lab.run("qemu-img", &["compare", "-F", "raw", "target.qcow2", "copy.raw"]);
}

#[test]
fn every_kind_of_request_does_what_it_says() {
    let lab = Lab::new();
    for format in ["raw", "qcow2"] {
        lab.run("qemu-img", &["create", "-q", "-f", format, "disk", "64M"]);
        let args = ["-t", "-f", format, "--discard=unmap", "--detect-zeroes=unmap", "disk"];
        let server = lab.serve(&ours(), &args);
        let commands = [
            "write -P 1 0 40M",
            "write -P 2 1000 3000",
            "write -f -P 3 5M 64k",
            "write -z 6M 1M",
            "write -zu 8M 1M",
            "discard 10M 1M",
            "write -P 0 12M 1M",
            "flush",
            "aio_write -P 4 20M 3M",
            "aio_write -P 5 24M 64k",
            "aio_read -P 1 30M 8M",
            "aio_flush",
            "read -P 1 0 1000",
            "read -P 2 1000 3000",
            "read -P 3 5M 64k",
            "read -P 0 6M 1M",
            "read -P 0 8M 1M",
            "read -P 0 12M 1M",
            "read -P 4 20M 3M",
            "read -P 5 24M 64k",
            "read -P 0 40M 24M",
        ];
        let mut args = vec!["-f", "raw"];
        args.extend(commands.iter().flat_map(|command| ["-c", *command]));
        let uri = server.uri("");
        args.push(&uri);
        let said = lab.run("qemu-io", &args);
        assert!(!said.contains("failed"), "{said}");
        server.stop();
        fs::remove_file(lab.path("disk")).expect("a file");
    }
}

#[test]
fn clients_see_each_other_s_writes_after_a_flush() {
    let lab = Lab::new();
    lab.run("qemu-img", &["create", "-q", "-f", "qcow2", "disk", "4M"]);
    let server = lab.serve(&ours(), &["-t", "-e", "4", "-f", "qcow2", "disk"]);
    let uri = server.uri("");
    for value in 1..5 {
        let write = format!("write -P {value} {value}00k 64k");
        lab.run("qemu-io", &["-f", "raw", "-c", &write, "-c", "flush", &uri]);
    }
    // One client that copies over four connections.
    lab.run("nbdcopy", &["--connections=4", "--request-size=65536", &uri, "copy"]);
    lab.run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, "copy"]);
    server.stop();
}

#[test]
fn parts_snapshots_and_scratch_overlays_are_served() {
    let lab = Lab::new();
    lab.run("qemu-img", &["create", "-q", "-f", "qcow2", "disk", "4M"]);
    lab.run("qemu-io", &["-c", "write -P 1 0 4M", "disk"]);
    lab.run("qemu-img", &["snapshot", "-c", "before", "disk"]);
    lab.run("qemu-io", &["-c", "write -P 2 0 4M", "disk"]);
    let served = |args: &[&str], commands: &[&str]| {
        let server = lab.serve(&ours(), args);
        let uri = server.uri("");
        let commands = commands.iter().flat_map(|command| ["-c", *command]);
        let read_only = if args.contains(&"-l") { &["-r"][..] } else { &[] };
        let all: Vec<&str> =
            read_only.iter().copied().chain(["-f", "raw"]).chain(commands).chain([&*uri]).collect();
        let said = lab.run("qemu-io", &all);
        assert!(!said.contains("Pattern verification failed"), "{args:?}: {said}");
        server.stop();
    };
    served(&["-t", "-f", "qcow2", "-l", "before", "disk"], &["read -P 1 0 4M"]);
    served(&["-t", "-f", "qcow2", "-l", "snapshot.name=before", "disk"], &["read -P 1 0 4M"]);
    served(&["-t", "-f", "qcow2", "-s", "disk"], &["write -P 3 0 1M", "read -P 3 0 1M"]);
    served(&["-t", "-f", "qcow2", "-o", "3145728", "disk"], &["write -P 4 0 1M"]);
    served(&["-t", "-f", "qcow2", "disk"], &["read -P 2 0 3M", "read -P 4 3M 1M"]);
    let options = "driver=qcow2,file.driver=file,file.filename=disk";
    served(&["-t", "--image-opts", options], &["read -P 2 0 3M"]);
}

/// A bitmap that records is shown as it is now.
#[test]
fn a_recording_bitmap_shows_what_clients_write() {
    let lab = Lab::new();
    lab.run("qemu-img", &["create", "-q", "-f", "qcow2", "disk", "4M"]);
    lab.run("qemu-img", &["bitmap", "--add", "-g", "64k", "disk", "b0"]);
    let server = lab.serve(&ours(), &["-t", "-f", "qcow2", "-B", "b0", "disk"]);
    let uri = server.uri("");
    let map = || lab.run("nbdinfo", &["--map=qemu:dirty-bitmap:b0", "--totals", &uri]);
    assert!(!map().contains("dirty"), "{}", map());
    lab.run("qemu-io", &["-f", "raw", "-c", "write -P 1 1M 100k", &uri]);
    assert!(map().contains("131072"), "{}", map());
    server.stop();
    // It was stored.
    let server = lab.serve(&stock(), &["-t", "-r", "-f", "qcow2", "-B", "b0", "disk"]);
    let uri = server.uri("");
    let map = lab.run("nbdinfo", &["--map=qemu:dirty-bitmap:b0", "--totals", &uri]);
    assert!(map.contains("131072"), "{map}");
    server.stop();
}
