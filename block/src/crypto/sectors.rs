//! A cipher with its key, ready to encrypt and decrypt runs of sectors.

use std::fmt;

use aes::cipher::KeyInit;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncrypt, BlockSizeUser};
use aes::{Aes128, Aes192, Aes256};
use cast5::Cast5;
use serpent::Serpent;
use sm4::Sm4;
use zeroize::Zeroizing;

use super::algorithm::{CipherAlg, CipherMode, CipherSpec, IvGenAlg, SpecError};
use super::mode::{BATCH, Cbc, Cipher, Ctr, Ecb, Iv, Mode, SECTOR, Xts};
use super::twofish::Twofish;

/// Encrypts one block in place.
type EncryptIv = Box<dyn Fn(&mut Iv) + Send + Sync>;

enum IvGen {
    Plain,
    Plain64,
    Essiv(EncryptIv),
}

impl IvGen {
    fn iv(&self, sector: u64) -> Iv {
        let number = match self {
            IvGen::Plain => sector & u64::from(u32::MAX),
            IvGen::Plain64 | IvGen::Essiv(_) => sector,
        };
        let mut iv = u128::from(number).to_le_bytes();
        if let IvGen::Essiv(encrypt) = self {
            encrypt(&mut iv);
        }
        iv
    }
}

/// Encrypts sectors of 512 bytes with one key. The key is wiped from memory when this is dropped.
pub struct SectorCipher {
    mode: Box<dyn Mode>,
    ivgen: IvGen,
}

impl fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SectorCipher")
    }
}

impl SectorCipher {
    /// Length of a sector in bytes.
    pub const SECTOR: usize = SECTOR;
    /// The same as a 32-bit number.
    pub const SECTOR_U32: u32 = 512;

    /// The cipher that `spec` describes, with `key`.
    pub fn new(spec: CipherSpec, key: &[u8]) -> Result<SectorCipher, SpecError> {
        spec.check()?;
        let wrong_length = SpecError::KeyLength { have: key.len(), need: spec.key_len() };
        if key.len() != spec.key_len() {
            return Err(wrong_length);
        }
        let mode = match spec.alg {
            CipherAlg::Aes128 => wide::<Aes128>(spec.mode, key),
            CipherAlg::Aes192 => wide::<Aes192>(spec.mode, key),
            CipherAlg::Aes256 => wide::<Aes256>(spec.mode, key),
            CipherAlg::Serpent128 | CipherAlg::Serpent192 | CipherAlg::Serpent256 => {
                wide::<Serpent>(spec.mode, key)
            }
            CipherAlg::Twofish128 | CipherAlg::Twofish192 | CipherAlg::Twofish256 => {
                wide::<Twofish>(spec.mode, key)
            }
            CipherAlg::Sm4 => wide::<Sm4>(spec.mode, key),
            CipherAlg::Cast5 => narrow::<Cast5>(spec.mode, key),
        };
        let ivgen = match spec.ivgen {
            IvGenAlg::Plain => Some(IvGen::Plain),
            IvGenAlg::Plain64 => Some(IvGen::Plain64),
            IvGenAlg::Essiv => {
                let salt = Zeroizing::new(spec.ivgen_hash.digest(&[key]));
                essiv(spec.essiv_cipher()?, &salt).map(IvGen::Essiv)
            }
        };
        match mode.zip(ivgen) {
            Some((mode, ivgen)) => Ok(SectorCipher { mode, ivgen }),
            None => Err(wrong_length),
        }
    }

    /// Encrypts `data`, whole sectors of which the first has the number `sector`.
    pub fn encrypt(&self, sector: u64, data: &mut [u8]) {
        self.batches(sector, data, |ivs, data| self.mode.encrypt(ivs, data));
    }

    /// Decrypts `data`, whole sectors of which the first has the number `sector`.
    pub fn decrypt(&self, sector: u64, data: &mut [u8]) {
        self.batches(sector, data, |ivs, data| self.mode.decrypt(ivs, data));
    }

    fn batches(&self, sector: u64, data: &mut [u8], work: impl Fn(&[Iv], &mut [u8])) {
        debug_assert!(data.len().is_multiple_of(SECTOR));
        let mut ivs = [Iv::default(); BATCH];
        let mut sector = sector;
        for batch in data.chunks_mut(BATCH * SECTOR) {
            let count = batch.len() / SECTOR;
            let (ivs, _) = ivs.split_at_mut(count.min(BATCH));
            for iv in ivs.iter_mut() {
                *iv = self.ivgen.iv(sector);
                sector = sector.wrapping_add(1);
            }
            work(ivs, batch);
        }
    }
}

/// A cipher with blocks of 16 bytes in `mode`. `None` if the key has the wrong length.
fn wide<C>(mode: CipherMode, key: &[u8]) -> Option<Box<dyn Mode>>
where
    C: Cipher + KeyInit + BlockSizeUser<BlockSize = U16>,
{
    if mode != CipherMode::Xts {
        return narrow::<C>(mode, key);
    }
    let (data, tweak) = key.split_at(key.len() / 2);
    let (data, tweak) = (C::new_from_slice(data).ok()?, C::new_from_slice(tweak).ok()?);
    Some(Box::new(Xts { data, tweak }))
}

/// A cipher with any blocks in `mode`. `None` if the key has the wrong length or the mode is XTS.
fn narrow<C: Cipher + KeyInit>(mode: CipherMode, key: &[u8]) -> Option<Box<dyn Mode>> {
    let cipher = C::new_from_slice(key).ok()?;
    Some(match mode {
        CipherMode::Ecb => Box::new(Ecb(cipher)),
        CipherMode::Cbc => Box::new(Cbc(cipher)),
        CipherMode::Ctr => Box::new(Ctr(cipher)),
        CipherMode::Xts => return None,
    })
}

fn essiv(alg: CipherAlg, salt: &[u8]) -> Option<EncryptIv> {
    fn single<C>(key: &[u8]) -> Option<EncryptIv>
    where
        C: Cipher + KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        let cipher = C::new_from_slice(key).ok()?;
        Some(Box::new(move |iv: &mut Iv| cipher.encrypt_block(iv.into())))
    }
    match alg {
        CipherAlg::Aes128 => single::<Aes128>(salt),
        CipherAlg::Aes192 => single::<Aes192>(salt),
        CipherAlg::Aes256 => single::<Aes256>(salt),
        CipherAlg::Serpent128 | CipherAlg::Serpent192 | CipherAlg::Serpent256 => {
            single::<Serpent>(salt)
        }
        CipherAlg::Twofish128 | CipherAlg::Twofish192 | CipherAlg::Twofish256 => {
            single::<Twofish>(salt)
        }
        CipherAlg::Sm4 => single::<Sm4>(salt),
        CipherAlg::Cast5 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::HashAlg;
    use super::*;

    fn spec(alg: CipherAlg, mode: CipherMode, ivgen: IvGenAlg) -> CipherSpec {
        CipherSpec { alg, mode, ivgen, ivgen_hash: HashAlg::Sha256 }
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(text.get(at..at + 2).unwrap_or(""), 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    /// IEEE 1619-2018, annex B, vector 10: a sector of 512 bytes with AES-256.
    #[test]
    fn xts_gives_the_vector_of_the_standard() {
        let key = unhex(concat!(
            "2718281828459045235360287471352662497757247093699959574966967627",
            "3141592653589793238462643383279502884197169399375105820974944592"
        ));
        let spec = spec(CipherAlg::Aes256, CipherMode::Xts, IvGenAlg::Plain64);
        let cipher = SectorCipher::new(spec, &key).expect("valid");
        let plain: Vec<u8> = (0..=255).cycle().take(512).collect();
        let mut data = plain.clone();
        cipher.encrypt(0xff, &mut data);
        assert_eq!(
            data[..64],
            unhex(concat!(
                "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
                "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
            ))
        );
        cipher.decrypt(0xff, &mut data);
        assert_eq!(data, plain);
    }

    /// NIST SP 800-38A, F.1.5.
    #[test]
    fn ecb_and_the_start_of_a_chain_give_a_known_block() {
        let key = unhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let block = unhex("6bc1bee22e409f96e93d7e117393172a");
        let mut data = vec![0; 512];
        data[..16].copy_from_slice(&block);
        // With sector 0 the vector of plain64 is zero, so that CBC begins like ECB.
        let ecb = unhex("f3eed1bdb5d2a03c064b5a7e3db181f8");
        for mode in [CipherMode::Ecb, CipherMode::Cbc] {
            let spec = spec(CipherAlg::Aes256, mode, IvGenAlg::Plain64);
            let cipher = SectorCipher::new(spec, &key).expect("valid");
            let mut encrypted = data.clone();
            cipher.encrypt(0, &mut encrypted);
            assert_eq!(encrypted[..16], ecb, "{mode}");
        }
    }

    #[test]
    fn every_combination_decrypts_what_it_encrypted() {
        let plain: Vec<u8> = (0..=250).cycle().take(512 * 37).collect();
        for alg in CipherAlg::ALL {
            for mode in CipherMode::ALL {
                for ivgen in [IvGenAlg::Plain, IvGenAlg::Plain64, IvGenAlg::Essiv] {
                    let spec = spec(alg, mode, ivgen);
                    let key: Vec<u8> = (0..=255).take(spec.key_len()).collect();
                    let Ok(cipher) = SectorCipher::new(spec, &key) else {
                        let refused = (alg == CipherAlg::Cast5
                            && (mode == CipherMode::Xts || ivgen == IvGenAlg::Essiv))
                            || (alg == CipherAlg::Sm4 && ivgen == IvGenAlg::Essiv);
                        assert!(refused, "{spec:?}");
                        continue;
                    };
                    let first = u64::from(u32::MAX) - 5;
                    let mut data = plain.clone();
                    cipher.encrypt(first, &mut data);
                    assert_ne!(data, plain);
                    // Any cut gives the same as all at once.
                    let mut pieces = plain.clone();
                    let mut sector = first;
                    for piece in pieces.chunks_mut(512 * 5) {
                        cipher.encrypt(sector, piece);
                        sector += piece.len() as u64 / 512;
                    }
                    assert!(pieces == data, "{spec:?}");
                    cipher.decrypt(first, &mut data);
                    assert!(data == plain, "{spec:?}");
                }
            }
        }
    }

    #[test]
    fn keys_of_the_wrong_length_are_refused() {
        let spec = spec(CipherAlg::Aes256, CipherMode::Xts, IvGenAlg::Plain64);
        let error = SectorCipher::new(spec, &[0; 32]).expect_err("too short");
        assert_eq!(error, SpecError::KeyLength { have: 32, need: 64 });
    }
}
