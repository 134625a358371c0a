//! LUKS volumes, version 1 (LUKS On-Disk Format Specification 1.2.3): a header with eight key slots,
//! key material, and a payload of encrypted sectors. The payload is the business of the formats that
//! contain volumes; this is everything before it.

mod amend;
mod header;
mod volume;

use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use amend::{AmendOptions, SlotState};
pub(crate) use header::{Header, is_luks};
pub(crate) use volume::{Area, DEFAULT_MAX_ITERATIONS, NewVolume};

use super::SectorCipher;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// An open volume.
#[derive(Debug)]
pub(crate) struct Volume {
    area: Area,
    header: Mutex<Header>,
    detached: bool,
    /// What opened it.
    passphrase: Secret,
    max_iterations: u64,
    /// Encrypts the payload.
    pub(crate) cipher: Arc<SectorCipher>,
    /// Key slots change one at a time.
    changes: tokio::sync::Mutex<()>,
}

impl Volume {
    /// Opens the volume in `area` with `passphrase`.
    pub(crate) async fn open(
        area: Area,
        header: Header,
        detached: bool,
        passphrase: Secret,
        max_iterations: u64,
    ) -> Result<Volume> {
        let key = area.unlock(&header, &passphrase, max_iterations).await?;
        let cipher = SectorCipher::new(header.spec, &key)
            .map_err(|error| Error::unsupported(area.node.label(), error.to_string()))?;
        Ok(Volume {
            area,
            header: Mutex::new(header),
            detached,
            passphrase,
            max_iterations,
            cipher: Arc::new(cipher),
            changes: tokio::sync::Mutex::default(),
        })
    }
}
