//! Hash functions and the derivation of keys from passphrases (PBKDF2, RFC 8018 section 5.2).

use hmac::Hmac;
use md5::Md5;
use ripemd::Ripemd160;
use sha1::Sha1;
use sha2::digest::{Digest, OutputSizeUser};
use sha2::{Sha224, Sha256, Sha384, Sha512};
use sm3::Sm3;

use super::algorithm::HashAlg;

/// Evaluates an expression with `$D` as the type that implements `$hash`.
macro_rules! with_digest {
    ($hash:expr, $D:ident => $expression:expr) => {
        match $hash {
            HashAlg::Md5 => {
                type $D = Md5;
                $expression
            }
            HashAlg::Sha1 => {
                type $D = Sha1;
                $expression
            }
            HashAlg::Sha224 => {
                type $D = Sha224;
                $expression
            }
            HashAlg::Sha256 => {
                type $D = Sha256;
                $expression
            }
            HashAlg::Sha384 => {
                type $D = Sha384;
                $expression
            }
            HashAlg::Sha512 => {
                type $D = Sha512;
                $expression
            }
            HashAlg::Ripemd160 => {
                type $D = Ripemd160;
                $expression
            }
            HashAlg::Sm3 => {
                type $D = Sm3;
                $expression
            }
        }
    };
}

impl HashAlg {
    /// Length of a hash in bytes.
    #[allow(clippy::len_without_is_empty, reason = "no hash is empty")]
    pub fn len(self) -> usize {
        with_digest!(self, D => <D as OutputSizeUser>::output_size())
    }

    /// The hash of the concatenated `parts`.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        with_digest!(self, D => {
            let mut state = D::new();
            for part in parts {
                state.update(part);
            }
            state.finalize().to_vec()
        })
    }

    /// Fills `key` with what PBKDF2 with HMAC makes of `password`. Takes time in proportion to
    /// `iterations` and to the number of hashes that `key` has room for.
    pub fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
        with_digest!(self, D => {
            // HMAC takes keys of any length.
            let derived = pbkdf2::pbkdf2::<Hmac<D>>(password, salt, iterations, key);
            debug_assert!(derived.is_ok());
        });
    }

    /// How many iterations of [`HashAlg::pbkdf2`] for keys of `key_len` bytes take this processor
    /// `millis` milliseconds. At most `u32::MAX`.
    pub fn iterations_in(self, key_len: usize, millis: u64) -> u32 {
        /// Processor time in nanoseconds that is enough to measure with.
        const ENOUGH: u64 = 20_000_000;
        if millis == 0 {
            return 0;
        }
        let mut key = vec![0; key_len];
        let mut iterations = 1u32 << 10;
        let nanos = loop {
            let start = processor_time();
            self.pbkdf2(b"password", &[0; 32], iterations, &mut key);
            let taken = processor_time().saturating_sub(start).max(1);
            if taken >= ENOUGH || iterations >= 1 << 30 {
                break taken;
            }
            iterations *= 2;
        };
        let wanted = u128::from(iterations) * u128::from(millis) * 1_000_000 / u128::from(nanos);
        u32::try_from(wanted).unwrap_or(u32::MAX)
    }
}

/// Processor time that this thread has used, in nanoseconds: other programs do not count.
fn processor_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(text.get(at..at + 2).unwrap_or(""), 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn hashes_of_abc() {
        for (hash, expected) in [
            (HashAlg::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (HashAlg::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (HashAlg::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
            (HashAlg::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (HashAlg::Ripemd160, "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
            (HashAlg::Sm3, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
        ] {
            let digest = hash.digest(&[b"a", b"bc"]);
            assert_eq!(digest, unhex(expected), "{hash}");
            assert_eq!(digest.len(), hash.len());
        }
        assert_eq!((HashAlg::Sha384.len(), HashAlg::Sha512.len()), (48, 64));
    }

    #[test]
    fn derived_keys_are_those_of_rfc_6070() {
        let mut key = [0; 20];
        HashAlg::Sha1.pbkdf2(b"password", b"salt", 4096, &mut key);
        assert_eq!(key[..], unhex("4b007901b765489abead49d926f721d065a429c1"));
        let mut key = [0; 25];
        let salt = b"saltSALTsaltSALTsaltSALTsaltSALTsalt";
        HashAlg::Sha1.pbkdf2(b"passwordPASSWORDpassword", salt, 4096, &mut key);
        assert_eq!(key[..], unhex("3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"));
    }

    #[test]
    fn more_time_means_more_iterations() {
        let iterations = HashAlg::Sha256.iterations_in(64, 1000);
        assert!(iterations > 100);
        assert_eq!(HashAlg::Sha256.iterations_in(32, 0), 0);
    }
}
