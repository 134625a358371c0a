//! The algorithms that encrypted images name, with the sizes of their keys and blocks.

use crate::option_words;

option_words! {
    /// A block cipher with the length of its key, in the words of image options.
    #[derive(Hash)]
    pub enum CipherAlg {
        /// AES (FIPS 197) with 128 bits.
        Aes128 = "aes-128",
        /// AES with 192 bits.
        Aes192 = "aes-192",
        /// AES with 256 bits.
        Aes256 = "aes-256",
        /// CAST5 (RFC 2144) with 128 bits; its blocks have 8 bytes.
        Cast5 = "cast5-128",
        /// Serpent with 128 bits.
        Serpent128 = "serpent-128",
        /// Serpent with 192 bits.
        Serpent192 = "serpent-192",
        /// Serpent with 256 bits.
        Serpent256 = "serpent-256",
        /// Twofish with 128 bits.
        Twofish128 = "twofish-128",
        /// Twofish with 192 bits.
        Twofish192 = "twofish-192",
        /// Twofish with 256 bits.
        Twofish256 = "twofish-256",
        /// SM4 (GB/T 32907).
        Sm4 = "sm4",
    }
}

impl CipherAlg {
    /// Every algorithm, in the order in which options list them.
    pub const ALL: [CipherAlg; 11] = [
        CipherAlg::Aes128,
        CipherAlg::Aes192,
        CipherAlg::Aes256,
        CipherAlg::Cast5,
        CipherAlg::Serpent128,
        CipherAlg::Serpent192,
        CipherAlg::Serpent256,
        CipherAlg::Twofish128,
        CipherAlg::Twofish192,
        CipherAlg::Twofish256,
        CipherAlg::Sm4,
    ];

    /// Length of the key in bytes.
    pub fn key_len(self) -> usize {
        match self {
            CipherAlg::Aes128
            | CipherAlg::Cast5
            | CipherAlg::Serpent128
            | CipherAlg::Twofish128
            | CipherAlg::Sm4 => 16,
            CipherAlg::Aes192 | CipherAlg::Serpent192 | CipherAlg::Twofish192 => 24,
            CipherAlg::Aes256 | CipherAlg::Serpent256 | CipherAlg::Twofish256 => 32,
        }
    }

    /// Length of a block in bytes.
    pub fn block_len(self) -> usize {
        if self == CipherAlg::Cast5 { 8 } else { 16 }
    }

    /// The cipher's name without the length of the key, as LUKS headers have it.
    pub fn family(self) -> &'static str {
        match self {
            CipherAlg::Aes128 | CipherAlg::Aes192 | CipherAlg::Aes256 => "aes",
            CipherAlg::Cast5 => "cast5",
            CipherAlg::Serpent128 | CipherAlg::Serpent192 | CipherAlg::Serpent256 => "serpent",
            CipherAlg::Twofish128 | CipherAlg::Twofish192 | CipherAlg::Twofish256 => "twofish",
            CipherAlg::Sm4 => "sm4",
        }
    }

    /// The member of `family` with keys of `key_len` bytes.
    pub fn of_family(family: &str, key_len: usize) -> Option<CipherAlg> {
        CipherAlg::ALL.into_iter().find(|alg| alg.family() == family && alg.key_len() == key_len)
    }
}

option_words! {
    /// How a block cipher encrypts a sector.
    #[derive(Hash)]
    pub enum CipherMode {
        /// Every block by itself: equal blocks become equal.
        Ecb = "ecb",
        /// Cipher block chaining.
        Cbc = "cbc",
        /// XEX with ciphertext stealing (IEEE 1619), which sectors never need. Takes two keys.
        Xts = "xts",
        /// Counter mode.
        Ctr = "ctr",
    }
}

impl CipherMode {
    /// Every mode, in the order in which options list them.
    pub const ALL: [CipherMode; 4] =
        [CipherMode::Ecb, CipherMode::Cbc, CipherMode::Xts, CipherMode::Ctr];

    /// Keys of the cipher that the mode takes.
    pub fn keys(self) -> usize {
        if self == CipherMode::Xts { 2 } else { 1 }
    }
}

option_words! {
    /// How initialisation vectors follow from the number of a sector.
    #[derive(Hash)]
    pub enum IvGenAlg {
        /// The number's low 32 bits, little-endian.
        Plain = "plain",
        /// The number with 64 bits, little-endian.
        Plain64 = "plain64",
        /// The number, encrypted with a hash of the key.
        Essiv = "essiv",
    }
}

option_words! {
    /// A hash function.
    #[derive(Hash)]
    pub enum HashAlg {
        /// MD5 (RFC 1321).
        Md5 = "md5",
        /// SHA-1 (FIPS 180-4).
        Sha1 = "sha1",
        /// SHA-224.
        Sha224 = "sha224",
        /// SHA-256.
        Sha256 = "sha256",
        /// SHA-384.
        Sha384 = "sha384",
        /// SHA-512.
        Sha512 = "sha512",
        /// RIPEMD-160.
        Ripemd160 = "ripemd160",
        /// SM3 (GB/T 32905).
        Sm3 = "sm3",
    }
}

/// All that decides how sectors are encrypted, but for the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CipherSpec {
    /// The block cipher.
    pub alg: CipherAlg,
    /// Its mode.
    pub mode: CipherMode,
    /// Where initialisation vectors come from.
    pub ivgen: IvGenAlg,
    /// The hash function of [`IvGenAlg::Essiv`]; of no meaning to the others.
    pub ivgen_hash: HashAlg,
}

/// Why algorithms do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// XTS is defined for blocks of 16 bytes.
    #[error("mode xts needs a cipher with blocks of 16 bytes, which {0} does not have")]
    XtsBlock(CipherAlg),
    /// ESSIV encrypts with a key that is as long as the hash.
    #[error("ivgen essiv with {hash} needs a {family} cipher with keys of {} bits, which there is not", hash.len() * 8)]
    Essiv {
        /// Name of the cipher's family.
        family: &'static str,
        /// The hash function.
        hash: HashAlg,
    },
    /// The key has another length than the algorithms need.
    #[error("the key has {have} bytes instead of {need}")]
    KeyLength {
        /// Length of the key in bytes.
        have: usize,
        /// Length that is needed.
        need: usize,
    },
}

impl CipherSpec {
    /// Length of the key in bytes.
    pub fn key_len(self) -> usize {
        self.alg.key_len() * self.mode.keys()
    }

    /// The cipher that encrypts sector numbers for ESSIV.
    pub(super) fn essiv_cipher(self) -> Result<CipherAlg, SpecError> {
        let (family, hash) = (self.alg.family(), self.ivgen_hash);
        CipherAlg::of_family(family, hash.len())
            .filter(|alg| alg.block_len() == 16)
            .ok_or(SpecError::Essiv { family, hash })
    }

    /// Fails if the algorithms do not go together.
    pub fn check(self) -> Result<(), SpecError> {
        if self.mode == CipherMode::Xts && self.alg.block_len() != 16 {
            return Err(SpecError::XtsBlock(self.alg));
        }
        if self.ivgen == IvGenAlg::Essiv {
            self.essiv_cipher()?;
        }
        Ok(())
    }
}
