//! Servers that go away and come back.

use std::time::Duration;

use cairn_block::driver::WriteFlags;
use cairn_block::graph::Graph;
use cairn_block::{IoBuf, IoBufMut};

use super::support::{Server, at, disk, open, open_error, pattern, run};

const MIB: usize = 1 << 20;

#[test]
fn without_a_delay_requests_fail_until_the_server_is_back() {
    let dir = disk(MIB);
    let words = ["-f", "raw", "disk"];
    let (server, socket) = Server::stock(dir.path(), &words);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "")).await.expect("opens");
        disk.read(0, IoBufMut::new(512)).await.expect("reads");
        drop(server);
        let error = disk.read(0, IoBufMut::new(512)).await.expect_err("the server is gone");
        assert_eq!(error.errno(), libc::EIO, "{error}");
        let (_server, _) = Server::stock(dir.path(), &words);
        // The client tries in the background.
        while disk.read(0, IoBufMut::new(512)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        disk.close().await.expect("closes");
    });
}

#[test]
fn with_a_delay_requests_wait_for_the_server() {
    let dir = disk(MIB);
    let words = ["-f", "raw", "disk"];
    let (server, socket) = Server::stock(dir.path(), &words);
    let wanted = pattern(MIB);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "reconnect-delay=60")).await.expect("opens");
        drop(server);
        let read = async {
            let data = disk.read(0, IoBufMut::new(MIB)).await.expect("is made again");
            assert!(data[..] == wanted[..]);
            disk.write(0, IoBuf::copy_of(&wanted), WriteFlags::FUA).await.expect("writes");
        };
        let restart = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Server::stock(dir.path(), &words).0
        };
        let ((), server) = tokio::join!(read, restart);
        disk.close().await.expect("closes");
        drop(server);
    });
}

#[test]
fn a_server_that_hangs_up_in_mid_request_is_asked_again() {
    let dir = disk(MIB);
    let flaky = ["--filter=error", "file", "disk", "error-pread=ESHUTDOWN", "error-pread-rate=0%"];
    // Every connection ends after some time, whatever it is doing.
    let script = "--filter=exitlast";
    let words = [&[script][..], &flaky].concat();
    let (server, socket) = Server::nbdkit(dir.path(), &words);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "reconnect-delay=60")).await.expect("opens");
        drop(server);
        let (_server, _) = Server::nbdkit(dir.path(), &words);
        let reads = (0..16u64).map(|part| disk.read(part << 16, IoBufMut::new(1 << 16)));
        let all = futures_util::future::try_join_all(reads).await.expect("all are made again");
        assert_eq!(all.len(), 16);
        disk.close().await.expect("closes");
    });
}

#[test]
fn the_delay_ends() {
    let dir = disk(MIB);
    let (server, socket) = Server::stock(dir.path(), &["-f", "raw", "disk"]);
    run(async {
        let graph = Graph::new();
        let disk = open(&graph, &at(&socket, "reconnect-delay=1")).await.expect("opens");
        drop(server);
        let error = disk.read(0, IoBufMut::new(512)).await.expect_err("it never comes back");
        assert_eq!(error.errno(), libc::EIO, "{error}");
        disk.close().await.expect("closes");
    });
}

#[test]
fn opening_waits_for_a_server_that_is_starting() {
    let dir = disk(MIB);
    let socket = dir.path().join("stock.sock");
    run(async {
        let graph = Graph::new();
        let opening = async {
            let disk = open(&graph, &at(&socket, "open-timeout=60")).await.expect("opens");
            disk.close().await.expect("closes");
        };
        let starting = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Server::stock(dir.path(), &["-f", "raw", "disk"])
        };
        let ((), server) = tokio::join!(opening, starting);
        drop(server);
        let error = open_error(&graph, &at(&dir.path().join("absent"), "open-timeout=1")).await;
        assert_eq!(error.errno(), libc::ENOENT, "{error}");
    });
}

#[test]
fn a_server_that_never_greets_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("silent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    run(async {
        let error = open_error(&Graph::new(), &at(&socket, "open-timeout=1")).await;
        assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
    });
}
