//! The header of a LUKS volume (LUKS On-Disk Format Specification 1.2.3, section 5): parsing with
//! every number checked, serialising, and what `info` shows of it.

use thiserror::Error;

use crate::crypto::{CipherAlg, CipherMode, CipherSpec, HashAlg, IvGenAlg, SpecError};
use crate::num::AsUsize;
use crate::options::Dict;

/// Length of the header in bytes.
pub(crate) const HEADER_LEN: usize = 592;
/// Key slots of a volume.
pub(crate) const SLOTS: usize = 8;
/// Length of a salt in bytes.
pub(super) const SALT_LEN: usize = 32;
/// Length of the digest of the master key in bytes.
pub(super) const DIGEST_LEN: usize = 20;
/// Pieces that the anti-forensic splitter makes of a key; no program uses another number.
pub(super) const STRIPES: u32 = 4000;
/// First byte that key material may take.
pub(super) const MATERIAL_START: u64 = 4096;
/// Alignment of key material and payload of new volumes in bytes.
const ALIGNMENT: u64 = 4096;
/// Unit of offsets in the header, in bytes.
const SECTOR: u64 = 512;

const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
const ACTIVE: u32 = 0x00ac_71f3;
const INACTIVE: u32 = 0x0000_dead;
/// Place of the first slot's description, and the length of each, in bytes.
const SLOT_FIELDS: (usize, usize) = (208, 48);

/// Why a header was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum HeaderError {
    #[error("this is not a LUKS volume: the magic number is missing")]
    Magic,
    #[error("the LUKS header is cut off")]
    Truncated,
    #[error("LUKS version {0} is not supported, only version 1 is")]
    Version(u16),
    #[error("the {0} in the LUKS header is not text")]
    Text(&'static str),
    #[error("{what} '{name}' is not supported")]
    Unknown { what: &'static str, name: String },
    #[error("cipher '{family}' in mode {mode} has no keys of {len} bytes")]
    KeyLength { family: String, mode: CipherMode, len: u32 },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("key slot {slot} has {stripes} stripes instead of {STRIPES}")]
    Stripes { slot: usize, stripes: u32 },
    #[error("key slot {slot} has its key material at byte {offset}, where {what}")]
    Overlap { slot: usize, offset: u64, what: &'static str },
    #[error("the iterations of {place} must not be 0")]
    NoIterations { place: String },
    #[error(
        "{place} asks for {iterations} iterations, of which at most {limit} are allowed; if \
         the volume can be trusted, raise its option max-iterations, or --max-luks-iterations"
    )]
    Iterations { place: String, iterations: u64, limit: u64 },
}

impl HeaderError {
    /// The volume may be sound, but needs what this program does not have or was not allowed.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(
            self,
            HeaderError::Version(_)
                | HeaderError::Unknown { .. }
                | HeaderError::Spec(_)
                | HeaderError::Iterations { .. }
        )
    }
}

/// A key slot: a copy of the master key, encrypted with a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// It holds a key.
    pub(crate) active: bool,
    /// Iterations of the key derivation.
    pub(crate) iterations: u32,
    /// Salt of the key derivation.
    pub(crate) salt: [u8; SALT_LEN],
    /// Place of the key material, in bytes from the start of the header.
    pub(crate) offset: u64,
    /// Pieces of the split key.
    pub(crate) stripes: u32,
}

/// A parsed header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// How sectors and key material are encrypted.
    pub(crate) spec: CipherSpec,
    /// The hash of key derivation and key splitting.
    pub(crate) hash: HashAlg,
    /// Place of the payload in bytes from the start of the header; of its own file if that is another.
    pub(crate) payload_offset: u64,
    /// Digest of the master key.
    pub(crate) digest: [u8; DIGEST_LEN],
    /// Salt of the digest.
    pub(crate) digest_salt: [u8; SALT_LEN],
    /// Iterations of the digest.
    pub(crate) digest_iterations: u32,
    /// Name of the volume.
    pub(crate) uuid: String,
    /// The key slots.
    pub(crate) slots: [Slot; SLOTS],
}

struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], HeaderError> {
        let end = at.checked_add(N).ok_or(HeaderError::Truncated)?;
        let bytes = self.0.get(at..end).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or(HeaderError::Truncated)
    }

    fn u32(&self, at: usize) -> Result<u32, HeaderError> {
        Ok(u32::from_be_bytes(self.bytes(at)?))
    }

    /// Text that ends at the first zero byte, or with its field.
    fn text<const N: usize>(&self, what: &'static str, at: usize) -> Result<String, HeaderError> {
        let field: [u8; N] = self.bytes(at)?;
        let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8(text.to_vec()).map_err(|_| HeaderError::Text(what))
    }
}

impl Header {
    /// Parses the first [`HEADER_LEN`] bytes of a volume. A `detached` header is in another file than
    /// the payload.
    pub(crate) fn parse(bytes: &[u8], detached: bool) -> Result<Header, HeaderError> {
        let fields = Fields(bytes);
        if fields.bytes(0)? != *MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = u16::from_be_bytes(fields.bytes(6)?);
        if version != 1 {
            return Err(HeaderError::Version(version));
        }
        let family = fields.text::<32>("name of the cipher", 8)?;
        let mode = fields.text::<32>("mode of the cipher", 40)?;
        let hash = fields.text::<32>("name of the hash", 72)?;
        let mut slots = Vec::with_capacity(SLOTS);
        for number in 0..SLOTS {
            let at = SLOT_FIELDS.0 + number * SLOT_FIELDS.1;
            slots.push(Slot {
                active: fields.u32(at)? == ACTIVE,
                iterations: fields.u32(at + 4)?,
                salt: fields.bytes(at + 8)?,
                offset: u64::from(fields.u32(at + 40)?) * SECTOR,
                stripes: fields.u32(at + 44)?,
            });
        }
        let header = Header {
            spec: parse_spec(&family, &mode, fields.u32(108)?)?,
            hash: HashAlg::from_word(&hash)
                .ok_or(HeaderError::Unknown { what: "hash", name: hash })?,
            payload_offset: u64::from(fields.u32(104)?) * SECTOR,
            digest: fields.bytes(112)?,
            digest_salt: fields.bytes(132)?,
            digest_iterations: fields.u32(164)?,
            uuid: fields.text::<40>("UUID", 168)?,
            slots: slots.try_into().map_err(|_| HeaderError::Truncated)?,
        };
        header.check_layout(detached)?;
        Ok(header)
    }

    /// Bytes of key material in a slot.
    pub(super) fn material_len(&self) -> usize {
        material_len(self.spec)
    }

    /// The key slot with this number.
    pub(super) fn slot(&self, number: usize) -> Option<&Slot> {
        self.slots.get(number)
    }

    /// Numbers of the slots that hold a key.
    pub(crate) fn active_slots(&self) -> Vec<usize> {
        let slots = self.slots.iter().enumerate();
        slots.filter(|(_, slot)| slot.active).map(|(number, _)| number).collect()
    }

    /// Key material overlaps nothing.
    fn check_layout(&self, detached: bool) -> Result<(), HeaderError> {
        let len = self.material_len() as u64;
        for (number, slot) in self.slots.iter().enumerate() {
            if slot.stripes != STRIPES {
                return Err(HeaderError::Stripes { slot: number, stripes: slot.stripes });
            }
            let overlap =
                |what| Err(HeaderError::Overlap { slot: number, offset: slot.offset, what });
            if slot.offset < MATERIAL_START {
                return overlap("the header is");
            }
            let end = slot.offset + len;
            if !detached && end > self.payload_offset {
                return overlap("the payload is");
            }
            let later = self.slots.iter().skip(number + 1);
            if later.into_iter().any(|o| o.offset < end && slot.offset < o.offset + len) {
                return overlap("that of another slot is");
            }
        }
        Ok(())
    }

    /// Fails if trying a passphrase would take more than `limit` iterations in any place, or twice
    /// as many in all places together: a few numbers in a header must not cost minutes.
    pub(crate) fn check_iterations(&self, limit: u64) -> Result<(), HeaderError> {
        let mut total = 0u64;
        let digest = ("the digest of the master key".to_owned(), self.digest_iterations);
        let active = self.slots.iter().enumerate().filter(|(_, slot)| slot.active);
        let slots = active.map(|(number, slot)| (format!("key slot {number}"), slot.iterations));
        for (place, iterations) in std::iter::once(digest).chain(slots) {
            if iterations == 0 {
                return Err(HeaderError::NoIterations { place });
            }
            let iterations = u64::from(iterations);
            if iterations > limit {
                return Err(HeaderError::Iterations { place, iterations, limit });
            }
            // Every slot that is tried computes the digest as well.
            total += iterations + u64::from(self.digest_iterations);
        }
        let limit = limit.saturating_mul(2);
        if total > limit {
            let place = "all key slots together".to_owned();
            return Err(HeaderError::Iterations { place, iterations: total, limit });
        }
        Ok(())
    }

    /// The header's bytes, [`HEADER_LEN`] of them.
    pub(super) fn serialise(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut put = |at: usize, bytes: &[u8]| {
            out.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        };
        put(0, MAGIC);
        put(6, &1u16.to_be_bytes());
        put(8, self.spec.alg.family().as_bytes());
        put(40, mode_text(self.spec).as_bytes());
        put(72, self.hash.as_str().as_bytes());
        put(104, &sectors(self.payload_offset).to_be_bytes());
        put(108, &u32::try_from(self.spec.key_len()).unwrap_or_default().to_be_bytes());
        put(112, &self.digest);
        put(132, &self.digest_salt);
        put(164, &self.digest_iterations.to_be_bytes());
        put(168, self.uuid.as_bytes());
        for (number, slot) in self.slots.iter().enumerate() {
            put(slot_place(number), &slot.serialise());
        }
        out
    }

    /// The facts that `info` shows.
    pub(crate) fn describe(&self, detached: bool) -> Dict {
        let mut facts = Dict::default();
        facts.insert("ivgen-alg", self.spec.ivgen.as_str());
        facts.insert("detached-header", detached);
        if self.spec.ivgen == IvGenAlg::Essiv {
            facts.insert("ivgen-hash-alg", self.spec.ivgen_hash.as_str());
        }
        facts.insert("hash-alg", self.hash.as_str());
        facts.insert("cipher-alg", self.spec.alg.as_str());
        facts.insert("uuid", self.uuid.as_str());
        facts.insert("cipher-mode", self.spec.mode.as_str());
        let slots: Vec<Dict> = self.slots.iter().map(Slot::describe).collect();
        facts.insert("slots", slots);
        facts.insert("payload-offset", self.payload_offset);
        facts.insert("master-key-iters", self.digest_iterations);
        facts
    }
}

impl Slot {
    /// The slot's bytes in the header.
    pub(super) fn serialise(&self) -> [u8; SLOT_FIELDS.1] {
        let mut out = [0; SLOT_FIELDS.1];
        let mut put = |at: usize, bytes: &[u8]| {
            out.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        };
        put(0, &if self.active { ACTIVE } else { INACTIVE }.to_be_bytes());
        put(4, &self.iterations.to_be_bytes());
        put(8, &self.salt);
        put(40, &sectors(self.offset).to_be_bytes());
        put(44, &self.stripes.to_be_bytes());
        out
    }

    fn describe(&self) -> Dict {
        let mut facts = Dict::default();
        facts.insert("active", self.active);
        if self.active {
            facts.insert("iters", self.iterations);
            facts.insert("stripes", self.stripes);
        }
        facts.insert("key-offset", self.offset);
        facts
    }
}

/// Place of a slot's description in the header, in bytes. Its first four bytes say whether it is in
/// use.
pub(super) fn slot_place(number: usize) -> usize {
    SLOT_FIELDS.0 + number * SLOT_FIELDS.1
}

/// An offset in sectors; offsets come from, or are laid out to fit, 32 bits of them.
fn sectors(offset: u64) -> u32 {
    u32::try_from(offset / SECTOR).unwrap_or(u32::MAX)
}

/// Bytes of key material in a slot: the split key in whole sectors.
pub(super) fn material_len(spec: CipherSpec) -> usize {
    (spec.key_len() * STRIPES.as_usize()).next_multiple_of(SECTOR.as_usize())
}

/// Offsets of the slots' key material in a new volume.
pub(super) fn slot_offsets(spec: CipherSpec) -> [u64; SLOTS] {
    let len = (material_len(spec) as u64).next_multiple_of(ALIGNMENT);
    let mut next = MATERIAL_START;
    [(); SLOTS].map(|()| {
        let offset = next;
        next += len;
        offset
    })
}

/// Length of header and key material of a new volume in bytes: where its payload begins.
pub(crate) fn volume_header_len(spec: CipherSpec) -> u64 {
    let len = (material_len(spec) as u64).next_multiple_of(ALIGNMENT);
    MATERIAL_START + SLOTS as u64 * len
}

/// Whether `head` begins a LUKS volume of version 1.
pub(crate) fn is_luks(head: &[u8]) -> bool {
    head.starts_with(MAGIC) && head.get(6..8) == Some(&[0, 1])
}

/// Mode and generator of initialisation vectors as the header has them.
fn mode_text(spec: CipherSpec) -> String {
    let CipherSpec { mode, ivgen, ivgen_hash, .. } = spec;
    match ivgen {
        IvGenAlg::Essiv => format!("{mode}-{ivgen}:{ivgen_hash}"),
        IvGenAlg::Plain | IvGenAlg::Plain64 => format!("{mode}-{ivgen}"),
    }
}

fn parse_spec(family: &str, text: &str, key_len: u32) -> Result<CipherSpec, HeaderError> {
    let unknown = |what, name: &str| HeaderError::Unknown { what, name: name.to_owned() };
    let (mode, ivgen) = text.split_once('-').unwrap_or((text, "plain"));
    let (ivgen, ivgen_hash) = match ivgen.split_once(':') {
        Some((ivgen, hash)) => (ivgen, Some(hash)),
        None => (ivgen, None),
    };
    if !CipherAlg::ALL.iter().any(|alg| alg.family() == family) {
        return Err(unknown("cipher", family));
    }
    let mode = CipherMode::from_word(mode).ok_or_else(|| unknown("cipher mode", mode))?;
    let ivgen = IvGenAlg::from_word(ivgen).ok_or_else(|| unknown("ivgen", ivgen))?;
    let ivgen_hash = match ivgen_hash {
        Some(hash) => HashAlg::from_word(hash).ok_or_else(|| unknown("hash", hash))?,
        None if ivgen == IvGenAlg::Essiv => return Err(unknown("cipher mode", text)),
        None => HashAlg::Sha256,
    };
    let wrong_length = HeaderError::KeyLength { family: family.to_owned(), mode, len: key_len };
    let keys = mode.keys();
    let len = key_len.as_usize();
    let alg = CipherAlg::of_family(family, len / keys)
        .filter(|_| len.is_multiple_of(keys))
        .ok_or(wrong_length)?;
    let spec = CipherSpec { alg, mode, ivgen, ivgen_hash };
    spec.check()?;
    Ok(spec)
}
