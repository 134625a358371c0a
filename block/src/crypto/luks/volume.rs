//! A volume on disk: making one, and opening one with a passphrase.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::header::{
    DIGEST_LEN, HEADER_LEN, Header, SALT_LEN, STRIPES, Slot, slot_offsets, volume_header_len,
};
use crate::buf::{IoBuf, IoBufMut};
use crate::crypto::split::{merge, split};
use crate::crypto::{CipherSpec, HashAlg, SectorCipher};
use crate::driver::WriteFlags;
use crate::engine;
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::num::AsUsize;
use crate::secret::Secret;

/// Fewest iterations of a key derivation, as the specification wants.
const MIN_ITERATIONS: u32 = 1000;
/// Most iterations in one place that are accepted unless the user allows more: several seconds of a
/// fast processor.
pub(crate) const DEFAULT_MAX_ITERATIONS: u64 = 50_000_000;
/// How much less the digest of the master key, which has no guessable input, is iterated.
const DIGEST_SHARE: u32 = 8;

/// A master key.
pub(super) type Key = Zeroizing<Vec<u8>>;

/// Where a volume's header and key material are.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    /// The file.
    pub(crate) node: Arc<Node>,
    /// Where the header begins in it, in bytes.
    pub(crate) offset: u64,
    /// Bytes that header and key material may take at most.
    pub(crate) len: u64,
}

impl Area {
    /// Reads `len` bytes at `at` of the area.
    async fn read(&self, at: u64, len: usize) -> Result<IoBufMut> {
        match at.checked_add(len as u64) {
            Some(end) if end <= self.len => {
                self.node.read(self.offset + at, IoBufMut::new(len)).await
            }
            _ => Err(self.corrupt("the LUKS header or key material is cut off")),
        }
    }

    pub(super) async fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return Err(self.corrupt("there is no room for the LUKS key material"));
        }
        let bytes = IoBuf::copy_of(bytes);
        self.node.write(self.offset + at, bytes, WriteFlags::empty()).await
    }

    fn corrupt(&self, detail: impl Into<String>) -> Error {
        Error::corrupt(self.node.label(), detail)
    }

    /// Reads and parses the header.
    pub(crate) async fn header(&self, detached: bool) -> Result<Header> {
        let bytes = self.read(0, HEADER_LEN).await?;
        Header::parse(&bytes, detached).map_err(|error| self.refuse(&error))
    }

    fn refuse(&self, error: &super::header::HeaderError) -> Error {
        if error.is_unsupported() {
            Error::unsupported(self.node.label(), error.to_string())
        } else {
            self.corrupt(error.to_string())
        }
    }

    /// The master key, which one of the slots gives for `passphrase`; fails if it takes more
    /// iterations than `max_iterations` to find out (see [`Header::check_iterations`]).
    pub(super) async fn unlock(
        &self,
        header: &Header,
        passphrase: &Secret,
        max_iterations: u64,
    ) -> Result<Key> {
        header.check_iterations(max_iterations).map_err(|error| self.refuse(&error))?;
        let mut failure = None;
        for number in header.active_slots() {
            match self.try_slot(header, number, passphrase).await {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => {}
                // Another slot may be readable.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::Passphrase { node: self.node.label() }))
    }

    /// The master key, if slot `number` is in use and gives it for `passphrase`.
    pub(super) async fn try_slot(
        &self,
        header: &Header,
        number: usize,
        passphrase: &Secret,
    ) -> Result<Option<Key>> {
        let Some(slot) = header.slot(number).filter(|slot| slot.active).cloned() else {
            return Ok(None);
        };
        let mut material = self.read(slot.offset, header.material_len()).await?;
        let (header, passphrase) = (header.clone(), passphrase.clone());
        let spec = header.spec;
        let found = engine::compute(move || {
            let cipher = slot_cipher(&header, &slot.salt, slot.iterations, &passphrase)?;
            cipher.decrypt(0, &mut material);
            let used = spec.key_len() * slot.stripes.as_usize();
            let key = merge(header.hash, material.get(..used).unwrap_or_default(), spec.key_len());
            // The material is a key in all but name.
            material.fill(0);
            Ok(same(&digest(&header, &key), &header.digest).then_some(key))
        })
        .await;
        found.map_err(|error: crate::crypto::SpecError| self.corrupt(error.to_string()))
    }

    /// Encrypts `key` with `passphrase`, for a slot of the volume that `header` describes.
    pub(super) async fn encrypt_key(
        &self,
        header: &Header,
        key: &Key,
        passphrase: &Secret,
        iter_time: u64,
    ) -> Result<EncryptedKey> {
        let salt = random_array()?;
        let mut stripes = Zeroizing::new(vec![0; key.len() * STRIPES.as_usize()]);
        random(&mut stripes)?;
        let (header, key, passphrase) = (header.clone(), key.clone(), passphrase.clone());
        let made = engine::compute(move || {
            let iterations = iterations(header.hash, header.spec.key_len(), iter_time);
            let cipher = slot_cipher(&header, &salt, iterations, &passphrase)?;
            let mut material = split(header.hash, &key, stripes);
            material.resize(header.material_len(), 0);
            cipher.encrypt(0, &mut material);
            Ok(EncryptedKey { salt, iterations, material: material.to_vec() })
        })
        .await;
        made.map_err(|error: crate::crypto::SpecError| self.corrupt(error.to_string()))
    }
}

/// A master key as a slot stores it. It has no place, and so fits every slot of its volume.
#[derive(Debug)]
pub(super) struct EncryptedKey {
    salt: [u8; SALT_LEN],
    iterations: u32,
    /// Key material.
    pub(super) material: Vec<u8>,
}

impl EncryptedKey {
    /// `slot`, in use, with this key.
    pub(super) fn fill(&self, slot: &Slot) -> Slot {
        Slot {
            active: true,
            iterations: self.iterations,
            salt: self.salt,
            offset: slot.offset,
            stripes: STRIPES,
        }
    }
}

/// Iterations that take `iter_time` milliseconds.
fn iterations(hash: HashAlg, key_len: usize, iter_time: u64) -> u32 {
    hash.iterations_in(key_len, iter_time).max(MIN_ITERATIONS)
}

/// The cipher of a slot's key material.
fn slot_cipher(
    header: &Header,
    salt: &[u8; SALT_LEN],
    iterations: u32,
    passphrase: &Secret,
) -> Result<SectorCipher, crate::crypto::SpecError> {
    let mut key = Zeroizing::new(vec![0; header.spec.key_len()]);
    header.hash.pbkdf2(passphrase.expose(), salt, iterations, &mut key);
    SectorCipher::new(header.spec, &key)
}

fn digest(header: &Header, key: &[u8]) -> [u8; DIGEST_LEN] {
    let mut digest = [0; DIGEST_LEN];
    header.hash.pbkdf2(key, &header.digest_salt, header.digest_iterations, &mut digest);
    digest
}

/// Compares in a time that does not depend on where the bytes differ.
fn same(a: &[u8; DIGEST_LEN], b: &[u8; DIGEST_LEN]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Fills `bytes` with numbers that nobody can guess.
pub(super) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::unsupported("random numbers", format!("the system gives none: {error}"))
    })
}

fn random_array<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    random(&mut bytes)?;
    Ok(bytes)
}

/// A random UUID (RFC 9562, version 4) as text.
fn new_uuid() -> Result<String> {
    let bits = u128::from_be_bytes(random_array()?);
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default());
    Ok(parts.join("-"))
}

/// A volume to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewVolume {
    /// How it is encrypted.
    pub(crate) spec: CipherSpec,
    /// Hash of key derivation and key splitting.
    pub(crate) hash: HashAlg,
    /// Milliseconds that opening is to take.
    pub(crate) iter_time: u64,
    /// The header will be in another file than the payload.
    pub(crate) detached: bool,
}

impl NewVolume {
    /// Length of header and key material in bytes.
    pub(crate) fn header_len(&self) -> u64 {
        volume_header_len(self.spec)
    }

    /// Writes header and key material with a new master key that `passphrase` gives access to, the
    /// header last and durably. What is between them is not written.
    pub(crate) async fn format(&self, area: &Area, passphrase: &Secret) -> Result<()> {
        self.spec.check().map_err(|error| {
            Error::unsupported(area.node.label(), format!("cannot encrypt: {error}"))
        })?;
        // What was there before must not be taken for a header meanwhile.
        area.write(0, &[0; HEADER_LEN]).await?;
        let mut key: Key = Zeroizing::new(vec![0; self.spec.key_len()]);
        random(&mut key)?;
        let slots = slot_offsets(self.spec).map(|offset| Slot {
            active: false,
            iterations: 0,
            salt: [0; SALT_LEN],
            offset,
            stripes: STRIPES,
        });
        let mut header = Header {
            spec: self.spec,
            hash: self.hash,
            payload_offset: if self.detached { 0 } else { self.header_len() },
            digest: [0; DIGEST_LEN],
            digest_salt: random_array()?,
            digest_iterations: 0,
            uuid: new_uuid()?,
            slots,
        };
        let encrypted = area.encrypt_key(&header, &key, passphrase, self.iter_time).await?;
        let [first, ..] = &mut header.slots;
        *first = encrypted.fill(first);
        area.write(first.offset, &encrypted.material).await?;
        let (secret, iter_time) = (key.clone(), self.iter_time);
        let header = engine::compute(move || {
            let share = iterations(header.hash, DIGEST_LEN, iter_time) / DIGEST_SHARE;
            header.digest_iterations = share.max(MIN_ITERATIONS);
            header.digest = digest(&header, &secret);
            header
        })
        .await;
        header.check_iterations(DEFAULT_MAX_ITERATIONS).map_err(|_| {
            Error::unsupported(
                area.node.label(),
                format!(
                    "iter-time={} is so long that the volume would not be opened",
                    self.iter_time
                ),
            )
        })?;
        // The sector with the magic number is the last one written, since sectors are atomic.
        let bytes = header.serialise();
        let (first, rest) = bytes.split_at(SectorCipher::SECTOR);
        area.write(first.len() as u64, rest).await?;
        area.node.flush().await?;
        area.write(0, first).await?;
        area.node.flush().await
    }
}
