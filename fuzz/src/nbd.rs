//! An NBD server's side of a connection, all of it sent before the client begins.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use cairn_block::IoBufMut;
use cairn_block::engine::{EngineConfig, Mode, block_on};
use cairn_block::graph::{Graph, NodeFlags, OpenOptions};
use cairn_block::options::Dict;

/// Uses an export of a server that sends `data`.
pub fn nbd(data: &[u8]) {
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    theirs.set_nonblocking(true).expect("a socket");
    // What does not fit is never sent: the client is cut off there.
    let _ = theirs.write(data);
    theirs.shutdown(Shutdown::Write).expect("a socket");
    // Threads start up faster than a ring, and nothing here reads files.
    let config = EngineConfig { mode: Mode::Threads, ..EngineConfig::default() };
    block_on(&config, async {
        let server = [("type", "fd".to_owned()), ("str", ours.as_raw_fd().to_string())];
        let mut options = Dict::from([("driver", "nbd")]);
        options.insert("server", Dict::from(server));
        let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
        let what = OpenOptions { filename: None, options, flags };
        let Ok(disk) = Graph::new().open(what).await else { return };
        let read = disk.read(0, IoBufMut::new(4096));
        let status = disk.driver().block_status(0, 1 << 20, true);
        // Whether they succeed is the server's choice.
        let _ = futures_util::future::join(read, status).await;
        let _ = disk.driver().close().await;
    })
    .expect("a runtime can be made");
}
