//! Encryption of disk contents: ciphers and modes over sectors, hashes, key derivation, and the
//! encrypted volumes that image formats contain.
//!
//! The primitives are those of the RustCrypto crates; the modes are written here, because they must
//! work on many sectors at once to be fast. Keys live in memory that is wiped when it is given back.

mod algorithm;
mod cbc;
mod data;
mod hash;
pub(crate) mod luks;
mod mode;
mod options;
mod sectors;
mod split;
mod twofish;

pub use algorithm::{CipherAlg, CipherMode, CipherSpec, HashAlg, IvGenAlg, SpecError};
pub(crate) use cbc::decrypt_cbc;
pub(crate) use data::EncryptedData;
pub(crate) use options::VolumeOptions;
pub use sectors::SectorCipher;
