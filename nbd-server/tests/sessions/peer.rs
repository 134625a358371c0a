//! A server on a disk in memory, and a client that speaks in single messages.

use std::io;
use std::sync::Arc;

use cairn_block::IoBuf;
use cairn_block::driver::{Driver, WriteFlags};
use cairn_block::engine::{EngineConfig, Mode, block_on, spawn_local};
use cairn_block::graph::{Backend, Graph, NodeFlags};
use cairn_block::options::CacheMode;
use cairn_nbd::{Export, ExportOptions, Exports, Server, ServerOptions};
use cairn_nbd_wire::*;
use cairn_testkit::{Disk, Memory};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

/// Size of the disk in bytes.
pub(crate) const SIZE: u64 = 4 << 20;
/// The disk has this value in its first MiB, and zeroes behind it.
pub(crate) const VALUE: u8 = 7;

/// Runs a test on an I/O thread.
pub(crate) fn on_io_thread<T>(test: impl Future<Output = T>) -> T {
    // Threads start up faster than a ring, and nothing here does I/O.
    let config = EngineConfig { mode: Mode::Threads, ..EngineConfig::default() };
    block_on(&config, test).expect("an I/O thread")
}

/// How the server's export is made.
pub(crate) fn options(name: &str) -> ExportOptions {
    ExportOptions {
        name: name.to_owned(),
        description: Some("a disk in memory".to_owned()),
        writable: true,
        multi_conn: true,
        allocation_depth: true,
        bitmaps: Vec::new(),
        cache: CacheMode::Writeback,
    }
}

/// A server of `driver`, whose export is called "disk".
pub(crate) async fn server_of(driver: Box<dyn Driver>, options: ExportOptions) -> Arc<Server> {
    let graph = Graph::new();
    let flags = NodeFlags { unmap: true, ..NodeFlags::default() };
    let node = graph.add_driver("disk", flags, driver).expect("a node");
    if node.size() == SIZE && options.writable {
        let all = cairn_block::driver::Perm::all();
        let backend = Backend::new(&graph, Arc::clone(&node), "test", all, all).expect("a user");
        let data = IoBuf::copy_of(&vec![VALUE; 1 << 20]);
        backend.write(0, data, WriteFlags::empty()).await.expect("written");
        drop(backend);
    }
    let export = Export::new(&graph, node, options).await.expect("an export");
    let exports = Arc::new(Exports::default());
    exports.add(export).expect("the only one");
    let options = ServerOptions { handshake_limit: None, ..ServerOptions::default() };
    Arc::new(Server::new(exports, options))
}

/// A server of a disk in memory.
pub(crate) async fn server() -> Arc<Server> {
    server_of(Box::new(Memory::new(Disk::new(SIZE))), options("disk")).await
}

/// The result of one request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// Number of the error, or 0.
    pub(crate) error: u32,
    /// What was read.
    pub(crate) data: Vec<u8>,
    /// Offset, length and whether it is a hole, of each chunk.
    pub(crate) chunks: Vec<(u64, u64, bool)>,
    /// Status by context.
    pub(crate) status: Vec<BlockStatus>,
}

/// A client.
pub(crate) struct Peer {
    pub(crate) stream: DuplexStream,
    served: JoinHandle<io::Result<()>>,
    style: HeaderStyle,
    cookie: u64,
}

impl Peer {
    /// A client of `server` after the greeting.
    pub(crate) async fn connect(server: &Arc<Server>) -> Peer {
        let mut peer = Peer::raw(server);
        let mut greeting = [0; GREETING_LEN];
        peer.stream.read_exact(&mut greeting).await.expect("greeting");
        let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        assert_eq!(greeting, Greeting::newstyle(flags));
        peer.send(&3u32.to_be_bytes()).await;
        peer
    }

    /// A client that has sent and read nothing.
    pub(crate) fn raw(server: &Arc<Server>) -> Peer {
        let (stream, other) = tokio::io::duplex(64 << 10);
        let server = Arc::clone(server);
        let served = spawn_local(async move { Box::pin(server.serve(Box::new(other))).await });
        Peer { stream, served, style: HeaderStyle::Simple, cookie: 0 }
    }

    /// A client in transmission, with these contexts selected.
    pub(crate) async fn ready(server: &Arc<Server>, style: HeaderStyle, queries: &[&str]) -> Peer {
        let mut peer = Peer::connect(server).await;
        peer.negotiate(style).await;
        if !queries.is_empty() {
            let queries = queries.iter().map(|&query| query.to_owned()).collect();
            let request = MetaRequest { name: "disk".to_owned(), queries };
            peer.accepted(OptionRequest::SetMetaContext(request)).await;
        }
        peer.go("disk").await;
        peer
    }

    pub(crate) async fn negotiate(&mut self, style: HeaderStyle) {
        match style {
            HeaderStyle::Simple => {}
            HeaderStyle::Structured => drop(self.accepted(OptionRequest::StructuredReply).await),
            HeaderStyle::Extended => drop(self.accepted(OptionRequest::ExtendedHeaders).await),
        }
        self.style = style;
    }

    pub(crate) async fn go(&mut self, name: &str) -> Vec<OptionReply> {
        let request = InfoRequest { name: name.to_owned(), items: Vec::new() };
        self.accepted(OptionRequest::Go(request)).await
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server reads");
    }

    async fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await.expect("the server answers");
        bytes
    }

    /// Sends an option and returns the answers up to the last.
    pub(crate) async fn ask(&mut self, option: OptionRequest) -> Vec<OptionReply> {
        self.send(&option.encode().expect("short")).await;
        self.answers(option.code()).await
    }

    /// The answers to an option.
    pub(crate) async fn answers(&mut self, option: OptionCode) -> Vec<OptionReply> {
        let mut replies = Vec::new();
        loop {
            let header = self.bytes(OptionReplyHeader::LEN).await;
            let header = header.first_chunk().expect("whole");
            let header = OptionReplyHeader::decode(header).expect("valid");
            assert_eq!(header.option, option);
            let payload = self.bytes(header.len as usize).await;
            let reply = OptionReply::decode(header.code, &payload).expect("valid");
            let is_last = reply == OptionReply::Ack || header.code.is_error();
            replies.push(reply);
            if is_last {
                return replies;
            }
        }
    }

    /// Sends an option that is granted.
    pub(crate) async fn accepted(&mut self, option: OptionRequest) -> Vec<OptionReply> {
        let mut replies = self.ask(option).await;
        assert_eq!(replies.pop(), Some(OptionReply::Ack), "after {replies:?}");
        replies
    }

    /// Sends an option that is refused, and returns why.
    pub(crate) async fn refused(&mut self, option: OptionRequest) -> ReplyCode {
        match self.ask(option).await.as_slice() {
            [OptionReply::Error { code, message }] if !message.is_empty() => *code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends a request and returns the answer.
    pub(crate) async fn request(
        &mut self,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        len: u64,
        payload: &[u8],
    ) -> Answer {
        self.cookie += 1;
        let request = Request { flags, command, cookie: self.cookie, offset, len };
        if self.style == HeaderStyle::Extended {
            self.send(&request.encode_extended()).await;
        } else {
            self.send(&request.encode_compact().expect("fits")).await;
        }
        self.send(payload).await;
        self.answer(&request).await
    }

    pub(crate) async fn read(&mut self, flags: CommandFlags, offset: u64, len: u64) -> Answer {
        self.request(Command::READ, flags, offset, len, &[]).await
    }

    async fn answer(&mut self, request: &Request) -> Answer {
        let mut answer = Answer::default();
        if request.command == Command::READ {
            answer.data = vec![0xee; request.len as usize];
        }
        loop {
            let mut head = self.bytes(ReplyHeader::MIN_LEN).await;
            let len = ReplyHeader::len_of(*head.first_chunk().expect("whole"), self.style);
            let len = len.expect("a reply of the negotiated style");
            head.extend(self.bytes(len - ReplyHeader::MIN_LEN).await);
            match ReplyHeader::decode(&head).expect("valid") {
                ReplyHeader::Simple(reply) => {
                    assert_eq!(reply.cookie, request.cookie);
                    answer.error = reply.error;
                    if request.command == Command::READ && reply.error == 0 {
                        answer.data = self.bytes(request.len as usize).await;
                    }
                    return answer;
                }
                ReplyHeader::Chunk(header) => {
                    assert_eq!(header.cookie, request.cookie);
                    if self.style == HeaderStyle::Extended {
                        assert_eq!(header.offset, request.offset);
                    }
                    let payload = self.bytes(header.len as usize).await;
                    answer.add(request, header, &payload, self.style);
                    if header.flags.contains(ChunkFlags::DONE) {
                        return answer;
                    }
                }
            }
        }
    }

    /// Ends the session; the server's side of it has to end well.
    pub(crate) async fn leave(mut self) {
        let request = Request {
            flags: CommandFlags::empty(),
            command: Command::DISC,
            cookie: 0,
            offset: 0,
            len: 0,
        };
        if self.style == HeaderStyle::Extended {
            self.send(&request.encode_extended()).await;
        } else {
            self.send(&request.encode_compact().expect("fits")).await;
        }
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.expect("the server hangs up");
        assert_eq!(rest, b"");
        self.served.await.expect("no panic").expect("a session that ended well");
    }

    /// Waits until the server has hung up, and returns why.
    pub(crate) async fn hung_up(mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.expect("the server hangs up");
        self.served.await.expect("no panic")
    }
}

impl Answer {
    fn add(&mut self, request: &Request, header: ChunkHeader, payload: &[u8], style: HeaderStyle) {
        let (start, len, hole) = match header.kind {
            ChunkType::NONE => return,
            ChunkType::OFFSET_DATA => {
                let (head, data) = payload.split_first_chunk().expect("an offset");
                let DataHeader { offset } = DataHeader::decode(head);
                let at = (offset - request.offset) as usize;
                self.data[at..at + data.len()].copy_from_slice(data);
                (offset, data.len() as u64, false)
            }
            ChunkType::OFFSET_HOLE => {
                let Hole { offset, len } = Hole::decode(payload).expect("valid");
                let at = (offset - request.offset) as usize;
                self.data[at..at + len as usize].fill(0);
                (offset, len.into(), true)
            }
            ChunkType::BLOCK_STATUS | ChunkType::BLOCK_STATUS_EXT => {
                let extended = style == HeaderStyle::Extended;
                assert_eq!(extended, header.kind == ChunkType::BLOCK_STATUS_EXT);
                self.status.push(BlockStatus::decode(extended, payload).expect("valid"));
                return;
            }
            kind => {
                self.error = ErrorChunk::decode(kind, payload).expect("an error").error;
                return;
            }
        };
        self.chunks.push((start, len, hole));
    }
}
