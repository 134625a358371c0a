//! The options that describe a new volume, with the reference's defaults.

use super::algorithm::{CipherAlg, CipherMode, CipherSpec, HashAlg, IvGenAlg};
use super::luks::NewVolume;
use crate::error::{Error, Result};
use crate::options::OptionError;

/// Milliseconds that key derivation takes unless the user says otherwise.
const DEFAULT_ITER_TIME: u64 = 2000;

/// What the options say; `None` where they say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct VolumeOptions {
    pub(crate) cipher_alg: Option<CipherAlg>,
    pub(crate) cipher_mode: Option<CipherMode>,
    pub(crate) ivgen_alg: Option<IvGenAlg>,
    pub(crate) ivgen_hash_alg: Option<HashAlg>,
    pub(crate) hash_alg: Option<HashAlg>,
    pub(crate) iter_time: Option<u64>,
}

impl VolumeOptions {
    /// The volume they describe. `prefix` stands before the names of the options.
    pub(crate) fn volume(self, prefix: &str, detached: bool) -> Result<NewVolume> {
        let spec = CipherSpec {
            alg: self.cipher_alg.unwrap_or(CipherAlg::Aes256),
            mode: self.cipher_mode.unwrap_or(CipherMode::Xts),
            ivgen: self.ivgen_alg.unwrap_or(IvGenAlg::Plain64),
            ivgen_hash: self.ivgen_hash_alg.unwrap_or(HashAlg::Sha256),
        };
        spec.check().map_err(|error| {
            Error::Option(OptionError::Conflict {
                name: format!("{prefix}cipher-alg"),
                problem: format!("does not fit: {error}"),
            })
        })?;
        Ok(NewVolume {
            spec,
            hash: self.hash_alg.unwrap_or(HashAlg::Sha256),
            iter_time: self.iter_time.unwrap_or(DEFAULT_ITER_TIME),
            detached,
        })
    }
}
