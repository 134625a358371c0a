//! Options for opening and creating.

use crate::crypto::{CipherAlg, CipherMode, HashAlg, IvGenAlg, VolumeOptions};
use crate::options::Size;
use crate::protocols::file::Preallocation;

crate::options! {
    /// Options for opening.
    pub(super) struct LuksOptions {
        /// ID of the secret with the passphrase.
        "key-secret" => key_secret: Option<String> [strong],
        /// Most iterations of a key derivation that are accepted from the header; 50 million unless
        /// the header can be trusted.
        "max-iterations" => max_iterations: Option<u64>,
    }
}

crate::options! {
    /// Options for creating. The order is that in which tools print them.
    pub(super) struct CreateOptions {
        /// Size of the virtual disk
        "size" => size: Size = "0",
        /// ID of the secret with the passphrase
        "key-secret" => key_secret: Option<String>,
        /// Cipher algorithm (default: aes-256)
        "cipher-alg" => cipher_alg: Option<CipherAlg>,
        /// Cipher mode (default: xts)
        "cipher-mode" => cipher_mode: Option<CipherMode>,
        /// Generator of initialisation vectors (default: plain64)
        "ivgen-alg" => ivgen_alg: Option<IvGenAlg>,
        /// Hash algorithm of ivgen-alg=essiv (default: sha256)
        "ivgen-hash-alg" => ivgen_hash_alg: Option<HashAlg>,
        /// Hash algorithm of the key derivation (default: sha256)
        "hash-alg" => hash_alg: Option<HashAlg>,
        /// Milliseconds to spend on key derivation (default: 2000)
        "iter-time" => iter_time: Option<u64>,
        /// Make the header of a volume whose payload is in another file
        "detached-header" => detached_header: Option<bool>,
        /// What to allocate at once: off, falloc or full
        "preallocation" => preallocation: Option<Preallocation>,
    }
}

impl CreateOptions {
    pub(super) fn volume_options(&self) -> VolumeOptions {
        VolumeOptions {
            cipher_alg: self.cipher_alg,
            cipher_mode: self.cipher_mode,
            ivgen_alg: self.ivgen_alg,
            ivgen_hash_alg: self.ivgen_hash_alg,
            hash_alg: self.hash_alg,
            iter_time: self.iter_time,
        }
    }
}
