//! The protocols `file`, `host_device` and `null-co`, used through the graph.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cairn_block::driver::{Perm, Prealloc, Resize, Status, WriteFlags, find};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::options::Dict;
use cairn_block::{IoBuf, IoBufMut, Result};

fn run<T>(future: impl Future<Output = T>) -> T {
    block_on(&EngineConfig::default(), future).unwrap()
}

fn options(pairs: &[(&'static str, &str)]) -> Dict {
    let mut dict = Dict::default();
    for (key, value) in pairs {
        dict.insert(*key, *value);
    }
    dict
}

async fn open_node(pairs: &[(&'static str, &str)], flags: NodeFlags) -> Result<Backend> {
    let graph = Graph::new();
    let what = OpenOptions { filename: None, options: options(pairs), flags };
    let node = graph.open(what).await?;
    let used = if flags.read_only { Perm::CONSISTENT_READ } else { Perm::all() };
    Backend::new(&graph, node, "test", used, Perm::all())
}

fn unmap() -> NodeFlags {
    NodeFlags { unmap: true, ..NodeFlags::default() }
}

async fn open_file(path: &Path, flags: NodeFlags) -> Result<Backend> {
    open_node(&[("driver", "file"), ("filename", path.to_str().unwrap())], flags).await
}

async fn create(driver: &str, path: &Path, pairs: &[(&'static str, &str)]) -> Result<()> {
    let create = find(driver).unwrap().create.unwrap();
    create(&Graph::new(), path.to_str().unwrap(), options(pairs)).await
}

/// Runs of (length, has data) over the whole node.
async fn layout(backend: &Backend) -> Vec<(u64, bool)> {
    let mut runs: Vec<(u64, bool)> = Vec::new();
    let mut at = 0;
    while at < backend.size() {
        let extent = backend.block_status(at, backend.size() - at, true).await.unwrap();
        let data = extent.status.contains(Status::DATA);
        assert_ne!(data, extent.status.contains(Status::ZERO));
        match runs.last_mut() {
            Some((len, last)) if *last == data => *len += extent.len,
            _ => runs.push((extent.len, data)),
        }
        at += extent.len;
    }
    runs
}

#[test]
fn a_file_is_read_written_and_grows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, b"0123456789").unwrap();
    run(async {
        let backend = open_file(&path, NodeFlags::default()).await.unwrap();
        assert_eq!(backend.size(), 10);
        assert_eq!(&*backend.read(3, IoBufMut::new(5)).await.unwrap(), b"34567");
        backend.write(0, IoBuf::copy_of(b"abc"), WriteFlags::FUA).await.unwrap();
        // Formats grow their file by writing behind its end.
        backend.node().write(20, IoBuf::copy_of(b"xyz"), WriteFlags::empty()).await.unwrap();
        assert_eq!(backend.size(), 23);
        backend.flush().await.unwrap();
        let whole = backend.read(0, IoBufMut::new(23)).await.unwrap();
        assert_eq!(&*whole, b"abc3456789\0\0\0\0\0\0\0\0\0\0xyz");
        let error = backend.read(20, IoBufMut::new(4)).await.unwrap_err();
        assert!(error.to_string().contains("beyond its end"), "{error}");
        backend.close().await.unwrap();
    });
    assert_eq!(fs::metadata(&path).unwrap().len(), 23);
}

#[test]
fn holes_zeroes_and_discards_are_visible_in_the_layout() {
    const M: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let file = fs::File::create(&path).unwrap();
    file.set_len(8 * M).unwrap();
    run(async {
        let backend = open_file(&path, unmap()).await.unwrap();
        assert_eq!(layout(&backend).await, [(8 * M, false)]);
        let ones = IoBufMut::copy_of(&vec![1; 3 << 20]).freeze();
        backend.write(2 * M, ones, WriteFlags::empty()).await.unwrap();
        assert_eq!(layout(&backend).await, [(2 * M, false), (3 * M, true), (3 * M, false)]);
        backend.discard(3 * M, M).await.unwrap();
        backend.write_zeroes(2 * M, 4096, WriteFlags::MAY_UNMAP).await.unwrap();
        let before = backend.node().driver().allocated_size().await.unwrap();
        // Zeroes that keep their storage, unaligned and across the end of the data.
        backend.write_zeroes(5 * M - 100, M, WriteFlags::NO_FALLBACK).await.unwrap();
        let after = backend.node().driver().allocated_size().await.unwrap();
        assert!(after > before, "zeroes without MAY_UNMAP keep or get storage");
        let all = backend.read(0, IoBufMut::new(8 << 20)).await.unwrap();
        let ones: u64 = all.iter().map(|&byte| u64::from(byte)).sum();
        assert_eq!(ones, 2 * M - 4096 - 100);
        backend.node().write_zeroes(9 * M, M, WriteFlags::empty()).await.unwrap();
        assert_eq!(backend.size(), 10 * M);
        backend.close().await.unwrap();
    });
    let file = fs::File::open(&path).unwrap();
    let mut byte = [9];
    file.read_exact_at(&mut byte, 10 * M - 1).unwrap();
    assert_eq!(byte, [0]);
}

#[test]
fn formats_learn_where_in_the_file_their_data_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, vec![1; 65_536]).unwrap();
    run(async {
        let graph = Graph::new();
        let what = OpenOptions::file(path.to_str().unwrap(), Some("raw"), NodeFlags::default());
        let node = graph.open(what).await.unwrap();
        let backend = Backend::new(&graph, node, "test", Perm::all(), Perm::all()).unwrap();
        let extent = backend.block_status(4096, 8192, true).await.unwrap();
        assert!(extent.status.contains(Status::DATA | Status::OFFSET_VALID));
        let (edge, offset) = extent.map.unwrap();
        assert_eq!((edge.node().format(), offset, extent.len), ("file", 4096, 8192));
        backend.close().await.unwrap();
    });
}

#[test]
fn direct_io_hides_its_alignment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let data: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(&path, &data).unwrap();
    let flags = NodeFlags { direct: true, ..NodeFlags::default() };
    run(async {
        for aio in ["threads", "native", "io_uring"] {
            let pairs = [("driver", "file"), ("filename", path.to_str().unwrap()), ("aio", aio)];
            let backend = match open_node(&pairs, flags).await {
                Err(e) if e.to_string().contains("cannot bypass the page cache") => {
                    eprintln!("skipped: no O_DIRECT in {}", dir.path().display());
                    return;
                }
                result => result.unwrap(),
            };
            let limits = backend.node().driver().limits();
            assert!(limits.request_alignment.is_power_of_two() && limits.request_alignment > 1);
            let part = backend.read(99_001, IoBufMut::new(999)).await.unwrap();
            assert_eq!(*part, data[99_001..]);
            backend.write(777, IoBuf::copy_of(&[7; 9000]), WriteFlags::empty()).await.unwrap();
            let back = backend.read(776, IoBufMut::new(9002)).await.unwrap();
            assert!(back[0] == data[776] && back[9001] == data[9777]);
            assert!(back[1..9001].iter().all(|&b| b == 7));
            backend.close().await.unwrap();
        }
        let pairs = [("driver", "file"), ("filename", path.to_str().unwrap()), ("aio", "native")];
        let error = open_node(&pairs, NodeFlags::default()).await.err().unwrap();
        assert!(error.to_string().contains("cache.direct=on"), "{error}");
    });
}

#[test]
fn the_size_changes_with_and_without_storage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, [5; 1000]).unwrap();
    let allocated = || fs::metadata(&path).unwrap().blocks() * 512;
    run(async {
        for direct in [false, true] {
            let flags = NodeFlags { direct, ..NodeFlags::default() };
            let backend = match open_file(&path, flags).await {
                Err(e) if direct && e.to_string().contains("cannot bypass") => continue,
                result => result.unwrap(),
            };
            let resize =
                |size, prealloc| backend.resize(size, Resize { prealloc, ..Resize::default() });
            resize(1_000_000, Prealloc::Off).await.unwrap();
            assert_eq!(backend.size(), 1_000_000);
            assert!(allocated() < 100_000);
            resize(2_000_001, Prealloc::Falloc).await.unwrap();
            assert!(allocated() > 1_000_000);
            let before = allocated();
            resize(5_000_003, Prealloc::Full).await.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), 5_000_003);
            assert!(allocated() >= before + 2_900_000);
            let error = resize(6_000_000, Prealloc::Metadata).await.unwrap_err();
            assert!(error.to_string().contains("Unsupported preallocation mode"), "{error}");
            let error = resize(10, Prealloc::Falloc).await.unwrap_err();
            assert!(error.to_string().contains("only possible when the file grows"), "{error}");
            resize(1000, Prealloc::Off).await.unwrap();
            assert_eq!(*backend.read(0, IoBufMut::new(1000)).await.unwrap(), [5; 1000]);
            backend.close().await.unwrap();
        }
    });
}

#[test]
fn failed_preallocation_leaves_the_old_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, [5; 1000]).unwrap();
    run(async {
        let backend = open_file(&path, NodeFlags::default()).await.unwrap();
        let how = Resize { prealloc: Prealloc::Falloc, ..Resize::default() };
        // More than any disk here has.
        backend.resize(1 << 50, how).await.unwrap_err();
        assert_eq!(backend.size(), 1000);
        backend.close().await.unwrap();
    });
    assert_eq!(fs::metadata(&path).unwrap().len(), 1000);
}

#[test]
fn copies_between_files_stay_in_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, vec![3; 100_000]).unwrap();
    fs::write(&to, [0; 10]).unwrap();
    run(async {
        let source = open_file(&from, NodeFlags { read_only: true, ..NodeFlags::default() });
        let source = source.await.unwrap();
        let target = open_file(&to, NodeFlags::default()).await.unwrap();
        target.node().copy_range_from(&source.node(), 1, 10, 99_999).await.unwrap();
        assert_eq!(target.size(), 100_009);
        let error = target.node().copy_range_from(&source.node(), 99_999, 0, 2).await.unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        target.close().await.unwrap();
        source.close().await.unwrap();
    });
    assert_eq!(fs::read(&to).unwrap()[10..], vec![3; 99_999]);
}

/// Access modes of this process's descriptors of `path`: whether each is writable.
fn descriptors(path: &Path) -> Vec<bool> {
    let path = path.canonicalize().unwrap();
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path))
        .filter_map(|entry| {
            let name = entry.file_name();
            let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(name)).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
            Some(u32::from_str_radix(flags, 8).unwrap() & 3 != 0)
        })
        .collect()
}

#[test]
fn auto_read_only_files_are_writable_while_somebody_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, [1; 100]).unwrap();
    let flags = NodeFlags { auto_read_only: true, ..NodeFlags::default() };
    run(async {
        let graph = Graph::new();
        let pairs = [("driver", "file"), ("filename", path.to_str().unwrap())];
        let what = OpenOptions { filename: None, options: options(&pairs), flags };
        let node = graph.open(what).await.unwrap();
        assert_eq!(descriptors(&path), [false]);
        let backend =
            Backend::new(&graph, Arc::clone(&node), "test", Perm::all(), Perm::all()).unwrap();
        assert!(descriptors(&path).contains(&true));
        // What happens to the path meanwhile does not matter.
        let moved = dir.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        backend.write(0, IoBuf::copy_of(b"hello"), WriteFlags::empty()).await.unwrap();
        backend.set_permissions(Perm::CONSISTENT_READ, Perm::all()).unwrap();
        assert!(!descriptors(&moved).contains(&true));
        backend.set_permissions(Perm::all(), Perm::all()).unwrap();
        backend.write(5, IoBuf::copy_of(b" again"), WriteFlags::empty()).await.unwrap();
        backend.close().await.unwrap();
        assert_eq!(&fs::read(&moved).unwrap()[..11], b"hello again");
    });
}

#[test]
fn files_are_created_with_the_wanted_storage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let facts = || fs::metadata(&path).map(|m| (m.len(), m.blocks() * 512)).unwrap();
    run(async {
        create("file", &path, &[("size", "1000001")]).await.unwrap();
        let (len, allocated) = facts();
        assert_eq!(len, 1_000_448);
        // The start is stored, so that the alignment of direct I/O can be found out there.
        assert!((4096..100_000).contains(&allocated), "{allocated}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o600, 0o600);
        create("file", &path, &[("size", "1M"), ("preallocation", "falloc"), ("nocow", "on")])
            .await
            .unwrap();
        assert!(facts().1 >= 1 << 20);
        create("file", &path, &[("size", "2M"), ("preallocation", "full")]).await.unwrap();
        assert!(facts().0 == 2 << 20 && facts().1 >= 2 << 20);
        create("file", &path, &[]).await.unwrap();
        assert_eq!(facts().0, 0);
        let error = create("file", &path, &[("preallocation", "most")]).await.unwrap_err();
        assert!(error.to_string().contains("preallocation"), "{error}");
        let error = create("file", Path::new("/nonexistent/x"), &[]).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot create"), "{error}");
    });
}

#[test]
fn drivers_refuse_what_they_are_not_made_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, [1; 100]).unwrap();
    let refused = |pairs: &[(&'static str, &str)]| {
        run(async { open_node(pairs, NodeFlags::default()).await.err().unwrap().to_string() })
    };
    let path = path.to_str().unwrap();
    let error = refused(&[("driver", "file"), ("filename", "/dev/null")]);
    assert!(error.contains("host_device"), "{error}");
    let error = refused(&[("driver", "host_device"), ("filename", path)]);
    assert!(error.contains("not a block or character device"), "{error}");
    let error = refused(&[("driver", "file"), ("filename", path), ("pr-manager", "x")]);
    assert!(error.contains("pr-manager"), "{error}");
    let error = refused(&[("driver", "file"), ("filename", "/nonexistent")]);
    assert!(error.contains("cannot open '/nonexistent': No such file"), "{error}");
}

#[test]
fn devices_are_recognised() {
    let probe = find("host_device").unwrap().probe_device.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    assert_eq!(probe(link.to_str().unwrap()), 100);
    assert_eq!(probe(dir.path().to_str().unwrap()), 0);
}

/// A loop device over a file, where the tests may make one.
struct Loop(String);

impl Loop {
    fn new(backing: &Path) -> Option<Loop> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(backing).output();
        let name = output.ok().filter(|o| o.status.success()).map(|o| o.stdout);
        let Some(name) = name else {
            eprintln!("skipped: loop devices are not available");
            return None;
        };
        Some(Loop(String::from_utf8(name).unwrap().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_device_is_used_like_a_file_of_fixed_size() {
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("backing");
    fs::write(&backing, vec![6; 1 << 20]).unwrap();
    let Some(device) = Loop::new(&backing) else { return };
    run(async {
        for direct in [false, true] {
            let flags = NodeFlags { direct, unmap: true, ..NodeFlags::default() };
            let pairs = [("driver", "host_device"), ("filename", device.0.as_str())];
            let backend = open_node(&pairs, flags).await.unwrap();
            assert_eq!(backend.size(), 1 << 20);
            assert!(!backend.node().driver().has_zero_init());
            backend.write(100, IoBuf::copy_of(&[1; 1000]), WriteFlags::FUA).await.unwrap();
            backend.write_zeroes(4096, 8192, WriteFlags::MAY_UNMAP).await.unwrap();
            backend.write_zeroes(20_001, 10_000, WriteFlags::empty()).await.unwrap();
            backend.discard(65_536, 65_536).await.unwrap();
            let all = backend.read(0, IoBufMut::new(131_072)).await.unwrap();
            assert!(all[100..1100].iter().all(|&b| b == 1) && all[1100] != 1);
            assert!(all[4096..12_288].iter().all(|&b| b == 0) && all[12_288] == 6);
            assert!(all[20_001..30_001].iter().all(|&b| b == 0) && all[30_001] == 6);
            let how = |exact| Resize { exact, ..Resize::default() };
            backend.resize(1 << 19, how(false)).await.unwrap();
            backend.resize(1 << 19, how(true)).await.unwrap_err();
            backend.resize(1 << 21, how(false)).await.unwrap_err();
            assert_eq!(backend.size(), 1 << 20);
            backend.close().await.unwrap();
        }
        let device = Path::new(&device.0);
        create("host_device", device, &[("size", "2M")]).await.unwrap_err();
        create("host_device", device, &[("size", "1M")]).await.unwrap();
        let head = fs::read(device).unwrap();
        assert!(head[..512] == [0; 512] && head[512] != 0);
    });
}

#[test]
fn a_null_device_keeps_nothing() {
    run(async {
        let pairs = [("driver", "null-co"), ("size", "10M"), ("read-zeroes", "on")];
        let backend = open_node(&pairs, NodeFlags::default()).await.unwrap();
        assert_eq!(backend.size(), 10 << 20);
        backend.write(0, IoBuf::copy_of(&[1; 10]), WriteFlags::empty()).await.unwrap();
        assert_eq!(*backend.read(0, IoBufMut::new(10)).await.unwrap(), [0; 10]);
        backend.close().await.unwrap();
        let pairs = [("driver", "null-aio"), ("latency-ns", "1000")];
        let backend = open_node(&pairs, NodeFlags::default()).await.unwrap();
        assert_eq!(backend.size(), 1 << 30);
        backend.read(0, IoBufMut::new(10)).await.unwrap();
        backend.close().await.unwrap();
    });
}

#[test]
fn bulk_writes_land_in_place_and_leave_the_true_size() {
    const PIECE: usize = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, b"").unwrap();
    run(async {
        let flags = NodeFlags { bulk: true, ..NodeFlags::default() };
        let backend = open_file(&path, flags).await.unwrap();
        let node = backend.node();
        // Large and small, aligned and not: some go around the page cache, some do not.
        let writes = (0..40_u64).map(|i| {
            let len = if i % 5 == 4 { 1000 } else { PIECE };
            let data = IoBuf::copy_of(&vec![u8::try_from(i).unwrap() + 1; len]);
            let node = Arc::clone(&node);
            async move { node.write(i * PIECE as u64, data, WriteFlags::empty()).await }
        });
        futures_util::future::try_join_all(writes).await.unwrap();
        let end = 39 * PIECE as u64 + 1000;
        assert_eq!(backend.size(), end, "growth ahead of the writes is not visible");
        let read = backend.read(38 * PIECE as u64, IoBufMut::new(PIECE + 1000)).await.unwrap();
        assert!(read[..PIECE].iter().all(|&b| b == 39) && read[PIECE..].iter().all(|&b| b == 40));
        drop(node);
        backend.close().await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), end);
        let bytes = fs::read(&path).unwrap();
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            let len = if i % 5 == 4 { 1000 } else { PIECE };
            assert!(piece[..len].iter().all(|&b| usize::from(b) == i + 1), "piece {i}");
            assert!(piece[len..].iter().all(|&b| b == 0), "behind piece {i}");
        }
    });
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_other_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    run(async {
        let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
        let Err(error) = open_file(&path, flags).await else { panic!("a pipe is no image") };
        assert!(error.to_string().contains("not a regular file"), "{error}");
    });
}
