//! What every node does for its driver: alignment, splitting, zero writes, flushes, permissions,
//! drain and reopen. The driver below is as simple as can be and counts what reaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cairn_block::driver::{
    Driver, DriverFuture, DriverInfo, DriverKind, Limits, Perm, Resize, Role, WriteFlags,
    unsupported,
};
use cairn_block::engine::{self, EngineConfig};
use cairn_block::error::{Error, Result};
use cairn_block::graph::{Backend, Graph, Node, NodeFlags, OpenContext};
use cairn_block::options::DetectZeroes;
use cairn_block::{IoBuf, IoBufMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

static RAM: DriverInfo = DriverInfo {
    name: "ram",
    kind: DriverKind::Protocol,
    open: |_: &mut OpenContext<'_>| unsupported("ram", "made by the test only"),
    probe: None,
    prefixes: &[],
    parse_filename: None,
    probe_device: None,
    options: &[],
    create_options: &[],
    create: None,
    measure: None,
    supports_backing: false,
};

/// What a test sees of its driver.
#[derive(Default)]
struct Shared {
    bytes: Mutex<Vec<u8>>,
    writes: AtomicUsize,
    zero_writes: AtomicUsize,
    flushes: AtomicUsize,
    read_only: AtomicBool,
    refuse_reopen: AtomicBool,
    /// Writes wait for this while `hold` is set.
    hold: AtomicBool,
    go: Notify,
}

struct Ram {
    shared: Arc<Shared>,
    limits: Limits,
    zeroes: bool,
}

fn place(offset: u64, len: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).expect("small");
    start..start + len
}

impl Driver for Ram {
    fn info(&self) -> &'static DriverInfo {
        &RAM
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn size(&self) -> u64 {
        self.shared.bytes.lock().len() as u64
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn read(&self, offset: u64, mut buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            self.check(offset, buf.len() as u64);
            let bytes = self.shared.bytes.lock();
            let have = &bytes[place(offset, buf.len().min(bytes.len() - place(offset, 0).start))];
            buf[..have.len()].copy_from_slice(have);
            Ok(buf)
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            assert!(flags.is_empty(), "the driver does not offer {flags:?}");
            self.check(offset, buf.len() as u64);
            self.shared.writes.fetch_add(1, Ordering::Relaxed);
            while self.shared.hold.load(Ordering::Relaxed) {
                self.shared.go.notified().await;
            }
            // Another request gets its turn in the middle, as on a real device.
            tokio::task::yield_now().await;
            let mut bytes = self.shared.bytes.lock();
            let place = place(offset, buf.len());
            if bytes.len() < place.end {
                bytes.resize(place.end, 0);
            }
            bytes[place].copy_from_slice(&buf);
            Ok(())
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, _: WriteFlags) -> DriverFuture<'_, ()> {
        if !self.zeroes || !(offset | len).is_multiple_of(4096) {
            return unsupported("ram", "zero writes are whole pages");
        }
        Box::pin(async move {
            self.shared.zero_writes.fetch_add(1, Ordering::Relaxed);
            let len = usize::try_from(len).expect("small");
            self.shared.bytes.lock()[place(offset, len)].fill(0);
            Ok(())
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async {
            self.shared.flushes.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    fn resize(&self, size: u64, _: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.shared.bytes.lock().resize(usize::try_from(size).expect("small"), 0);
            Ok(())
        })
    }

    fn reopen(&self, read_only: bool) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if self.shared.refuse_reopen.load(Ordering::Relaxed) {
                return Err(Error::unsupported("ram", "it stays as it is"));
            }
            self.shared.read_only.store(read_only, Ordering::Relaxed);
            Ok(())
        })
    }
}

impl Ram {
    fn check(&self, offset: u64, len: u64) {
        let align = u64::from(self.limits.request_alignment);
        assert!((offset | len).is_multiple_of(align), "{offset}+{len} is not aligned");
        assert!(self.limits.max_transfer == 0 || len <= self.limits.max_transfer, "{len} too long");
        assert!(len > 0, "empty request");
    }
}

const SIZE: usize = 256 << 10;

struct Setup {
    graph: Arc<Graph>,
    node: Arc<Node>,
    shared: Arc<Shared>,
}

fn setup(limits: Limits, flags: NodeFlags) -> Setup {
    let shared = Arc::new(Shared { bytes: Mutex::new(vec![0; SIZE]), ..Shared::default() });
    let driver = Ram { shared: Arc::clone(&shared), limits, zeroes: true };
    let graph = Graph::new();
    let node = graph.add_driver("ram0", flags, Box::new(driver)).expect("fresh name");
    Setup { graph, node, shared }
}

impl Setup {
    fn user(&self, used: Perm, shared: Perm) -> Result<Backend> {
        Backend::new(&self.graph, Arc::clone(&self.node), "test", used, shared)
    }

    fn writer(&self) -> Backend {
        self.user(Perm::CONSISTENT_READ | Perm::WRITE | Perm::RESIZE, Perm::all()).expect("alone")
    }
}

fn run(test: impl Future<Output = ()>) {
    engine::block_on(&EngineConfig::default(), test).expect("an I/O thread");
}

fn aligned_to(request_alignment: u32) -> Limits {
    Limits { request_alignment, min_mem_alignment: request_alignment, ..Limits::default() }
}

/// A small generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn unaligned_requests_keep_their_neighbours() {
    run(async {
        for align in [1, 512, 4096] {
            let setup = setup(aligned_to(align), NodeFlags::default());
            let backend = setup.writer();
            let mut model = vec![0; SIZE];
            let mut numbers = Numbers(u64::from(align));
            for round in 1..200_u8 {
                let offset = numbers.below(SIZE as u64 - 1);
                let len = 1 + numbers.below((SIZE as u64 - offset).min(20_000));
                let len = usize::try_from(len).expect("small");
                let data = vec![round; len];
                backend
                    .write(offset, IoBuf::copy_of(&data), WriteFlags::empty())
                    .await
                    .expect("write");
                model[place(offset, len)].copy_from_slice(&data);
                let offset = numbers.below(SIZE as u64 - 5_000);
                let got = backend.read(offset, IoBufMut::new(5_000)).await.expect("read");
                assert_eq!(got[..], model[place(offset, 5_000)]);
            }
            assert!(*setup.shared.bytes.lock() == model, "alignment {align}");
        }
    });
}

#[test]
fn overlapping_partial_writes_do_not_undo_each_other() {
    run(async {
        let setup = setup(aligned_to(4096), NodeFlags::default());
        let backend = setup.writer();
        let writes = (0..64_u8).map(|i| {
            let data = IoBuf::copy_of(&[i + 1; 64]);
            backend.write(u64::from(i) * 64, data, WriteFlags::empty())
        });
        futures_util::future::try_join_all(writes).await.expect("writes");
        let got = backend.read(0, IoBufMut::new(4096)).await.expect("read");
        for (i, part) in got.chunks(64).enumerate() {
            assert!(part.iter().all(|&b| usize::from(b) == i + 1), "part {i} is lost");
        }
    });
}

#[test]
fn long_requests_are_split() {
    run(async {
        let limits = Limits { max_transfer: 10_000, ..aligned_to(512) };
        let setup = setup(limits, NodeFlags::default());
        let backend = setup.writer();
        let data: Vec<u8> = (0..60_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        backend.write(1024, IoBuf::copy_of(&data), WriteFlags::empty()).await.expect("write");
        assert_eq!(backend.read(1024, IoBufMut::new(60_000)).await.expect("read")[..], data);
        // 60000 bytes end inside a block, so there is an aligned span of 60416, in pieces of 9728.
        assert_eq!(setup.shared.writes.load(Ordering::Relaxed), 7);
    });
}

#[test]
fn zero_writes_fall_back_to_data_only_where_needed() {
    run(async {
        let limits = Limits { write_zeroes_alignment: 4096, ..Limits::default() };
        let setup = setup(limits, NodeFlags::default());
        let backend = setup.writer();
        backend
            .write(0, IoBuf::copy_of(&vec![7; 20_000]), WriteFlags::empty())
            .await
            .expect("write");
        setup.shared.writes.store(0, Ordering::Relaxed);
        backend.write_zeroes(100, 12_288, WriteFlags::empty()).await.expect("zeroes");
        assert_eq!(setup.shared.zero_writes.load(Ordering::Relaxed), 1);
        assert_eq!(setup.shared.writes.load(Ordering::Relaxed), 2, "head and tail as data");
        let bytes = setup.shared.bytes.lock().clone();
        assert!(bytes[100..12_388].iter().all(|&b| b == 0));
        assert!(bytes[..100].iter().chain(&bytes[12_388..20_000]).all(|&b| b == 7));

        let quick = backend.write_zeroes(100, 12_288, WriteFlags::NO_FALLBACK).await;
        assert!(quick.expect_err("would be slow").is_unsupported());
    });
}

#[test]
fn zero_data_becomes_a_zero_write_on_request() {
    run(async {
        let flags = NodeFlags { detect_zeroes: DetectZeroes::On, ..NodeFlags::default() };
        let setup = setup(Limits::default(), flags);
        let backend = setup.writer();
        backend.write(4096, IoBuf::zeroed(8192), WriteFlags::empty()).await.expect("write");
        backend.write(4096, IoBuf::copy_of(&[1; 4096]), WriteFlags::empty()).await.expect("write");
        assert_eq!(setup.shared.zero_writes.load(Ordering::Relaxed), 1);
        assert_eq!(setup.shared.writes.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn only_flushes_with_something_to_flush_reach_the_driver() {
    run(async {
        let setup = setup(Limits::default(), NodeFlags::default());
        let backend = setup.writer();
        let flushes = || setup.shared.flushes.load(Ordering::Relaxed);
        backend.flush().await.expect("flush");
        assert_eq!(flushes(), 0);
        backend.write(0, IoBuf::copy_of(b"x"), WriteFlags::empty()).await.expect("write");
        backend.flush().await.expect("flush");
        backend.flush().await.expect("flush");
        assert_eq!(flushes(), 1);
        backend.write(0, IoBuf::copy_of(b"x"), WriteFlags::FUA).await.expect("durable write");
        assert_eq!(flushes(), 2, "a driver without FUA is flushed");
    });
}

#[test]
fn no_flush_reaches_a_node_that_ignores_flushes() {
    run(async {
        let flags = NodeFlags { no_flush: true, ..NodeFlags::default() };
        let setup = setup(Limits::default(), flags);
        let backend = setup.writer();
        backend.write(0, IoBuf::copy_of(b"x"), WriteFlags::FUA).await.expect("write");
        backend.close().await.expect("close");
        assert_eq!(setup.shared.flushes.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn users_are_kept_inside_the_node() {
    run(async {
        let setup = setup(aligned_to(512), NodeFlags::default());
        setup.shared.bytes.lock().truncate(1000);
        let backend = setup.writer();
        let beyond = backend.read(900, IoBufMut::new(101)).await.expect_err("too far");
        assert!(matches!(beyond, Error::OutOfRange { size: 1000, .. }), "{beyond}");
        let edge = backend.node().read(900, IoBufMut::new(200)).await.expect("zero filled");
        assert!(edge.iter().all(|&b| b == 0));
        assert!(backend.read(u64::MAX, IoBufMut::new(1)).await.is_err());
    });
}

#[test]
fn a_user_that_does_not_share_writing_keeps_others_out() {
    run(async {
        let setup = setup(Limits::default(), NodeFlags::default());
        let reader = Perm::all() - Perm::WRITE;
        let first = setup.user(Perm::CONSISTENT_READ, reader).expect("alone");
        let Err(refused) = setup.user(Perm::WRITE, Perm::all()) else { panic!("two writers") };
        assert!(matches!(refused, Error::Permission { .. }), "{refused}");
        assert!(refused.to_string().contains("write"), "{refused}");
        first.close().await.expect("close");
        setup.user(Perm::WRITE, Perm::all()).expect("alone again");
    });
}

#[test]
fn a_read_only_node_has_no_writers() {
    run(async {
        let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
        let setup = setup(Limits::default(), flags);
        assert!(matches!(setup.user(Perm::WRITE, Perm::all()), Err(Error::ReadOnly { .. })));
        let reader = setup.user(Perm::CONSISTENT_READ, Perm::all()).expect("reader");
        let refused = reader.write(0, IoBuf::copy_of(b"x"), WriteFlags::empty()).await;
        assert!(matches!(refused, Err(Error::ReadOnly { .. })));
    });
}

#[test]
fn drain_waits_for_requests_and_holds_new_ones_back() {
    run(async {
        let setup = setup(Limits::default(), NodeFlags::default());
        let backend = setup.writer();
        setup.shared.hold.store(true, Ordering::Relaxed);
        let write = backend.write(0, IoBuf::copy_of(b"1"), WriteFlags::empty());
        let drain = setup.graph.drain(&setup.node);
        tokio::pin!(write, drain);
        assert!(futures_util::poll!(write.as_mut()).is_pending());
        assert!(futures_util::poll!(drain.as_mut()).is_pending(), "a request is under way");
        setup.shared.hold.store(false, Ordering::Relaxed);
        setup.shared.go.notify_waiters();
        let (written, drained) = tokio::join!(write, drain);
        written.expect("write");

        let late = backend.write(0, IoBuf::copy_of(b"2"), WriteFlags::empty());
        tokio::pin!(late);
        for _ in 0..10 {
            assert!(futures_util::poll!(late.as_mut()).is_pending(), "the node is drained");
            tokio::task::yield_now().await;
        }
        assert_eq!(setup.shared.bytes.lock()[0], b'1');
        drop(drained);
        late.await.expect("write");
        assert_eq!(setup.shared.bytes.lock()[0], b'2');
    });
}

#[test]
fn reopen_changes_the_mode_or_nothing() {
    run(async {
        let setup = setup(Limits::default(), NodeFlags::default());
        let read_only = NodeFlags { read_only: true, ..setup.node.flags() };
        setup.shared.refuse_reopen.store(true, Ordering::Relaxed);
        setup.graph.reopen(&setup.node, read_only).await.expect_err("refused");
        assert!(!setup.node.is_read_only());
        setup.shared.refuse_reopen.store(false, Ordering::Relaxed);
        setup.graph.reopen(&setup.node, read_only).await.expect("reopen");
        assert!(setup.node.is_read_only() && setup.shared.read_only.load(Ordering::Relaxed));
        setup.graph.reopen(&setup.node, NodeFlags::default()).await.expect("reopen");
        assert!(!setup.node.is_read_only() && !setup.shared.read_only.load(Ordering::Relaxed));
    });
}

#[test]
fn resizing_moves_the_end() {
    run(async {
        let setup = setup(Limits::default(), NodeFlags::default());
        let backend = setup.writer();
        backend.resize(1 << 20, Resize::default()).await.expect("grow");
        assert_eq!(backend.size(), 1 << 20);
        assert!(backend.resize(u64::MAX, Resize::default()).await.is_err());
    });
}

#[test]
fn backing_permissions_follow_the_overlay() {
    let (used, shared) = cairn_block::graph::default_child_perms(
        Role::COW,
        Perm::CONSISTENT_READ | Perm::WRITE,
        Perm::CONSISTENT_READ,
        false,
    );
    assert_eq!(used, Perm::CONSISTENT_READ);
    assert_eq!(shared, Perm::CONSISTENT_READ | Perm::WRITE_UNCHANGED);
    let (used, shared) = cairn_block::graph::default_child_perms(
        Role::IMAGE,
        Perm::CONSISTENT_READ,
        Perm::all(),
        true,
    );
    assert_eq!(used, Perm::CONSISTENT_READ);
    assert_eq!(shared, Perm::CONSISTENT_READ | Perm::WRITE_UNCHANGED);
}
