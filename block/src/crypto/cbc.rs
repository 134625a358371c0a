//! CBC with the padding of PKCS #7, by which secrets and private keys are wrapped.

use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockSizeUser, KeyInit};
use zeroize::Zeroizing;

/// Length of an AES block in bytes.
const BLOCK: usize = 16;

/// Decrypts `bytes` in place and takes the padding away. `None` if `key` does not fit the cipher or
/// there is no valid padding.
pub(crate) fn decrypt_cbc<C>(
    key: &[u8],
    iv: [u8; BLOCK],
    mut bytes: Zeroizing<Vec<u8>>,
) -> Option<Zeroizing<Vec<u8>>>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    let cipher = C::new_from_slice(key).ok()?;
    let (blocks, rest) = bytes.as_chunks_mut::<BLOCK>();
    if !rest.is_empty() {
        return None;
    }
    let mut previous = iv;
    for block in blocks {
        let stored = *block;
        cipher.decrypt_block(block.into());
        block.iter_mut().zip(previous).for_each(|(to, from)| *to ^= from);
        previous = stored;
    }
    let padding = usize::from(*bytes.last()?);
    let len = bytes.len().checked_sub(padding)?;
    let valid = (1..=BLOCK).contains(&padding)
        && bytes.get(len..)?.iter().all(|byte| usize::from(*byte) == padding);
    bytes.truncate(len);
    valid.then_some(bytes)
}
