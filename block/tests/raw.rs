//! The driver `raw` over a small volatile protocol: windows, sizes, block status, resizing.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_block::driver::{
    Driver, DriverFuture, DriverInfo, DriverKind, Extent, Perm, Resize, Status, WriteFlags, find,
    unsupported,
};
use cairn_block::engine::{self, EngineConfig};
use cairn_block::error::Result;
use cairn_block::graph::{Backend, Graph, Node, NodeFlags, OpenContext, OpenOptions};
use cairn_block::options::Dict;
use cairn_block::{IoBuf, IoBufMut};
use parking_lot::Mutex;

static MEMORY: DriverInfo = DriverInfo {
    name: "memory",
    kind: DriverKind::Protocol,
    open: |_: &mut OpenContext<'_>| unsupported("memory", "made by the test only"),
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

struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    closed: Arc<AtomicBool>,
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("small")
}

impl Driver for Memory {
    fn info(&self) -> &'static DriverInfo {
        &MEMORY
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn read(&self, offset: u64, mut buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        let start = index(offset);
        let end = start + buf.len();
        buf.copy_from_slice(&self.bytes.lock()[start..end]);
        Box::pin(async { Ok(buf) })
    }

    fn write(&self, offset: u64, buf: IoBuf, _: WriteFlags) -> DriverFuture<'_, ()> {
        let start = index(offset);
        let mut bytes = self.bytes.lock();
        let size = bytes.len().max(start + buf.len());
        bytes.resize(size, 0);
        bytes[start..start + buf.len()].copy_from_slice(&buf);
        Box::pin(async { Ok(()) })
    }

    fn block_status(&self, _: u64, len: u64, _: bool) -> DriverFuture<'_, Extent> {
        let extent = Extent { len, status: Status::DATA, map: None };
        Box::pin(async { Ok(extent) })
    }

    fn resize(&self, size: u64, _: Resize) -> DriverFuture<'_, ()> {
        self.bytes.lock().resize(index(size), 0);
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> DriverFuture<'_, ()> {
        self.closed.store(true, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn has_zero_init(&self) -> bool {
        true
    }
}

struct Setup {
    graph: Arc<Graph>,
    /// Keeps the protocol node in the graph.
    _node: Arc<Node>,
    bytes: Arc<Mutex<Vec<u8>>>,
    closed: Arc<AtomicBool>,
}

/// What byte number `n` of a fresh file is.
fn pattern(n: u32) -> u8 {
    n.to_le_bytes()[0] ^ 0x55
}

/// A graph with the protocol node `mem`.
fn setup(size: u32) -> Setup {
    let bytes: Vec<u8> = (0..size).map(pattern).collect();
    let bytes = Arc::new(Mutex::new(bytes));
    let graph = Graph::new();
    let closed = Arc::default();
    let driver = Box::new(Memory { bytes: Arc::clone(&bytes), closed: Arc::clone(&closed) });
    let node = graph.add_driver("mem", NodeFlags::default(), driver).expect("fresh name");
    Setup { graph, _node: node, bytes, closed }
}

impl Setup {
    async fn open(&self, options: &[(&'static str, &str)]) -> Result<Arc<Node>> {
        let mut options: Dict = options.iter().copied().collect();
        options.insert("file", "mem");
        let flags = NodeFlags::default();
        self.graph.open(OpenOptions { filename: None, options, flags }).await
    }

    async fn user(&self, options: &[(&'static str, &str)]) -> Backend {
        let node = self.open(options).await.expect("valid options");
        let used = Perm::CONSISTENT_READ | Perm::WRITE | Perm::RESIZE;
        Backend::new(&self.graph, node, "test", used, Perm::all()).expect("alone")
    }
}

fn run(test: impl Future<Output = ()>) {
    engine::block_on(&EngineConfig::default(), test).expect("an I/O thread");
}

#[test]
fn a_window_shows_its_part_of_the_file_only() {
    run(async {
        let setup = setup(4096);
        let user = setup.user(&[("driver", "raw"), ("offset", "1000"), ("size", "1k")]).await;
        assert_eq!(user.size(), 1024);
        assert_eq!(
            user.node().filename(),
            r#"json:{"offset": "1000", "driver": "raw", "size": "1k", "file": {"driver": "memory"}}"#
        );
        let read = user.read(24, IoBufMut::new(1000)).await.expect("inside");
        assert_eq!(read[..], setup.bytes.lock()[1024..2024]);
        let data = IoBuf::copy_of(&[0xee; 1024]);
        user.write(0, data, WriteFlags::empty()).await.expect("inside");
        user.write_zeroes(100, 24, WriteFlags::empty()).await.expect("inside");
        let bytes = setup.bytes.lock().clone();
        assert_eq!(bytes[1000..1100], [0xee; 100]);
        assert_eq!(bytes[1100..1124], [0; 24]);
        assert_eq!((bytes[999], bytes[2024]), (pattern(999), pattern(2024)));
        assert!(user.read(1024, IoBufMut::new(1)).await.is_err());
        assert!(user.resize(2048, Resize::default()).await.is_err(), "the size is fixed");
    });
}

#[test]
fn the_last_sector_is_filled_up_with_zeroes() {
    run(async {
        let setup = setup(1000);
        let user = setup.user(&[("driver", "raw")]).await;
        assert_eq!(user.size(), 1024);
        let read = user.read(990, IoBufMut::new(34)).await.expect("inside");
        assert_eq!(read[..10], setup.bytes.lock()[990..]);
        assert_eq!(read[10..], [0; 24]);
        let first = user.block_status(0, 1024, true).await.expect("status");
        assert_eq!((first.len, first.status.contains(Status::DATA)), (1000, true));
        let rest = user.block_status(1000, 24, true).await.expect("status");
        assert_eq!(rest.len, 24);
        assert!(rest.status.contains(Status::ZERO | Status::OFFSET_VALID | Status::EOF));
        assert_eq!(rest.map.map(|(_, at)| at), Some(1000));
        user.write(1023, IoBuf::copy_of(b"x"), WriteFlags::empty()).await.expect("inside");
        assert_eq!(setup.bytes.lock().len(), 1024);
    });
}

#[test]
fn resizing_counts_from_the_offset() {
    run(async {
        let setup = setup(4096);
        let user = setup.user(&[("driver", "raw"), ("offset", "512")]).await;
        assert_eq!(user.size(), 3584);
        user.resize(1024, Resize::default()).await.expect("shrink");
        assert_eq!((user.size(), setup.bytes.lock().len()), (1024, 1536));
        assert!(user.resize(u64::MAX, Resize::default()).await.is_err());
        assert!(user.node().driver().has_zero_init());
    });
}

#[test]
fn windows_outside_the_file_are_refused() {
    run(async {
        let setup = setup(1536);
        for (offset, size) in
            [("1M", None), ("0", Some("600")), ("100", Some("1536")), ("-1", None), ("0", Some(""))]
        {
            let mut options = vec![("driver", "raw"), ("offset", offset)];
            options.extend(size.map(|size| ("size", size)));
            assert!(setup.open(&options).await.is_err(), "{offset} {size:?}");
        }
        let error = setup.open(&[("driver", "raw"), ("ofset", "0")]).await.expect_err("unknown");
        assert!(error.to_string().contains("did you mean 'offset'"), "{error}");
        assert_eq!(setup.user(&[("driver", "raw"), ("offset", "1536")]).await.size(), 0);
    });
}

#[test]
fn a_guessed_raw_image_cannot_become_another_format() {
    run(async {
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        let setup = setup(4096);
        let guessed = setup.user(&[]).await;
        assert_eq!(guessed.node().format(), "raw");
        let write =
            |offset, data: &[u8]| guessed.write(offset, IoBuf::copy_of(data), WriteFlags::empty());
        let error = write(0, &header).await.expect_err("looks like qcow2");
        assert_eq!(error.errno(), libc::EPERM, "{error}");
        write(4, &header[4..]).await.expect("has no magic number");
        let error = write(0, &header[..4]).await.expect_err("completes the header");
        assert_eq!(error.errno(), libc::EPERM, "{error}");
        write(512, &header).await.expect("is not at the start");
        guessed.close().await.expect("clean");
        let named = setup.user(&[("driver", "raw")]).await;
        named.write(0, IoBuf::copy_of(&header), WriteFlags::empty()).await.expect("named raw");
        assert_eq!(setup.bytes.lock()[..512], header);
    });
}

#[test]
fn users_are_warned_when_they_write_to_what_was_guessed_to_be_raw() {
    run(async {
        let setup = setup(4096);
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&warnings);
        setup.graph.on_warning(move |text| heard.lock().push(text.to_owned()));
        setup.user(&[("driver", "raw")]).await.close().await.expect("clean");
        let read_only = setup.open(&[("read-only", "on")]).await.expect("valid");
        assert!(warnings.lock().is_empty(), "{:?}", warnings.lock());
        drop(read_only);
        setup.user(&[]).await.close().await.expect("clean");
        let warnings = warnings.lock();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("'mem'") && warnings[0].contains("'raw'"), "{warnings:?}");
    });
}

#[test]
fn a_failed_open_leaves_nodes_alone_that_it_was_given() {
    run(async {
        let setup = setup(4096);
        for options in [&[("driver", "raw"), ("colour", "red")][..], &[("driver", "qcow2")]] {
            assert!(setup.open(options).await.is_err(), "no such option, no such image");
            assert!(!setup.closed.load(Ordering::Relaxed), "{options:?}");
        }
        let user = setup.user(&[("driver", "raw")]).await;
        user.close().await.expect("clean");
        assert!(setup.closed.load(Ordering::Relaxed), "nobody uses it any more");
    });
}

#[test]
fn measuring_counts_whole_sectors() {
    run(async {
        let raw = find("raw").expect("registered");
        let measure = raw.measure.expect("raw can be measured");
        let measured = measure(Dict::from([("size", "1000")]), None).await.expect("valid");
        assert_eq!((measured.required, measured.fully_allocated), (1024, 1024));
        assert!(measure(Dict::from([("foo", "1")]), None).await.is_err());
        assert!(measure(Dict::from([("size", u64::MAX)]), None).await.is_err());
    });
}
