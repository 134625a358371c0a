//! What requests do and how they are answered, in each style of headers.

use cairn_nbd_wire::*;
use cairn_testkit::{Disk, Faults, Faulty, IoKinds, Memory, Rule};

use crate::peer::{Peer, SIZE, VALUE, on_io_thread, options, server, server_of};

const STYLES: [HeaderStyle; 3] =
    [HeaderStyle::Simple, HeaderStyle::Structured, HeaderStyle::Extended];
const NONE: CommandFlags = CommandFlags::empty();
const MIB: u64 = 1 << 20;

fn payload_flag(style: HeaderStyle) -> CommandFlags {
    if style == HeaderStyle::Extended { CommandFlags::PAYLOAD_LEN } else { NONE }
}

#[test]
fn reads_return_what_was_written() {
    on_io_thread(async {
        for style in STYLES {
            let server = server().await;
            let mut peer = Peer::ready(&server, style, &[]).await;
            // Lengths around the limits between the ways in which requests are done.
            for (at, len) in [(0, 512), (100, 4096), (5, 70_000), (3 * MIB - 7, MIB), (0, 3 * MIB)]
            {
                let data: Vec<u8> = (0..len).map(|i| (i * 7 / 13) as u8).collect();
                for flags in [NONE, CommandFlags::FUA] {
                    let flags = flags | payload_flag(style);
                    let answer = peer.request(Command::WRITE, flags, at, len, &data).await;
                    assert_eq!(answer.error, 0);
                }
                let answer = peer.read(NONE, at, len).await;
                assert_eq!((answer.error, answer.data == data), (0, true), "{style:?} {at} {len}");
                if style >= HeaderStyle::Structured {
                    let answer = peer.read(CommandFlags::DF, at, len).await;
                    assert!(answer.data == data);
                    assert_eq!(answer.chunks, [(at, len, false)]);
                }
            }
            assert_eq!(peer.read(NONE, 0, 0).await.error, 0);
            assert_eq!(peer.request(Command::FLUSH, NONE, 0, 0, &[]).await.error, 0);
            peer.leave().await;
        }
    });
}

#[test]
fn zeroes_are_read_as_holes() {
    on_io_thread(async {
        let server = server().await;
        let mut peer = Peer::ready(&server, HeaderStyle::Structured, &[]).await;
        // Few bytes: the ends are looked at.
        let answer = peer.read(NONE, MIB - 512, 1024).await;
        assert_eq!(answer.chunks, [(MIB - 512, 512, false), (MIB, 512, true)]);
        assert_eq!(answer.data[..512], [VALUE; 512]);
        let answer = peer.read(NONE, 2 * MIB, 4096).await;
        assert_eq!(answer.chunks, [(2 * MIB, 4096, true)]);
        // Many bytes: the disk is asked.
        let answer = peer.read(NONE, 0, 3 * MIB).await;
        assert!(answer.chunks.contains(&(MIB, 2 * MIB, true)), "{:?}", answer.chunks);
        assert!(answer.data[MIB as usize..].iter().all(|&byte| byte == 0));
        peer.leave().await;
    });
}

#[test]
fn ranges_are_zeroed_and_trimmed() {
    on_io_thread(async {
        for style in STYLES {
            let server = server().await;
            let mut peer = Peer::ready(&server, style, &[]).await;
            let all = CommandFlags::FUA | CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO;
            for (offset, flags) in
                [(0, NONE), (8192, all), (16_384, CommandFlags::NO_HOLE), (32_768, all)]
            {
                let answer = peer.request(Command::WRITE_ZEROES, flags, offset, 4096, &[]).await;
                assert_eq!(answer.error, 0);
                assert_eq!(peer.read(NONE, offset, 4096).await.data, [0; 4096]);
                assert_eq!(peer.read(NONE, offset + 4096, 512).await.data, [VALUE; 512]);
            }
            for flags in [NONE, CommandFlags::FUA] {
                let answer = peer.request(Command::TRIM, flags, 0, MIB, &[]).await;
                assert_eq!(answer.error, 0);
            }
            assert_eq!(peer.request(Command::CACHE, NONE, 0, 3 * MIB, &[]).await.error, 0);
            peer.leave().await;
        }
    });
}

#[test]
fn invalid_requests_are_refused_and_the_session_goes_on() {
    on_io_thread(async {
        for style in STYLES {
            let server = server().await;
            let mut peer = Peer::ready(&server, style, &[]).await;
            let inval = NbdErrno::Inval.code();
            let no_space = NbdErrno::NoSpc.code();
            let data = vec![1; 1024];
            let write = payload_flag(style);
            for (command, flags, offset, len, payload, error) in [
                (Command::READ, NONE, SIZE, 1, &[][..], inval),
                (Command::READ, NONE, u64::MAX, 512, &[], inval),
                (Command::READ, NONE, 0, (32 << 20) + 1, &[], inval),
                (Command::READ, CommandFlags::NO_HOLE, 0, 512, &[], inval),
                (Command::WRITE, write, SIZE - 512, 1024, &data, no_space),
                (Command::WRITE, write | CommandFlags::DF, 0, 1024, &data, inval),
                (Command::WRITE_ZEROES, NONE, SIZE, 512, &[], no_space),
                (Command::WRITE_ZEROES, CommandFlags::REQ_ONE, 0, 512, &[], inval),
                (Command::TRIM, NONE, SIZE, 1, &[], inval),
                (Command::CACHE, NONE, 0, (32 << 20) + 1, &[], inval),
                (Command::FLUSH, CommandFlags::DF, 0, 0, &[], inval),
                (Command::BLOCK_STATUS, NONE, 0, 512, &[], inval),
                (Command::RESIZE, NONE, 0, 512, &[], inval),
                (Command(99), NONE, 0, 512, &[], inval),
            ] {
                let answer = peer.request(command, flags, offset, len, payload).await;
                assert_eq!(answer.error, error, "{style:?} {command} {offset} {len}");
            }
            assert_eq!(peer.read(NONE, 0, 512).await.data, [VALUE; 512]);
            peer.leave().await;
        }
    });
}

#[test]
fn a_read_only_export_takes_no_writes() {
    on_io_thread(async {
        let disk = Box::new(Memory::new(Disk::new(SIZE)));
        let options = cairn_nbd::ExportOptions { writable: false, ..options("disk") };
        let server = server_of(disk, options).await;
        let mut peer = Peer::ready(&server, HeaderStyle::Simple, &[]).await;
        let perm = NbdErrno::Perm.code();
        assert_eq!(peer.request(Command::WRITE, NONE, 0, 512, &[1; 512]).await.error, perm);
        assert_eq!(peer.request(Command::TRIM, NONE, 0, 512, &[]).await.error, perm);
        assert_eq!(peer.request(Command::WRITE_ZEROES, NONE, 0, 512, &[]).await.error, perm);
        assert_eq!(peer.read(NONE, 0, 512).await.data, [0; 512]);
        peer.leave().await;
    });
}

#[test]
fn status_is_told_for_the_contexts_that_were_selected() {
    on_io_thread(async {
        let server = server().await;
        let both = ["qemu:allocation-depth", "base:allocation"];
        for style in [HeaderStyle::Structured, HeaderStyle::Extended] {
            let mut peer = Peer::ready(&server, style, &both).await;
            let answer = peer.request(Command::BLOCK_STATUS, NONE, 0, SIZE, &[]).await;
            assert_eq!(answer.error, 0);
            let data = Extent { len: MIB, flags: 0 };
            let hole = Extent { len: SIZE - MIB, flags: HOLE | ZERO };
            let expected = BlockStatus { context: 0, extents: vec![data, hole] };
            assert_eq!(answer.status[0], expected);
            assert_eq!(answer.status[1].context, 1);
            let one = CommandFlags::REQ_ONE;
            let answer = peer.request(Command::BLOCK_STATUS, one, 0, SIZE, &[]).await;
            assert_eq!(answer.status[0].extents, [data]);
            let answer = peer.request(Command::BLOCK_STATUS, NONE, 0, 0, &[]).await;
            assert_eq!(answer.error, NbdErrno::Inval.code());
            peer.leave().await;
        }
    });
}

#[test]
fn a_status_request_can_name_contexts() {
    on_io_thread(async {
        let server = server().await;
        let both = ["qemu:allocation-depth", "base:allocation"];
        let mut peer = Peer::ready(&server, HeaderStyle::Extended, &both).await;
        let flag = CommandFlags::PAYLOAD_LEN;
        for (contexts, told) in [
            (vec![1], Some(1)),
            (vec![1, 0], Some(2)),
            (vec![7], None),
            (vec![0, 0], None),
            (vec![], None),
        ] {
            let payload = StatusPayload { len: 4096, contexts }.encode();
            let len = payload.len() as u64;
            let answer = peer.request(Command::BLOCK_STATUS, flag, 0, len, &payload).await;
            match told {
                Some(count) => assert_eq!((answer.error, answer.status.len()), (0, count)),
                None => assert_eq!(answer.error, NbdErrno::Inval.code()),
            }
        }
        // Longer than any list of contexts, and too short.
        for len in [5000, 3] {
            let payload = vec![0; len];
            let answer = peer.request(Command::BLOCK_STATUS, flag, 0, len as u64, &payload).await;
            assert_eq!(answer.error, NbdErrno::Inval.code());
        }
        peer.leave().await;
    });
}

#[test]
fn failures_of_the_disk_reach_the_client() {
    on_io_thread(async {
        for style in STYLES {
            let faults = Faults::default();
            let disk = Faulty::new(Box::new(Memory::new(Disk::new(SIZE))), faults.clone());
            let server = server_of(Box::new(disk), options("disk")).await;
            let mut peer = Peer::ready(&server, style, &[]).await;
            let kinds = IoKinds::READ | IoKinds::WRITE;
            faults.arm(Rule { kinds, index: 0, errno: 5, sticky: true, torn: false });
            let data = vec![1; 2 << 20];
            let write = payload_flag(style);
            for len in [512, 2 * MIB] {
                let io = NbdErrno::Io.code();
                let payload = &data[..len as usize];
                let answer = peer.request(Command::WRITE, write, 0, len, payload).await;
                assert_eq!(answer.error, io);
                assert_eq!(peer.read(NONE, 0, len).await.error, io);
            }
            faults.disarm();
            assert_eq!(peer.read(NONE, 2 * MIB, 512).await.data, [0; 512]);
            peer.leave().await;
        }
    });
}
