//! Which clusters that become free are given back to the storage below.

use cairn_block::driver::{Status, WriteFlags};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::Backend;
use cairn_block::snapshot::{NewSnapshot, SnapshotKey};
use cairn_block::{IoBuf, IoBufMut, Result};
use cairn_testkit::Recorder;

use crate::image::{create, open};

const KIB: u64 = 1 << 10;

/// Bytes that are discarded below a new image, opened with the options `runtime`, while `act` is done.
fn discarded(
    options: &str,
    runtime: &[(&'static str, &str)],
    act: impl AsyncFn(&Backend) -> Result<()>,
) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let machine = Recorder::new(1);
    let disk = machine.add(create(dir.path(), options, &[], 8 << 20));
    let done = block_on(&EngineConfig::default(), async {
        let image = open(disk, runtime, false).await?;
        act(&image).await?;
        image.close().await
    });
    done.expect("an I/O thread").unwrap_or_else(|error| panic!("{runtime:?}: {error}"));
    let lines = machine.log().lines();
    let lengths =
        lines.iter().filter_map(|line| line.split_once(": discard ")?.1.split_once("+0x"));
    lengths.map(|(_, len)| u64::from_str_radix(len, 16).expect("a length")).sum()
}

async fn write(image: &Backend, offset: u64, len: u64, byte: u8) -> Result<()> {
    let data = vec![byte; usize::try_from(len).expect("short")];
    image.write(offset, IoBuf::copy_of(&data), WriteFlags::empty()).await?;
    image.flush().await
}

#[test]
fn discards_of_the_guest_pass_as_the_option_says() {
    for (runtime, expected) in [
        (&[][..], 64 * KIB),
        (&[("pass-discard-request", "on")], 64 * KIB),
        (&[("pass-discard-request", "off")], 0),
        (&[("discard-no-unref", "on")], 64 * KIB),
        (&[("discard-no-unref", "on"), ("pass-discard-request", "off")], 0),
        (&[("pass-discard-snapshot", "off"), ("pass-discard-other", "off")], 64 * KIB),
    ] {
        let found = discarded("cluster_size=4096", runtime, async |image: &Backend| {
            write(image, 0, 128 * KIB, 1).await?;
            image.discard(32 * KIB, 64 * KIB).await?;
            image.flush().await
        });
        assert_eq!(found, expected, "{runtime:?}");
    }
}

#[test]
fn discarded_clusters_keep_their_place_if_that_is_wanted() {
    let place = async |image: &Backend| -> Result<(Status, Option<u64>)> {
        let extent = image.block_status(0, 64 * KIB, true).await?;
        assert_eq!(extent.len, 64 * KIB);
        let host = extent.map.filter(|_| extent.status.contains(Status::OFFSET_VALID));
        Ok((extent.status, host.map(|(_, offset)| offset)))
    };
    discarded("cluster_size=4096", &[("discard-no-unref", "on")], async |image: &Backend| {
        write(image, 0, 64 * KIB, 1).await?;
        let (_, before) = place(image).await?;
        image.discard(0, 64 * KIB).await?;
        let (status, kept) = place(image).await?;
        assert!(before.is_some() && kept == before, "{before:?} became {kept:?}");
        assert!(status.contains(Status::ZERO), "{status:?}");
        let read = image.read(0, IoBufMut::new(64 << 10)).await?;
        assert!(read.iter().all(|&byte| byte == 0));
        write(image, 0, 64 * KIB, 2).await?;
        assert_eq!(place(image).await?.1, before, "written again it is where it was");
        Ok(())
    });
}

#[test]
fn what_only_a_snapshot_had_is_given_back_as_the_option_says() {
    for (runtime, passes) in [
        (&[][..], true),
        (&[("pass-discard-snapshot", "on"), ("pass-discard-request", "off")], true),
        (&[("pass-discard-snapshot", "off")], false),
    ] {
        let found = discarded("cluster_size=4096", runtime, async |image: &Backend| {
            let (graph, node) = (image.graph(), image.node());
            write(image, 0, 128 * KIB, 1).await?;
            let new = NewSnapshot { name: "one".to_owned(), ..NewSnapshot::default() };
            graph.create_snapshot(&node, new).await?;
            write(image, 0, 128 * KIB, 2).await?;
            graph.delete_snapshot(&node, SnapshotKey::IdOrName("one".to_owned())).await?;
            image.flush().await
        });
        assert!(if passes { found >= 128 * KIB } else { found == 0 }, "{runtime:?}: {found}");
    }
}

#[test]
fn old_tables_are_given_back_as_the_option_says() {
    for (runtime, passes) in [
        (&[][..], false),
        (&[("pass-discard-other", "on"), ("pass-discard-request", "off")], true),
        (&[("pass-discard-other", "off")], false),
    ] {
        // The refcount table, one cluster of which covers 2 MiB, grows and moves.
        let options = "cluster_size=512,refcount_bits=64";
        let found = discarded(options, runtime, async |image: &Backend| {
            write(image, 0, 4096 * KIB, 1).await
        });
        assert_eq!(found > 0, passes, "{runtime:?}: {found}");
    }
}
