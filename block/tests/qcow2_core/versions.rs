//! What the version and the feature bits of an image change.

use cairn_block::IoBufMut;
use cairn_block::driver::WriteFlags;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_testkit::{Disk, Memory, Value};

use crate::image::{create, open, stock_check};

const SIZE: u64 = 4 << 20;

/// A version 2 image has no mark for zeroes: without a backing file, no mapping is one.
#[test]
fn zero_writes_to_version_2_need_no_storage() {
    let dir = tempfile::tempdir().unwrap();
    block_on(&EngineConfig::default(), async {
        let disk = Memory::new(create(dir.path(), "compat=0.10", &[], SIZE));
        let empty = disk.disk().size();
        let image = open(disk.clone(), &[], false).await.unwrap();
        image.write_zeroes(0, SIZE, WriteFlags::MAY_UNMAP).await.unwrap();
        image.flush().await.unwrap();
        assert_eq!(disk.disk().size(), empty, "blank stays blank");

        image.write(0, Value::Tag(7).buffer(0, 1 << 20), WriteFlags::empty()).await.unwrap();
        // The ends lie within clusters that keep the rest of their data.
        image.write_zeroes(1000, 500_000, WriteFlags::MAY_UNMAP).await.unwrap();
        let bytes = image.read(0, IoBufMut::new(1 << 20)).await.unwrap();
        let mut expected = Disk::new(SIZE);
        expected.write(0, &Value::Tag(7).buffer(0, 1 << 20));
        expected.write(1000, &vec![0; 500_000]);
        let mut wanted = vec![0; 1 << 20];
        expected.read(0, &mut wanted);
        assert!(bytes[..] == wanted[..]);

        // The same without leave to give storage back, as the reference does: nothing else is as cheap.
        image.write_zeroes(512 << 10, 64 << 10, WriteFlags::empty()).await.unwrap();
        let extent = image.block_status(512 << 10, 64 << 10, true).await.unwrap();
        assert!(extent.map.is_none(), "{extent:?}");
        image.close().await.unwrap();
        stock_check(dir.path(), &disk.disk(), false, "zero writes");
    })
    .unwrap();
}

/// A writer that does not know a feature says so by clearing its bit before anyone can write.
#[test]
fn opening_for_writing_clears_unknown_features() {
    const AUTOCLEAR: u64 = 88;
    let dir = tempfile::tempdir().unwrap();
    block_on(&EngineConfig::default(), async {
        let bits = |disk: &Memory| {
            let mut word = [0; 8];
            disk.disk().read(AUTOCLEAR, &mut word);
            u64::from_be_bytes(word)
        };
        let mut made = create(dir.path(), "compat=1.1", &[], SIZE);
        made.write(AUTOCLEAR, &(1u64 << 63 | 1 << 5).to_be_bytes());
        let disk = Memory::new(made);
        open(disk.clone(), &[], true).await.unwrap().close().await.unwrap();
        assert_eq!(bits(&disk), 1 << 63 | 1 << 5, "reading changes nothing");
        open(disk.clone(), &[], false).await.unwrap().close().await.unwrap();
        assert_eq!(bits(&disk), 0);
    })
    .unwrap();
}
