//! The anti-forensic splitter (LUKS On-Disk Format Specification 1.2.3, section 2.4): a key blown up
//! so that losing any part of it loses all of it.

use zeroize::Zeroizing;

use super::algorithm::HashAlg;

/// Splits `key` into `stripes` pieces of its length, of which all but the last are `random`, which is
/// as long as all of them and is used up.
pub(super) fn split(
    hash: HashAlg,
    key: &[u8],
    mut random: Zeroizing<Vec<u8>>,
) -> Zeroizing<Vec<u8>> {
    let last = random.len().saturating_sub(key.len());
    let (stripes, rest) = random.split_at_mut(last);
    let sum = accumulate(hash, stripes, key.len());
    for ((out, sum), key) in rest.iter_mut().zip(sum.iter()).zip(key) {
        *out = sum ^ key;
    }
    random
}

/// Puts the key of `key_len` bytes together again.
pub(super) fn merge(hash: HashAlg, material: &[u8], key_len: usize) -> Zeroizing<Vec<u8>> {
    let (stripes, rest) = material.split_at(material.len().saturating_sub(key_len));
    let mut key = accumulate(hash, stripes, key_len);
    xor(&mut key, rest);
    key
}

/// The stripes, each added to the diffused sum of those before it.
fn accumulate(hash: HashAlg, stripes: &[u8], key_len: usize) -> Zeroizing<Vec<u8>> {
    let mut sum = Zeroizing::new(vec![0; key_len]);
    for stripe in stripes.chunks_exact(key_len.max(1)) {
        xor(&mut sum, stripe);
        diffuse(hash, &mut sum);
    }
    sum
}

/// Replaces each piece of a hash's length by the hash of its number and itself.
fn diffuse(hash: HashAlg, block: &mut [u8]) {
    for (number, piece) in (0u32..).zip(block.chunks_mut(hash.len())) {
        let digest = Zeroizing::new(hash.digest(&[&number.to_be_bytes(), piece]));
        piece.iter_mut().zip(digest.iter()).for_each(|(byte, new)| *byte = *new);
    }
}

fn xor(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to ^= from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_key_comes_back_only_whole() {
        for hash in [HashAlg::Md5, HashAlg::Sha1, HashAlg::Sha512] {
            for key_len in [16, 24, 32, 64] {
                let key: Vec<u8> = (7..=255).take(key_len).collect();
                let noise = (0..=250).cycle().take(key_len * 50).collect();
                let mut material = split(hash, &key, Zeroizing::new(noise));
                assert_eq!(*merge(hash, &material, key.len()), key);
                material[3] ^= 1;
                assert_ne!(*merge(hash, &material, key.len()), key);
            }
        }
    }
}
