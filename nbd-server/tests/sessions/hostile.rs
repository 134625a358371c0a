//! Clients that break the rules, among them those that made other servers fail: each test of such a
//! case names the CVE.

use std::sync::Arc;
use std::time::Duration;

use cairn_nbd::{Exports, Server, ServerOptions};
use cairn_nbd_wire::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peer::{Peer, SIZE, VALUE, on_io_thread, server};

const NONE: CommandFlags = CommandFlags::empty();

fn option(code: u32, len: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn info(name: &str) -> OptionRequest {
    OptionRequest::Info(InfoRequest { name: name.to_owned(), items: Vec::new() })
}

/// CVE-2017-9524, CVE-2017-7539: clients that leave early, at any point.
#[test]
fn clients_may_leave_at_any_point() {
    on_io_thread(async {
        let server = server().await;
        let mut all = 3u32.to_be_bytes().to_vec();
        all.extend(OptionRequest::ExtendedHeaders.encode().expect("short"));
        all.extend(info("disk").encode().expect("short"));
        let name = "disk".to_owned();
        all.extend(OptionRequest::ExportName(name).encode().expect("short"));
        let write = Request {
            flags: CommandFlags::PAYLOAD_LEN,
            command: Command::WRITE,
            cookie: 1,
            offset: 0,
            len: 64,
        };
        all.extend(write.encode_extended());
        all.extend([3; 64]);
        for end in 0..all.len() {
            let mut peer = Peer::raw(&server);
            peer.send(&all[..end]).await;
            peer.stream.shutdown().await.expect("shut down");
            // Whatever the session ends with, it ends.
            let _ = peer.hung_up().await;
        }
        let mut peer = Peer::ready(&server, HeaderStyle::Simple, &[]).await;
        assert_eq!(peer.read(NONE, 0, 64).await.data, [VALUE; 64]);
        peer.leave().await;
    });
}

/// CVE-2017-15118 (names longer than the buffer), CVE-2020-10761 (names that fill the error's text).
#[test]
fn long_names_are_refused_politely() {
    on_io_thread(async {
        let server = server().await;
        let mut peer = Peer::connect(&server).await;
        let longest = "x".repeat(MAX_STRING);
        assert_eq!(peer.refused(info(&longest)).await, ReplyCode::ERR_UNKNOWN);
        for len in [MAX_STRING + 1, 100_000] {
            let mut payload = (len as u32).to_be_bytes().to_vec();
            payload.extend(vec![b'x'; len]);
            payload.extend([0, 0]);
            for code in [OptionCode::INFO, OptionCode::GO] {
                peer.send(&option(code.0, payload.len() as u32, &payload)).await;
                let replies = peer.answers(code).await;
                assert_eq!(replies[0].code(), ReplyCode::ERR_TOO_BIG);
            }
        }
        // There is no way to refuse the oldest option, but to hang up.
        peer.send(&option(1, 5000, &[b'x'; 5000])).await;
        assert!(peer.hung_up().await.is_err());
    });
}

/// CVE-2017-15119: options whose payload is enormous.
#[test]
fn huge_options_are_skipped_or_end_the_session() {
    on_io_thread(async {
        let server = server().await;
        let mut peer = Peer::connect(&server).await;
        let len = MAX_OPTION + 1;
        peer.send(&option(OptionCode::LIST.0, len, &vec![0; len as usize])).await;
        let replies = peer.answers(OptionCode::LIST).await;
        assert_eq!(replies[0].code(), ReplyCode::ERR_TOO_BIG);
        peer.accepted(OptionRequest::List).await;
        peer.send(&option(99, u32::MAX, &[])).await;
        assert!(peer.hung_up().await.is_err());
    });
}

/// CVE-2019-14851: commands in an order that the server does not expect; also CVE-2024-7409's clients
/// that begin transmission after others have left.
#[test]
fn options_out_of_order_are_refused() {
    on_io_thread(async {
        let server = server().await;
        let mut peer = Peer::connect(&server).await;
        let meta = MetaRequest { name: "disk".into(), queries: vec!["base:allocation".into()] };
        let set = OptionRequest::SetMetaContext(meta.clone());
        assert_eq!(peer.refused(set.clone()).await, ReplyCode::ERR_INVALID);
        let list = OptionRequest::ListMetaContext(meta);
        assert_eq!(peer.refused(list).await, ReplyCode::ERR_INVALID);
        assert_eq!(peer.refused(OptionRequest::StartTls).await, ReplyCode::ERR_POLICY);
        peer.accepted(OptionRequest::StructuredReply).await;
        assert_eq!(peer.refused(OptionRequest::StructuredReply).await, ReplyCode::ERR_INVALID);
        assert_eq!(peer.accepted(set).await.len(), 1);
        peer.accepted(OptionRequest::ExtendedHeaders).await;
        assert_eq!(peer.refused(OptionRequest::ExtendedHeaders).await, ReplyCode::ERR_INVALID);
        let again = peer.refused(OptionRequest::StructuredReply).await;
        assert_eq!(again, ReplyCode::ERR_EXT_HEADER_REQD);
        assert_eq!(peer.refused(info("other")).await, ReplyCode::ERR_UNKNOWN);
        assert_eq!(
            peer.refused(OptionRequest::Unknown(OptionCode(77))).await,
            ReplyCode::ERR_UNSUP
        );
        peer.accepted(OptionRequest::Abort).await;
        peer.hung_up().await.expect("a session that ended well");
    });
}

/// Contexts of one export are worth nothing for another, and a failed selection voids the former one.
#[test]
fn a_failed_selection_voids_the_former_one() {
    on_io_thread(async {
        let server = server().await;
        let mut peer = Peer::connect(&server).await;
        peer.negotiate(HeaderStyle::Structured).await;
        let queries = vec!["base:allocation".to_owned()];
        let set = |name: &str| {
            let request = MetaRequest { name: name.to_owned(), queries: queries.clone() };
            OptionRequest::SetMetaContext(request)
        };
        peer.accepted(set("disk")).await;
        assert_eq!(peer.refused(set("other")).await, ReplyCode::ERR_UNKNOWN);
        peer.go("disk").await;
        let answer = peer.request(Command::BLOCK_STATUS, NONE, 0, 512, &[]).await;
        assert_eq!(answer.error, NbdErrno::Inval.code());
        peer.leave().await;
    });
}

/// CVE-2021-20286 from the other side: what is no option, and flags that nobody knows.
#[test]
fn what_is_not_nbd_ends_the_session() {
    on_io_thread(async {
        let server = server().await;
        for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 64], &[255; 64]] {
            let mut peer = Peer::raw(&server);
            peer.send(bytes).await;
            assert!(peer.hung_up().await.is_err());
        }
        // A client of the oldest kind may send one option only.
        let mut peer = Peer::raw(&server);
        peer.send(&0u32.to_be_bytes()).await;
        peer.send(&option(OptionCode::LIST.0, 0, &[])).await;
        assert!(peer.hung_up().await.is_err());
        let mut peer = Peer::raw(&server);
        peer.send(&0u32.to_be_bytes()).await;
        peer.send(&option(1, 4, b"disk")).await;
        let mut reply = vec![0; GREETING_LEN + ExportNameReply::len(false)];
        peer.stream.read_exact(&mut reply).await.expect("an export with its zeroes");
        peer.leave().await;
    });
}

/// A header that is no request cannot be skipped, nor can a payload beyond the limit.
#[test]
fn broken_requests_end_the_session() {
    on_io_thread(async {
        let server = server().await;
        let mut peer = Peer::ready(&server, HeaderStyle::Simple, &[]).await;
        peer.send(&[0; 28]).await;
        assert!(peer.hung_up().await.is_err());
        let mut peer = Peer::ready(&server, HeaderStyle::Simple, &[]).await;
        let answer = peer.request(Command::WRITE, NONE, 0, (32 << 20) + 1, &[]).await;
        assert_eq!(answer.error, NbdErrno::Inval.code());
        peer.hung_up().await.expect("a refusal before the end");
        // In the other style of headers.
        let mut peer = Peer::ready(&server, HeaderStyle::Extended, &[]).await;
        peer.send(&[0x25, 0x60, 0x95, 0x13]).await;
        peer.send(&[0; 28]).await;
        assert!(peer.hung_up().await.is_err());
    });
}

/// A client that asks for much and takes nothing keeps no more than its share, and nobody else waits.
#[test]
fn a_client_that_reads_nothing_holds_up_nobody() {
    on_io_thread(async {
        let server = server().await;
        let mut greedy = Peer::ready(&server, HeaderStyle::Simple, &[]).await;
        let (mut asked, mut stuck) = (0u64, false);
        while !stuck {
            let (command, len) =
                if asked % 2 == 0 { (Command::READ, SIZE) } else { (Command(77), 0) };
            let request = Request { flags: NONE, command, cookie: asked, offset: 0, len };
            let bytes = request.encode_compact().expect("fits");
            let sent = tokio::time::timeout(Duration::from_millis(200), greedy.send(&bytes)).await;
            stuck = sent.is_err();
            asked += 1;
            assert!(asked < 100_000, "the server takes requests without end");
        }
        let mut peer = Peer::ready(&server, HeaderStyle::Simple, &[]).await;
        assert_eq!(peer.read(NONE, 0, 64).await.data, [VALUE; 64]);
        peer.leave().await;
        drop(greedy);
    });
}

/// Handshakes that come to nothing end by themselves.
#[test]
fn silent_clients_are_disconnected() {
    on_io_thread(async {
        let exports = Arc::new(Exports::default());
        let handshake_limit = Some(Duration::from_millis(50));
        let options = ServerOptions { handshake_limit, ..ServerOptions::default() };
        let server = Arc::new(Server::new(exports, options));
        let peer = Peer::connect(&server).await;
        let error = peer.hung_up().await.expect_err("too slow");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    });
}
