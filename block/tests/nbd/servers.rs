//! The reference's server and nbdkit: content, status, limits, errors and names.

use cairn_block::buf::is_zero;
use cairn_block::driver::{Resize, Status, WriteFlags};
use cairn_block::graph::{Graph, NodeFlags};
use cairn_block::{Error, IoBuf, IoBufMut};
use futures_util::future::try_join_all;

use super::support::{Server, at, disk, expect, open, open_as, open_error, pattern, run};

const MIB: usize = 1 << 20;

#[test]
fn many_requests_at_once_come_back_right() {
    let dir = disk(32 * MIB);
    let (_server, socket) = Server::stock(dir.path(), &["-e", "8", "-f", "raw", "disk"]);
    let wanted = pattern(32 * MIB);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "")).await.expect("opens");
        assert_eq!(disk.size(), 32 << 20);
        for len in [512, 4096, 100_000, MIB] {
            let starts = (0..32 * MIB).step_by(MIB + len / 512 * 512);
            let reads = starts.filter(|start| start + len <= 32 * MIB).map(|start| {
                let (disk, wanted) = (&disk, &wanted);
                async move {
                    let data = disk.read(start as u64, IoBufMut::new(len)).await?;
                    assert!(data[..] == wanted[start..start + len], "{len} bytes at {start}");
                    Ok::<_, Error>(())
                }
            });
            try_join_all(reads).await.expect("all reads");
        }
        disk.close().await.expect("closes");
    });
}

#[test]
fn writes_of_all_kinds_arrive() {
    let dir = disk(4 * MIB);
    let words = ["--discard=unmap", "-f", "raw", "disk"];
    let (server, socket) = Server::stock(dir.path(), &words);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "")).await.expect("opens");
        let mut data = IoBufMut::new(MIB);
        data.fill(7);
        let data = data.freeze();
        disk.write(0, data.clone(), WriteFlags::FUA).await.expect("writes");
        disk.write(3 << 20, data.slice(..1000), WriteFlags::empty()).await.expect("writes");
        disk.write_zeroes(4096, 8192, WriteFlags::MAY_UNMAP).await.expect("zeroes");
        disk.write_zeroes(1 << 16, 4096, WriteFlags::empty()).await.expect("zeroes");
        disk.discard(1 << 17, 1 << 17).await.expect("discards");
        disk.flush().await.expect("flushes");
        let status = disk.block_status(4096, 8192, true).await.expect("status");
        assert!(status.status.contains(Status::ZERO) && status.len == 8192, "{status:?}");
        assert!(disk.write(4 << 20, IoBuf::zeroed(512), WriteFlags::empty()).await.is_err());
        disk.close().await.expect("closes");
    });
    drop(server);
    let written = std::fs::read(dir.path().join("disk")).expect("a file");
    assert!(written[..4096].iter().all(|byte| *byte == 7));
    assert!(is_zero(&written[4096..12_288]) && is_zero(&written[1 << 16..(1 << 16) + 4096]));
    assert!(written[12_288..1 << 16].iter().all(|byte| *byte == 7));
    assert!(written[3 << 20..(3 << 20) + 1000].iter().all(|byte| *byte == 7));
    let beyond = (3 << 20) + 1000..(3 << 20) + 65_536;
    assert!(written[beyond.clone()] == pattern(4 * MIB)[beyond]);
}

#[test]
fn status_tells_of_holes_and_of_dirty_bitmaps() {
    let dir = disk(MIB);
    let make = "create -q -f qcow2 image 1M";
    expect(dir.path(), &[vec!["qemu-img"], make.split(' ').collect()].concat());
    expect(dir.path(), &["qemu-img", "bitmap", "--add", "-g", "64k", "image", "b"]);
    expect(dir.path(), &["qemu-io", "-c", "write 128k 64k", "image"]);
    let words = ["-r", "-e", "8", "-f", "qcow2", "-B", "b", "image"];
    let (_server, socket) = Server::stock(dir.path(), &words);
    run(async {
        let graph = Graph::new();
        let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
        // Dirty ranges look like holes, as with the reference.
        for (more, data) in [("", true), ("x-dirty-bitmap=qemu:dirty-bitmap:b", false)] {
            let disk = open_as(&graph, &at(&socket, more), flags).await.expect("opens");
            let dirty = disk.block_status(128 << 10, 1 << 20, true).await.expect("status");
            let is_data = dirty.status.contains(Status::DATA);
            assert_eq!((dirty.len, is_data), (64 << 10, data), "{more}");
            let clean = disk.block_status(0, 1 << 20, true).await.expect("status");
            assert_eq!(clean.len, 128 << 10, "{more}");
            disk.close().await.expect("closes");
        }
        let error = open_error(&graph, &at(&socket, "x-dirty-bitmap=qemu:dirty-bitmap:c")).await;
        assert!(error.to_string().contains("qemu:dirty-bitmap:c"), "{error}");
    });
}

#[test]
fn read_only_exports_refuse_writers() {
    let dir = disk(MIB);
    let (_server, socket) = Server::stock(dir.path(), &["-r", "-e", "3", "-f", "raw", "disk"]);
    run(async {
        let graph = Graph::new();
        let error = open_error(&graph, &at(&socket, "")).await;
        assert!(error.to_string().contains("read-only"), "{error}");
        let auto = at(&socket, "auto-read-only=on");
        let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
        let disk = open_as(&graph, &auto, flags).await.expect("opens");
        assert!(disk.write(0, IoBuf::zeroed(512), WriteFlags::empty()).await.is_err());
        disk.close().await.expect("closes");
    });
}

#[test]
fn exports_keep_their_size() {
    let dir = disk(MIB);
    let (_server, socket) = Server::stock(dir.path(), &["-f", "raw", "disk"]);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "")).await.expect("opens");
        for (size, exact, allowed) in
            [(2 << 20, false, false), (1 << 20, true, true), (512, true, false), (512, false, true)]
        {
            let how = Resize { exact, ..Resize::default() };
            assert_eq!(disk.resize(size, how).await.is_ok(), allowed, "{size} {exact}");
        }
        disk.close().await.expect("closes");
    });
}

#[test]
fn names_and_missing_exports_are_told() {
    let dir = disk(MIB);
    let (_server, socket) =
        Server::stock(dir.path(), &["-e", "8", "-x", "a/b", "-f", "raw", "disk"]);
    run(async {
        let graph = Graph::new();
        let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
        let disk = open_as(&graph, &at(&socket, "export=a/b"), flags).await.expect("opens");
        let name = format!("nbd+unix:///a/b?socket={}", socket.display());
        assert_eq!(disk.node().filename(), name);
        disk.close().await.expect("closes");
        let disk = open_as(&graph, &format!("driver=raw,file.filename={name}"), flags).await;
        assert!(disk.is_err(), "a name with a protocol is no path");
        let error = open_error(&graph, &at(&socket, "export=c")).await;
        assert!(error.to_string().contains("no export 'c'"), "{error}");
        let error = open_error(&graph, &at(&dir.path().join("absent"), "")).await;
        assert_eq!(error.errno(), libc::ENOENT, "{error}");
    });
}

#[test]
fn errors_of_a_server_reach_the_request() {
    let dir = disk(MIB);
    let words = ["--filter=error", "file", "disk", "error-pread=ENOSPC", "error-pread-rate=100%"];
    let (_server, socket) = Server::nbdkit(dir.path(), &words);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "")).await.expect("opens");
        let error = disk.read(0, IoBufMut::new(512)).await.expect_err("fails");
        assert_eq!(error.errno(), libc::ENOSPC, "{error}");
        disk.write(0, IoBuf::zeroed(512), WriteFlags::FUA).await.expect("still works");
        disk.close().await.expect("closes");
    });
}

#[test]
fn slow_and_limited_servers_are_read_whole() {
    let dir = disk(8 * MIB);
    let wanted = pattern(8 * MIB);
    let limited = [
        "--filter=blocksize-policy",
        "file",
        "disk",
        "blocksize-minimum=4096",
        "blocksize-maximum=64k",
        "blocksize-error-policy=error",
    ];
    let delayed = ["--filter=delay", "file", "disk", "rdelay=2ms"];
    let rated = ["--filter=rate", "file", "disk", "rate=200M"];
    let plain = ["--mask-handshake=0", "file", "disk"];
    let simple = ["--no-sr", "file", "disk"];
    for words in [&limited[..], &delayed, &rated, &plain, &simple] {
        let (_server, socket) = Server::nbdkit(dir.path(), words);
        run(async {
            let graph = Graph::new();
            let disk = open(&graph, &at(&socket, "")).await.expect("opens");
            let reads = (0..16u64).map(|part| disk.read(part << 19, IoBufMut::new(1 << 19)));
            let parts =
                try_join_all(reads).await.unwrap_or_else(|error| panic!("{words:?}: {error}"));
            for (part, data) in parts.iter().enumerate() {
                assert!(data[..] == wanted[part << 19..(part + 1) << 19], "{words:?} part {part}");
            }
            disk.write(100, IoBuf::copy_of(&wanted[100..200]), WriteFlags::empty())
                .await
                .unwrap_or_else(|error| panic!("{words:?}: {error}"));
            disk.close().await.expect("closes");
        });
    }
}

#[test]
fn sizes_that_are_no_multiple_of_a_sector_are_kept() {
    let dir = disk(100_001);
    let (_server, socket) = Server::nbdkit(dir.path(), &["file", "disk"]);
    let wanted = pattern(100_001);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "")).await.expect("opens");
        assert_eq!(disk.size(), 100_001);
        let data = disk.read(0, IoBufMut::new(100_001)).await.expect("reads");
        assert!(data[..] == wanted[..]);
        disk.close().await.expect("closes");
    });
}
