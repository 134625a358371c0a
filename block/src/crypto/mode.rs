//! Modes of operation over whole sectors, written for many blocks at a time.
//!
//! Ciphers of the `aes` family encrypt up to dozens of blocks at once with the processor's AES units,
//! which the crate finds out about when it runs. So every mode here hands over as many independent
//! blocks as it can: all blocks of a batch of sectors, or one block of each sector where the blocks
//! of a sector depend on each other.

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser};

/// Length of a sector in bytes: the unit of encryption.
pub(super) const SECTOR: usize = 512;
/// Sectors that are treated at once.
pub(super) const BATCH: usize = 16;
/// Blocks of 16 bytes in a sector.
const BLOCKS: usize = SECTOR / 16;

/// An initialisation vector; ciphers with shorter blocks use the front of it.
pub(super) type Iv = [u8; 16];

/// A cipher that can be used in any mode.
pub(super) trait Cipher:
    BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser + Send + Sync + 'static
{
}

impl<C> Cipher for C where C: BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync + 'static {}

/// A mode with its keys. `data` is at most [`BATCH`] whole sectors, and `ivs` has one vector for each
/// of them.
pub(super) trait Mode: Send + Sync {
    fn encrypt(&self, ivs: &[Iv], data: &mut [u8]);
    fn decrypt(&self, ivs: &[Iv], data: &mut [u8]);
}

fn blocks<C: Cipher>(data: &mut [u8]) -> &mut [Block<C>] {
    // Sectors are multiples of every block size.
    Array::slice_as_chunks_mut(data).0
}

fn xor(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to ^= from);
}

/// XEX without ciphertext stealing (IEEE 1619-2018, section 5.3).
pub(super) struct Xts<C> {
    pub(super) data: C,
    pub(super) tweak: C,
}

impl<C: Cipher + BlockSizeUser<BlockSize = U16>> Xts<C> {
    /// Calls `work` on the data with the tweaks added before and after.
    fn tweaked(&self, ivs: &[Iv], data: &mut [u8], work: impl FnOnce(&C, &mut [Block<C>])) {
        let mut starts = [Block::<C>::default(); BATCH];
        for (start, iv) in starts.iter_mut().zip(ivs) {
            *start = Array(*iv);
        }
        let count = ivs.len().min(BATCH);
        let (starts, _) = starts.split_at_mut(count);
        self.tweak.encrypt_blocks(starts);
        // One row for each place in a sector: the chains of the sectors go on side by side.
        let mut tweaks = [[0u128; BATCH]; BLOCKS];
        let mut row = [0u128; BATCH];
        for (tweak, start) in row.iter_mut().zip(&*starts) {
            *tweak = u128::from_le_bytes(start.0);
        }
        for tweaks in &mut tweaks {
            *tweaks = row;
            for tweak in &mut row {
                *tweak = double(*tweak);
            }
        }
        add(&tweaks, data);
        work(&self.data, blocks::<C>(data));
        add(&tweaks, data);
    }
}

/// The product with the primitive element of GF(2^128) (IEEE 1619-2018, section 5.2).
fn double(tweak: u128) -> u128 {
    (tweak << 1) ^ ((tweak >> 127) * 0x87)
}

fn add(tweaks: &[[u128; BATCH]; BLOCKS], data: &mut [u8]) {
    for (number, sector) in data.chunks_exact_mut(SECTOR).enumerate() {
        for (block, tweaks) in sector.as_chunks_mut::<16>().0.iter_mut().zip(tweaks) {
            let tweak = tweaks.get(number).copied().unwrap_or_default();
            *block = (u128::from_le_bytes(*block) ^ tweak).to_le_bytes();
        }
    }
}

impl<C: Cipher + BlockSizeUser<BlockSize = U16>> Mode for Xts<C> {
    fn encrypt(&self, ivs: &[Iv], data: &mut [u8]) {
        self.tweaked(ivs, data, C::encrypt_blocks);
    }

    fn decrypt(&self, ivs: &[Iv], data: &mut [u8]) {
        self.tweaked(ivs, data, C::decrypt_blocks);
    }
}

/// Cipher block chaining (NIST SP 800-38A, section 6.2).
pub(super) struct Cbc<C>(pub(super) C);

impl<C: Cipher> Mode for Cbc<C> {
    fn encrypt(&self, ivs: &[Iv], data: &mut [u8]) {
        let len = C::block_size();
        // The blocks of a sector depend on each other, the sectors do not.
        let mut row: [Block<C>; BATCH] = std::array::from_fn(|_| Block::<C>::default());
        let (row, _) = row.split_at_mut(ivs.len().min(BATCH));
        for (previous, iv) in row.iter_mut().zip(ivs) {
            previous.iter_mut().zip(iv).for_each(|(to, from)| *to = *from);
        }
        for at in (0..SECTOR).step_by(len) {
            for (block, sector) in row.iter_mut().zip(data.chunks_exact(SECTOR)) {
                xor(block, sector.get(at..at + len).unwrap_or_default());
            }
            self.0.encrypt_blocks(row);
            for (block, sector) in row.iter().zip(data.chunks_exact_mut(SECTOR)) {
                let place = sector.get_mut(at..at + len).unwrap_or_default();
                place.iter_mut().zip(block).for_each(|(to, from)| *to = *from);
            }
        }
    }

    fn decrypt(&self, ivs: &[Iv], data: &mut [u8]) {
        let len = C::block_size();
        let mut stored = [0; BATCH * SECTOR];
        stored.iter_mut().zip(&*data).for_each(|(to, from)| *to = *from);
        self.0.decrypt_blocks(blocks::<C>(data));
        let sectors = data.chunks_exact_mut(SECTOR).zip(stored.chunks_exact(SECTOR)).zip(ivs);
        for ((sector, stored), iv) in sectors {
            let (first, rest) = sector.split_at_mut(len);
            xor(first, iv);
            xor(rest, stored);
        }
    }
}

/// Counter mode (NIST SP 800-38A, section 6.5): the vector counts up, big-endian, with each block.
pub(super) struct Ctr<C>(pub(super) C);

impl<C: Cipher> Mode for Ctr<C> {
    fn encrypt(&self, ivs: &[Iv], data: &mut [u8]) {
        let len = C::block_size();
        let mut stream = [0; BATCH * SECTOR];
        for (sector, iv) in stream.chunks_exact_mut(SECTOR).zip(ivs) {
            let mut counter = *iv;
            let (counter, _) = counter.split_at_mut(len.min(16));
            for block in sector.chunks_exact_mut(len) {
                block.copy_from_slice(counter);
                increment(counter);
            }
        }
        let (used, _) = stream.split_at_mut(data.len().min(BATCH * SECTOR));
        self.0.encrypt_blocks(blocks::<C>(used));
        xor(data, used);
    }

    fn decrypt(&self, ivs: &[Iv], data: &mut [u8]) {
        self.encrypt(ivs, data);
    }
}

fn increment(counter: &mut [u8]) {
    for byte in counter.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}

/// Electronic codebook (NIST SP 800-38A, section 6.1).
pub(super) struct Ecb<C>(pub(super) C);

impl<C: Cipher> Mode for Ecb<C> {
    fn encrypt(&self, _: &[Iv], data: &mut [u8]) {
        self.0.encrypt_blocks(blocks::<C>(data));
    }

    fn decrypt(&self, _: &[Iv], data: &mut [u8]) {
        self.0.decrypt_blocks(blocks::<C>(data));
    }
}
