//! Headers that lie: each is refused, at once and without much memory.

use cairn_block::driver::Perm;
use cairn_testkit::{Disk, Memory, Watchdog};

use super::support::{Kind, open, over, run};

/// Places in the header in bytes (LUKS On-Disk Format Specification 1.2.3, section 5).
const PAYLOAD: u64 = 104;
const KEY_BYTES: u64 = 108;
const DIGEST_ITERATIONS: u64 = 164;
const SLOT_0: u64 = 208;
const SLOT_1: u64 = 256;

#[test]
fn lies_are_refused() {
    let _watchdog = Watchdog::start(std::time::Duration::from_mins(2));
    let image = Kind::Luks.sample();
    assert!(Kind::Luks.opens(&image, "s").expect("sound"));
    let u32s = |value: u32| value.to_be_bytes().to_vec();
    let cases: [(u64, Vec<u8>, &str); 18] = [
        (6, vec![0, 2], "version 2"),
        (8, b"rot13\0".to_vec(), "'rot13'"),
        (8, vec![0xff; 32], "not text"),
        (40, b"cbc-magic\0".to_vec(), "'magic'"),
        (40, b"gcm-plain64\0".to_vec(), "'gcm'"),
        (40, b"cbc-essiv:sha1\0".to_vec(), "essiv"),
        (72, b"crc32\0".to_vec(), "'crc32'"),
        (PAYLOAD, u32s(u32::MAX), "payload"),
        (PAYLOAD, u32s(8), "payload"),
        (KEY_BYTES, u32s(u32::MAX), "keys of 4294967295"),
        (KEY_BYTES, u32s(0), "keys of 0"),
        (DIGEST_ITERATIONS, u32s(u32::MAX), "iterations"),
        (DIGEST_ITERATIONS, u32s(0), "must not be 0"),
        (SLOT_0 + 4, u32s(u32::MAX), "max-iterations"),
        (SLOT_0 + 40, u32s(0), "header"),
        (SLOT_0 + 40, u32s(u32::MAX), "payload"),
        (SLOT_1 + 40, u32s(9), "another slot"),
        (SLOT_0 + 44, u32s(u32::MAX), "stripes"),
    ];
    for (at, bytes, hint) in cases {
        let mut lying = image.clone();
        lying.write(at, &bytes);
        let error = Kind::Luks.opens(&lying, "s").expect_err(hint).to_string();
        assert!(error.contains(hint), "{at}: {error}");
    }
}

#[test]
fn iterations_count_together() {
    let mut image = Kind::Luks.sample();
    // Eight slots that each stay below the limit.
    for slot in 0..8 {
        image.write(SLOT_0 + slot * 48, &[0x00, 0xac, 0x71, 0xf3]);
        image.write(SLOT_0 + slot * 48 + 4, &40_000_000u32.to_be_bytes());
    }
    let error = Kind::Luks.opens(&image, "s").expect_err("too many").to_string();
    assert!(error.contains("together"), "{error}");
}

#[test]
fn the_limit_can_be_moved() {
    let (graph, _user) = over(Memory::new(Kind::Luks.sample()), Perm::empty());
    let image = "driver=luks,file=disk,key-secret=s,max-iterations=999";
    let error = run(async { open(&graph, image).await.map(drop) }).expect_err("too many");
    assert!(error.to_string().contains("at most 999"), "{error}");
}

#[test]
fn images_that_are_cut_off_are_refused() {
    let image = Kind::Luks.sample();
    for len in [0, 512, 591, 592, 4096, 60_000] {
        let mut cut = Disk::new(len);
        let mut bytes = vec![0; usize::try_from(len).expect("small")];
        image.read(0, &mut bytes);
        cut.write(0, &bytes);
        assert!(Kind::Luks.opens(&cut, "s").is_err(), "{len} bytes");
    }
}
