//! Raw images.

use crate::images;
use crate::maker::SIZE;

images! {
    raw_mixed: "raw", |m| m.convert("");
    raw_empty_disk: "raw", |m| m.create("", "0");
    raw_hole: "raw", |m| m.create("", "5M");
    raw_one_byte: "raw", |m| m.create("", "1");
    raw_size_in_fractions: "raw", |m| m.create("", "1.5M");
    raw_unaligned_end: "raw", |m| m.source("disk", SIZE + 77);
    raw_fully_written: "raw", |m| m.convert("-S 0");
    raw_coarse_zero_detection: "raw", |m| m.convert("-S 64k");
    raw_falloc: "raw", |m| m.create("-o preallocation=falloc", "2M");
    raw_full: "raw", |m| m.create("-o preallocation=full", "2M");
    raw_grown: "raw", |m| m.convert("").img("resize -q -f raw disk +1M");
    raw_shrunk: "raw", |m| m.convert("").img("resize -q -f raw --shrink disk 1M");
    raw_grown_falloc: "raw", |m| m.convert("")
        .img("resize -q -f raw --preallocation=falloc disk +1M");
    raw_copied_in_blocks: "raw", |m| m.source("source", SIZE)
        .img("dd -f raw -O raw bs=64k count=20 skip=3 if=source of=disk");
    raw_from_two_sources: "raw", |m| m.source("first", 1 << 20).source("second", SIZE)
        .img("convert -f raw -O raw first second disk");
}
