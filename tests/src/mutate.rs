//! Deterministic damage to image files, concentrated where formats keep their metadata.

use std::ops::Range;

use crate::random::Random;

/// Part of a file that takes most edits: headers, and tables of small images.
const HEAD: usize = 4096;
/// Numbers at the limits of what parsers compute with.
const BOUNDARIES: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x00ff_ffff_ffff_fe00,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// `image` after one to eight edits chosen by `seed`: boundary numbers in either byte order, flipped bits,
/// random bytes, and in one of twenty cases a cut.
pub fn mutant(image: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = image.to_vec();
    for _ in 0..=random.below(8) {
        let range = if random.chance(60) { HEAD.min(bytes.len()) } else { bytes.len() };
        edit(&mut bytes, 0..range, &mut random);
    }
    if random.chance(5) {
        bytes.truncate(random.index(image.len() + 1));
    }
    bytes
}

/// `image` after one to eight edits chosen by `seed`, all of which begin in one of `places`.
pub fn mutant_within(image: &[u8], places: &[Range<usize>], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = image.to_vec();
    for _ in 0..=random.below(8) {
        let place = random.pick(places).clone();
        edit(&mut bytes, place, &mut random);
    }
    bytes
}

/// Changes bytes from a place in `range` on.
fn edit(bytes: &mut [u8], range: Range<usize>, random: &mut Random) {
    let offset = random.index(range.len());
    // Most fields of metadata lie at multiples of four.
    let at = range.start + if random.chance(70) { offset & !3 } else { offset };
    let room = bytes.len() - at;
    match random.below(3) {
        0 => {
            let width = room.min(*random.pick(&[1, 2, 4, 8]));
            let number = *random.pick(&BOUNDARIES);
            if random.chance(80) {
                bytes[at..at + width].copy_from_slice(&number.to_be_bytes()[8 - width..]);
            } else {
                bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
        }
        1 => bytes[at] ^= 1 << random.below(8),
        _ => {
            let len = room.min(1 + random.index(8));
            random.fill(&mut bytes[at..at + len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{mutant, mutant_within};

    #[test]
    fn the_same_seed_makes_the_same_mutant_and_seeds_differ() {
        let image = vec![0x5a; 100_000];
        assert_eq!(mutant(&image, 7), mutant(&image, 7));
        let changed = (0..200).filter(|seed| mutant(&image, *seed) != image).count();
        assert!(changed > 195, "only {changed} of 200 seeds changed anything");
    }

    #[test]
    fn edits_stay_in_their_places() {
        let image = vec![0; 10_000];
        for seed in 0..200 {
            let bytes = mutant_within(&image, &[100..200, 5000..5100], seed);
            let changed = |at: &usize| bytes[*at] != 0;
            // An edit may be eight bytes long.
            let inside = |at: usize| (100..208).contains(&at) || (5000..5108).contains(&at);
            assert!((0..10_000).filter(changed).all(inside), "seed {seed}");
        }
    }

    #[test]
    fn most_edits_hit_the_head() {
        let image = vec![0; 1 << 20];
        let touched = |range: std::ops::Range<usize>| {
            let hit = |seed: &u64| {
                mutant(&image, *seed).get(range.clone()).is_some_and(|r| r.iter().any(|b| *b != 0))
            };
            (0..300).filter(hit).count()
        };
        assert!(touched(0..4096) > 200);
        assert!(touched(4096..1 << 20) > 100);
    }
}
