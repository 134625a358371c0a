//! Disk contents for generated images: a mix of what makes image tools take different paths.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::random::Random;

const PIECE: u64 = 64 * 1024;

/// Writes a sparse file of `size` bytes to `path`: holes, written zeroes, random bytes, compressible text, and
/// short runs of data between zeroes, in pieces of 64 KiB chosen by `seed`.
pub fn write_mixed(path: &Path, size: u64, seed: u64) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(size)?;
    let mut random = Random::new(seed);
    let mut offset = 0;
    while offset < size {
        let len = usize::try_from(PIECE.min(size - offset)).expect("a piece fits in memory");
        if let Some(piece) = mixed_piece(&mut random, len) {
            file.write_all_at(&piece, offset)?;
        }
        offset += len as u64;
    }
    Ok(())
}

/// Writes `size` random bytes to `path`.
pub fn write_random(path: &Path, size: u64, seed: u64) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(size).expect("the size fits in memory")];
    Random::new(seed).fill(&mut bytes);
    std::fs::write(path, bytes)
}

/// Contents of one piece; `None` is a hole.
fn mixed_piece(random: &mut Random, len: usize) -> Option<Vec<u8>> {
    let mut piece = vec![0; len];
    match random.below(8) {
        0..=2 => return None,
        3 => {}
        4 | 5 => random.fill(&mut piece),
        6 => {
            let line = format!("record {:016x} of a log that compresses well\n", random.bits());
            for (byte, text) in piece.iter_mut().zip(line.bytes().cycle()) {
                *byte = text;
            }
        }
        _ => {
            for _ in 0..4 {
                let run = *random.pick(&[512, 4096, 1, 12 * 1024]);
                let start = random.index(len);
                let end = len.min(start + run);
                random.fill(&mut piece[start..end]);
            }
        }
    }
    Some(piece)
}
