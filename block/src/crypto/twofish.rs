//! Twofish with tables for its key.
//!
//! What each byte of a word contributes to the round function `g` depends on the key alone, so that is computed once for
//! all values of the byte. The `twofish` crate, which computes it anew for every byte of every round, manages a few
//! megabytes per second; it is what the tests hold this one against.
//!
//! Source: B. Schneier et al., "Twofish: A 128-Bit Block Cipher" (1998), section 4.

// The paper's letters.
#![allow(clippy::many_single_char_names)]

use aes::cipher::consts::{U1, U16, U32};
use aes::cipher::{
    Block, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, InOut, InvalidLength, Key, KeyInit,
    KeySizeUser, ParBlocksSizeUser,
};
use zeroize::Zeroizing;

/// Rounds, with two subkeys each behind the eight for whitening.
const ROUNDS: usize = 16;
const SUBKEYS: usize = 8 + 2 * ROUNDS;
/// Longest key, in units of eight bytes.
const MOST_UNITS: usize = 4;

/// The permutations q0 and q1 by their tables of nibbles (section 4.3.5).
const NIBBLES: [[[u8; 16]; 4]; 2] = [
    [
        [0x8, 0x1, 0x7, 0xd, 0x6, 0xf, 0x3, 0x2, 0x0, 0xb, 0x5, 0x9, 0xe, 0xc, 0xa, 0x4],
        [0xe, 0xc, 0xb, 0x8, 0x1, 0x2, 0x3, 0x5, 0xf, 0x4, 0xa, 0x6, 0x7, 0x0, 0x9, 0xd],
        [0xb, 0xa, 0x5, 0xe, 0x6, 0xd, 0x9, 0x0, 0xc, 0x8, 0xf, 0x3, 0x2, 0x4, 0x7, 0x1],
        [0xd, 0x7, 0xf, 0x4, 0x1, 0x2, 0x6, 0xe, 0x9, 0xb, 0x3, 0x0, 0x8, 0x5, 0xc, 0xa],
    ],
    [
        [0x2, 0x8, 0xb, 0xd, 0xf, 0x7, 0x6, 0xe, 0x3, 0x1, 0x9, 0x4, 0x0, 0xa, 0xc, 0x5],
        [0x1, 0xe, 0x2, 0xb, 0x4, 0xc, 0x3, 0x7, 0x6, 0xd, 0xa, 0x5, 0xf, 0x9, 0x0, 0x8],
        [0x4, 0xc, 0x7, 0x5, 0x1, 0x6, 0x9, 0xa, 0x0, 0xe, 0xd, 0x8, 0x2, 0xb, 0x3, 0xf],
        [0xb, 0x9, 0x5, 0x1, 0xc, 0x3, 0xd, 0xe, 0x6, 0x4, 0x7, 0xf, 0x2, 0x0, 0x8, 0xa],
    ],
];
/// Which permutation byte `i` goes through before it meets word `j` of the key: `ORDER[j][i]`; and at last.
const ORDER: [[usize; 4]; MOST_UNITS] = [[0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]];
const LAST: [usize; 4] = [1, 0, 1, 0];
/// The MDS matrix by columns, over the field of [`MDS_FIELD`] (section 4.3.2).
const MDS: [[u8; 4]; 4] = [
    [0x01, 0x5b, 0xef, 0xef],
    [0xef, 0xef, 0x5b, 0x01],
    [0x5b, 0xef, 0x01, 0xef],
    [0x5b, 0x01, 0xef, 0x5b],
];
const MDS_FIELD: u8 = 0x69;
/// The RS matrix, over the field of [`RS_FIELD`] (section 4.3.1).
const RS: [[u8; 8]; 4] = [
    [0x01, 0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e],
    [0xa4, 0x56, 0x82, 0xf3, 0x1e, 0xc6, 0x68, 0xe5],
    [0x02, 0xa1, 0xfc, 0xc1, 0x47, 0xae, 0x3d, 0x19],
    [0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e, 0x03],
];
const RS_FIELD: u8 = 0x4d;

const Q: [[u8; 256]; 2] = [permutation(&NIBBLES[0]), permutation(&NIBBLES[1])];

const fn permutation(nibbles: &[[u8; 16]; 4]) -> [u8; 256] {
    const fn mixed(a: u8, b: u8) -> (u8, u8) {
        (a ^ b, (a ^ (b >> 1 | b << 3) ^ (a << 3)) & 15)
    }
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        #[allow(clippy::cast_possible_truncation)]
        let (a, b) = mixed((x >> 4) as u8, (x & 15) as u8);
        let (a, b) = mixed(nibbles[0][a as usize], nibbles[1][b as usize]);
        table[x] = nibbles[3][b as usize] << 4 | nibbles[2][a as usize];
        x += 1;
    }
    table
}

/// The product of `a` and `b` in GF(2^8), whose polynomial is `field` but for its highest term.
fn product(mut a: u8, mut b: u8, field: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { field } else { 0 };
        b >>= 1;
    }
    sum
}

/// What byte `i` with the value `x` contributes to the function `h` (section 4.3.2) with the words `key`.
fn contribution(i: usize, x: u8, key: &[[u8; 4]]) -> u32 {
    let mixed = key
        .iter()
        .zip(&ORDER)
        .rev()
        .fold(x, |x, (word, order)| Q[order[i]][usize::from(x)] ^ word[i]);
    let y = Q[LAST[i]][usize::from(mixed)];
    u32::from_le_bytes(MDS[i].map(|factor| product(y, factor, MDS_FIELD)))
}

/// The function `h` of a word whose four bytes are `x`.
fn h(x: u8, key: &[[u8; 4]]) -> u32 {
    (0..4).fold(0, |sum, i| sum ^ contribution(i, x, key))
}

type Words = [u32; 4];

/// Twofish with a key of 16, 24 or 32 bytes.
pub(super) struct Twofish {
    subkeys: Zeroizing<[u32; SUBKEYS]>,
    /// What each value of each byte contributes to `g`.
    tables: Box<Zeroizing<[[u32; 256]; 4]>>,
}

impl Twofish {
    fn g(&self, x: u32) -> u32 {
        let [a, b, c, d] = x.to_le_bytes().map(usize::from);
        self.tables[0][a] ^ self.tables[1][b] ^ self.tables[2][c] ^ self.tables[3][d]
    }

    /// The round function `F` of round `round` (section 4.2).
    fn f(&self, a: u32, b: u32, round: usize) -> (u32, u32) {
        let (a, b) = (self.g(a), self.g(b.rotate_left(8)));
        let sum = a.wrapping_add(b);
        let subkey = 8 + 2 * round;
        (
            sum.wrapping_add(self.subkeys[subkey]),
            sum.wrapping_add(b).wrapping_add(self.subkeys[subkey + 1]),
        )
    }

    /// `block` with the four subkeys from `first` on.
    fn whitened(&self, block: Words, first: usize) -> Words {
        std::array::from_fn(|i| block[i] ^ self.subkeys[first + i])
    }

    fn encrypt(&self, block: Words) -> Words {
        let [mut a, mut b, mut c, mut d] = self.whitened(block, 0);
        for round in 0..ROUNDS {
            let (x, y) = self.f(a, b, round);
            (a, b, c, d) = ((c ^ x).rotate_right(1), d.rotate_left(1) ^ y, a, b);
        }
        self.whitened([c, d, a, b], 4)
    }

    fn decrypt(&self, block: Words) -> Words {
        let [mut c, mut d, mut a, mut b] = self.whitened(block, 4);
        for round in (0..ROUNDS).rev() {
            let (x, y) = self.f(c, d, round);
            (a, b, c, d) = (c, d, a.rotate_left(1) ^ x, (b ^ y).rotate_right(1));
        }
        self.whitened([a, b, c, d], 0)
    }
}

impl KeySizeUser for Twofish {
    type KeySize = U32;
}

impl KeyInit for Twofish {
    fn new(key: &Key<Self>) -> Self {
        Self::with_units(key.as_chunks().0)
    }

    fn new_from_slice(key: &[u8]) -> Result<Self, InvalidLength> {
        match key.as_chunks() {
            (units @ [_, _, ..], []) if units.len() <= MOST_UNITS => Ok(Self::with_units(units)),
            _ => Err(InvalidLength),
        }
    }
}

impl Twofish {
    /// The cipher with a key of these units (section 4.3).
    fn with_units(units: &[[u8; 8]]) -> Self {
        let mut even = Zeroizing::new([[0; 4]; MOST_UNITS]);
        let (mut odd, mut folded) = (even.clone(), even.clone());
        let count = units.len();
        for (i, unit) in units.iter().enumerate() {
            even[i].copy_from_slice(&unit[..4]);
            odd[i].copy_from_slice(&unit[4..]);
            // The folded words come in reverse order.
            folded[count - 1 - i] = RS.map(|row| {
                row.iter().zip(unit).fold(0, |sum, (a, b)| sum ^ product(*a, *b, RS_FIELD))
            });
        }
        let mut subkeys = Zeroizing::new([0; SUBKEYS]);
        for (pair, x) in subkeys.as_chunks_mut::<2>().0.iter_mut().zip((0..).step_by(2)) {
            let a = h(x, &even[..count]);
            let b = h(x + 1, &odd[..count]).rotate_left(8);
            let sum = a.wrapping_add(b);
            *pair = [sum, sum.wrapping_add(b).rotate_left(9)];
        }
        let mut tables = Box::new(Zeroizing::new([[0; 256]; 4]));
        for (i, table) in tables.iter_mut().enumerate() {
            for (entry, x) in table.iter_mut().zip(0..=u8::MAX) {
                *entry = contribution(i, x, &folded[..count]);
            }
        }
        Self { subkeys, tables }
    }
}

/// The words of a block, whose bytes go lowest first.
fn words(block: &Block<Twofish>) -> Words {
    let (words, _) = block.as_chunks();
    std::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

fn store(words: Words, block: &mut Block<Twofish>) {
    for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
}

impl BlockSizeUser for Twofish {
    type BlockSize = U16;
}

impl ParBlocksSizeUser for Twofish {
    type ParBlocksSize = U1;
}

impl BlockCipherEncrypt for Twofish {
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherEncBackend for Twofish {
    #[inline]
    fn encrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        store(self.encrypt(words(block.get_in())), block.get_out());
    }
}

impl BlockCipherDecrypt for Twofish {
    fn decrypt_with_backend(&self, f: impl BlockCipherDecClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherDecBackend for Twofish {
    #[inline]
    fn decrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        store(self.decrypt(words(block.get_in())), block.get_out());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_slow_one(key: [u8; 32], length in 0_usize..3, block: [u8; 16]) {
            let key = &key[..16 + 8 * length];
            let ours = Twofish::new_from_slice(key).expect("a length that is allowed");
            let theirs = twofish::Twofish::new_from_slice(key).expect("a length that is allowed");
            let (mut mine, mut expected) = (block, block);
            BlockCipherEncrypt::encrypt_block(&ours, (&mut mine).into());
            BlockCipherEncrypt::encrypt_block(&theirs, (&mut expected).into());
            prop_assert_eq!(mine, expected);
            BlockCipherDecrypt::decrypt_block(&ours, (&mut mine).into());
            prop_assert_eq!(mine, block);
        }
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        for length in [0, 8, 15, 17, 31, 33, 40] {
            assert!(Twofish::new_from_slice(&vec![0; length]).is_err(), "{length}");
        }
    }
}
