//! Random sequences of options and requests, well-formed and not.
//!
//! A sequence without mistakes gets a complete answer to everything; one with mistakes may be cut off.
//! Neither makes the server panic, hang, or send what is no message of the protocol.

use std::collections::HashMap;
use std::time::Duration;

use cairn_nbd_wire::*;
use cairn_testkit::{Rng, Watchdog, seeded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peer::{Peer, SIZE, on_io_thread, server};

/// Sequences in a usual run.
const SEQUENCES: u64 = 200_000;
/// Sequences between two signs of life.
const STEP: u64 = 1000;

/// What a client sends, and what it may expect.
struct Script {
    bytes: Vec<u8>,
    style: HeaderStyle,
    /// Requests that are answered, by their cookies; for reads with the length.
    requests: HashMap<u64, (Command, u64)>,
    /// Something in it is broken.
    is_broken: bool,
}

fn option(rng: &mut Rng) -> OptionRequest {
    let name = |rng: &mut Rng| ["disk", "disk", "", "other"][rng.below(4) as usize].to_owned();
    let info = |rng: &mut Rng| InfoRequest {
        name: name(rng),
        items: (0..rng.below(4)).map(|_| InfoType(rng.below(6) as u16)).collect(),
    };
    let queries = [
        "base:",
        "base:allocation",
        "qemu:",
        "qemu:allocation-depth",
        "qemu:dirty-bitmap:",
        "qemu:dirty-bitmap:x",
        "",
        "other:y",
    ];
    let meta = |rng: &mut Rng| MetaRequest {
        name: name(rng),
        queries: (0..rng.below(4))
            .map(|_| queries[rng.below(queries.len() as u64) as usize].to_owned())
            .collect(),
    };
    match rng.below(8) {
        0 => OptionRequest::List,
        1 => OptionRequest::Info(info(rng)),
        2 => OptionRequest::StructuredReply,
        3 => OptionRequest::ExtendedHeaders,
        4 => OptionRequest::ListMetaContext(meta(rng)),
        5 | 6 => OptionRequest::SetMetaContext(meta(rng)),
        _ => OptionRequest::Unknown(OptionCode(rng.below(40) as u32 + 12)),
    }
}

fn length(rng: &mut Rng) -> u64 {
    match rng.below(12) {
        0 => 0,
        1 => rng.below(SIZE),
        2 if rng.chance(10) => 1 << 20,
        3 if rng.chance(10) => (1 << 20) + rng.below(1 << 20),
        4 => rng.bits() >> rng.below(64),
        _ => rng.below(9) * 512,
    }
}

/// Breaks something in `bytes`.
fn spoil(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng.below(bytes.len() as u64) as usize;
    match rng.below(4) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
        _ => bytes.insert(at, rng.bits() as u8),
    }
}

fn script(rng: &mut Rng) -> Script {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    let mut style = HeaderStyle::Simple;
    for _ in 0..rng.below(5) {
        let option = option(rng);
        match option {
            OptionRequest::StructuredReply => style = style.max(HeaderStyle::Structured),
            OptionRequest::ExtendedHeaders => style = HeaderStyle::Extended,
            _ => {}
        }
        bytes.extend(option.encode().expect("short"));
    }
    let name = "disk".to_owned();
    let last = if rng.chance(80) {
        OptionRequest::Go(InfoRequest { name, items: Vec::new() })
    } else {
        OptionRequest::ExportName(name)
    };
    bytes.extend(last.encode().expect("short"));
    let mut requests = HashMap::new();
    for cookie in 0..rng.below(7) {
        let command = Command(rng.below(10) as u16);
        if command == Command::DISC {
            continue;
        }
        let mut flags = CommandFlags::empty();
        if rng.chance(30) {
            flags = CommandFlags::from_bits_retain(1 << rng.below(7));
        }
        flags.set(
            CommandFlags::PAYLOAD_LEN,
            style == HeaderStyle::Extended && command == Command::WRITE,
        );
        let mut len = length(rng);
        if command == Command::WRITE || style < HeaderStyle::Extended {
            len = len.min(2 << 20);
        }
        let offset = if rng.chance(90) { rng.below(SIZE) / 512 * 512 } else { rng.bits() };
        let request = Request { flags, command, cookie, offset, len };
        match style {
            HeaderStyle::Extended => bytes.extend(request.encode_extended()),
            _ => bytes.extend(request.encode_compact().expect("fits")),
        }
        if command == Command::WRITE {
            bytes.resize(bytes.len() + len as usize, cookie as u8);
        }
        requests.insert(cookie, (command, len));
    }
    let is_broken = rng.chance(40);
    if is_broken {
        spoil(rng, &mut bytes);
    }
    Script { bytes, style, requests, is_broken }
}

/// Cuts `len` bytes off, if they are there.
fn cut<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    Some(head)
}

/// Checks the server's side of an unbroken script.
fn check(script: &Script, mut bytes: &[u8]) -> Option<()> {
    cut(&mut bytes, GREETING_LEN)?;
    // Answers to options begin with another number than all replies to requests.
    while bytes.starts_with(&[0, 3, 0xe8, 0x89]) {
        let header = cut(&mut bytes, OptionReplyHeader::LEN)?;
        let header = OptionReplyHeader::decode(header.first_chunk()?).expect("valid");
        let payload = cut(&mut bytes, header.len as usize)?;
        OptionReply::decode(header.code, payload).expect("valid");
    }
    let is_reply = |bytes: &[u8]| {
        bytes.first_chunk().is_none_or(|magic| ReplyHeader::len_of(*magic, script.style).is_ok())
    };
    if !is_reply(bytes) {
        cut(&mut bytes, ExportNameReply::len(true))?;
    }
    let mut missing = script.requests.clone();
    let mut read: HashMap<u64, u64> = HashMap::new();
    while !bytes.is_empty() {
        let len = ReplyHeader::len_of(*bytes.first_chunk()?, script.style).expect("a reply");
        let (cookie, is_last) = match ReplyHeader::decode(cut(&mut bytes, len)?).expect("valid") {
            ReplyHeader::Simple(reply) => {
                let (command, len) = missing[&reply.cookie];
                if command == Command::READ && reply.error == 0 {
                    assert_eq!(script.style, HeaderStyle::Simple);
                    cut(&mut bytes, len as usize)?;
                }
                (reply.cookie, true)
            }
            ReplyHeader::Chunk(header) => {
                let payload = cut(&mut bytes, header.len as usize)?;
                let got = match header.kind {
                    ChunkType::OFFSET_DATA => payload.len() as u64 - 8,
                    ChunkType::OFFSET_HOLE => Hole::decode(payload).expect("valid").len.into(),
                    _ => 0,
                };
                *read.entry(header.cookie).or_default() += got;
                let is_last = header.flags.contains(ChunkFlags::DONE);
                let (command, len) = missing[&header.cookie];
                if is_last && !header.kind.is_error() && command == Command::READ {
                    assert_eq!(read[&header.cookie], len);
                }
                (header.cookie, is_last)
            }
        };
        if is_last {
            missing.remove(&cookie);
        }
    }
    assert!(missing.is_empty(), "no answer to {missing:?}");
    Some(())
}

#[test]
fn random_sequences_are_answered_or_cut_off() {
    let seed = seeded(0x4e42_444d);
    let full = std::env::var_os("CAIRN_TEST_FULL").is_some();
    let count = if full { 10 * SEQUENCES } else { SEQUENCES };
    let watchdog = Watchdog::start(Duration::from_mins(2));
    on_io_thread(async {
        let server = server().await;
        for index in 0..count {
            if index % STEP == 0 {
                watchdog.step(format!("sequence {index} of seed {seed}"));
            }
            let script = script(&mut Rng::for_part(seed, &[index]));
            let mut peer = Peer::raw(&server);
            let mut heard = Vec::new();
            {
                let (mut from, mut to) = tokio::io::split(&mut peer.stream);
                let send = async {
                    // The server may hang up before it has read all.
                    let _ = to.write_all(&script.bytes).await;
                    let _ = to.shutdown().await;
                };
                let ((), result) = tokio::join!(send, from.read_to_end(&mut heard));
                result.expect("readable to the end");
            }
            let ended = peer.hung_up().await;
            if !script.is_broken {
                ended.unwrap_or_else(|error| panic!("seed {seed}, sequence {index}: {error}"));
                check(&script, &heard)
                    .unwrap_or_else(|| panic!("seed {seed}, sequence {index}: cut off"));
            }
        }
    });
}
