//! Servers that send anything. What they send is ready before the client begins, since nothing of it
//! depends on the client; whatever it is, requests end with data or an error, and in bounded memory.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cairn_block::driver::WriteFlags;
use cairn_block::graph::Graph;
use cairn_block::{IoBuf, IoBufMut};
use cairn_nbd_wire::{
    BlockSizes, BlockStatus, ChunkFlags, ChunkHeader, ChunkType, DataHeader, ErrorChunk,
    ExportFlags, Extent, Greeting, HandshakeFlags, Hole, InfoItem, OldstyleExport, OptionCode,
    OptionReply, ReplyCode, SimpleReply,
};
use cairn_testkit::{Rng, Watchdog, seeded};

use super::support::{open, run};

/// Servers that are played; several tests share them, so that they run side by side.
const ROUNDS: u64 = 50_000;

/// Where the client's first requests are in its table.
fn cookie(rng: &mut Rng) -> u64 {
    let index = rng.below(4);
    (1 + rng.below(2)) << 32 | index
}

/// One message of a server, more often valid than not.
struct Play {
    rng: Rng,
    bytes: Vec<u8>,
}

impl Play {
    fn reply(&mut self, option: OptionCode, reply: &OptionReply) {
        reply.encode(option, &mut self.bytes).expect("valid");
    }

    /// A handshake, and whether it ends with structured (1) or extended (2) replies.
    fn handshake(&mut self) -> u64 {
        let all = ExportFlags::from_bits_retain(0x0dff);
        let read_only = if self.rng.chance(10) { 0 } else { ExportFlags::READ_ONLY.bits() };
        let flags = ExportFlags::from_bits_retain(all.bits() & !read_only);
        let size =
            [0, 512, 65_536, 1 << 20, u64::MAX][usize::try_from(self.rng.below(5)).expect("small")];
        if self.rng.chance(10) {
            self.bytes.extend(Greeting::oldstyle());
            self.bytes.extend(OldstyleExport { size, flags }.encode());
            return 0;
        }
        let handshake = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        self.bytes.extend(Greeting::newstyle(handshake));
        let style = self.rng.below(3);
        let unknown = OptionReply::Error { code: ReplyCode::ERR_UNSUP, message: String::new() };
        let (extended, structured) = (OptionCode::EXTENDED_HEADERS, OptionCode::STRUCTURED_REPLY);
        match style {
            2 => self.reply(extended, &OptionReply::Ack),
            1 => {
                self.reply(extended, &unknown);
                self.reply(structured, &OptionReply::Ack);
            }
            _ => {
                self.reply(extended, &unknown);
                self.reply(structured, &unknown);
            }
        }
        if style > 0 {
            let context = OptionReply::MetaContext { id: 7, name: "base:allocation".to_owned() };
            if self.rng.chance(80) {
                self.reply(OptionCode::SET_META_CONTEXT, &context);
            }
            self.reply(OptionCode::SET_META_CONTEXT, &OptionReply::Ack);
        }
        let min = 1 << self.rng.below(14);
        let sizes = BlockSizes { min, preferred: 4096.max(min), max: 32 << 20 };
        if self.rng.chance(50) {
            self.reply(OptionCode::GO, &OptionReply::Info(InfoItem::BlockSize(sizes)));
        }
        self.reply(OptionCode::GO, &OptionReply::Info(InfoItem::Export { size, flags }));
        self.reply(OptionCode::GO, &OptionReply::Ack);
        style
    }

    fn len(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => 4096,
            1 => self.rng.below(8192),
            2 => self.rng.bits(),
            _ => 512,
        }
    }

    /// A reply of a server that uses `style`.
    fn answer(&mut self, style: u64) {
        let cookie = cookie(&mut self.rng);
        if style == 0 || self.rng.chance(10) {
            let error = if self.rng.chance(30) { 22 } else { 0 };
            self.bytes.extend(SimpleReply { error, cookie }.encode());
            if self.rng.chance(50) {
                self.bytes.extend([9; 4096]);
            }
            return;
        }
        let mut payload = Vec::new();
        let kind = match self.rng.below(6) {
            0 => ChunkType::NONE,
            1 => {
                let offset = self.rng.below(3) * 2048;
                payload.extend(DataHeader { offset }.encode());
                payload.resize(8 + if self.rng.chance(50) { 2048 } else { 4096 }, 5);
                ChunkType::OFFSET_DATA
            }
            2 => {
                let len = u32::try_from(self.len() & 0xffff_ffff).expect("masked");
                payload.extend(Hole { offset: self.rng.below(2) * 2048, len }.encode());
                ChunkType::OFFSET_HOLE
            }
            3 | 4 => {
                let extents = (0..=self.rng.below(3))
                    .map(|_| Extent {
                        len: 1 + (self.len() & 0xfff_ffff),
                        flags: self.rng.below(4),
                    })
                    .collect();
                let status = BlockStatus { context: 7, extents };
                status.encode(style == 2, &mut payload).expect("small");
                if style == 2 { ChunkType::BLOCK_STATUS_EXT } else { ChunkType::BLOCK_STATUS }
            }
            _ => {
                let offset = self.rng.chance(50).then_some(3);
                let chunk = ErrorChunk { error: 5, message: "no\u{1b}[2J".to_owned(), offset };
                chunk.encode(&mut payload).expect("short");
                chunk.kind()
            }
        };
        let flags = if self.rng.chance(60) { ChunkFlags::DONE } else { ChunkFlags::empty() };
        let mut len = payload.len() as u64;
        if self.rng.chance(5) {
            len = self.len();
        }
        let header = ChunkHeader { flags, kind, cookie, offset: 0, len };
        if header.encode(style == 2, &mut self.bytes).is_ok() {
            self.bytes.extend(payload);
        }
    }

    /// All that one server sends.
    fn server(mut self) -> Vec<u8> {
        let style = self.handshake();
        let handshake = self.bytes.len() as u64;
        for _ in 0..self.rng.below(8) {
            self.answer(style);
        }
        // Damage: sometimes in the handshake, often nowhere.
        if self.rng.chance(40) {
            let end = if self.rng.chance(50) { handshake } else { self.bytes.len() as u64 };
            let at = usize::try_from(self.rng.below(end)).expect("small");
            let bits = self.rng.bits().to_le_bytes();
            match self.rng.below(3) {
                0 => self.bytes[at] ^= 1 << (bits[0] & 7),
                1 => self.bytes.truncate(at),
                _ => self.bytes.iter_mut().skip(at).zip(bits).for_each(|(to, from)| *to = from),
            }
        }
        self.bytes
    }
}

/// Opens the export of a server that sends `bytes` and makes some requests. Returns how many of them
/// succeeded.
async fn use_server(bytes: &[u8]) -> usize {
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    theirs.set_nonblocking(true).expect("a socket");
    // What does not fit is never sent: the client is cut off there.
    let _ = theirs.write(bytes);
    theirs.shutdown(Shutdown::Write).expect("a socket");
    let graph = Graph::new();
    let name = format!("driver=nbd,server.type=fd,server.str={}", ours.as_raw_fd());
    let Ok(disk) = open(&graph, &name).await else { return 0 };
    drop(ours);
    let requests = async {
        tokio::join!(
            async { disk.read(0, IoBufMut::new(4096)).await.is_ok() },
            async { disk.block_status(0, 1 << 20, true).await.is_ok() },
            async { disk.write(0, IoBuf::zeroed(4096), WriteFlags::FUA).await.is_ok() },
            async { disk.write_zeroes(0, 4096, WriteFlags::MAY_UNMAP).await.is_ok() },
        )
    };
    let (read, status, written, zeroed) = requests.await;
    // Whether the server takes its leave in order does not matter.
    let _ = disk.close().await;
    [read, status, written, zeroed].into_iter().filter(|succeeded| *succeeded).count()
}

/// Plays a fourth of the servers; some requests must succeed, or nothing was tested.
fn play(part: u64) {
    let watchdog = Watchdog::start(Duration::from_mins(1));
    let succeeded = AtomicUsize::new(0);
    run(async {
        for round in 0..ROUNDS {
            if round % 1000 == 0 {
                watchdog.step(format!("round {round} of part {part}"));
            }
            let rng = Rng::for_part(seeded(4), &[part, round]);
            let bytes = Play { rng, bytes: Vec::new() }.server();
            succeeded.fetch_add(use_server(&bytes).await, Ordering::Relaxed);
        }
    });
    assert!(succeeded.into_inner() > 1000, "hardly any request succeeded");
}

#[test]
fn any_server_is_survived_first_part() {
    play(0);
}

#[test]
fn any_server_is_survived_second_part() {
    play(1);
}

#[test]
fn any_server_is_survived_third_part() {
    play(2);
}

#[test]
fn any_server_is_survived_fourth_part() {
    play(3);
}
