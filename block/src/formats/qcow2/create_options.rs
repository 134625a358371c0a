//! Creation options of qcow2 images: their description, and the rules by which they go together.

use super::crypt::EncryptFormat;
use super::extension::{CryptoExtension, Extensions};
use super::feature::{Autoclear, Compatible, Incompatible};
use super::header::{
    Compression, Encryption, Header, MAX_CLUSTER_BITS, MAX_L1_BYTES, MIN_CLUSTER_BITS,
    MIN_EXTENDED_L2_BITS,
};
use crate::crypto::luks::NewVolume;
use crate::crypto::{CipherAlg, CipherMode, HashAlg, IvGenAlg, VolumeOptions};
use crate::driver::Prealloc;
use crate::error::Result;
use crate::options::{OptionError, Size};
use crate::{option_words, options};

/// Longest name of a backing file format, in bytes.
const MAX_FORMAT_NAME: usize = 15;
/// Sizes of virtual disks are multiples of this, in bytes.
const SECTOR: u64 = 512;

option_words! {
    /// Version of the format, in the words of the creation options.
    pub enum Compat {
        /// Version 2.
        V2 = "0.10" | "v2",
        /// Version 3.
        V3 = "1.1" | "v3",
    }
}

option_words! {
    /// Compression of clusters.
    pub enum CompressionType {
        /// Deflate.
        Zlib = "zlib",
        /// Zstandard.
        Zstd = "zstd",
    }
}

option_words! {
    /// What to allocate at once.
    pub enum Preallocation {
        /// Nothing.
        Off = "off",
        /// The tables, not the data.
        Metadata = "metadata",
        /// The tables, and reserved space for the data.
        Falloc = "falloc",
        /// The tables, and data written as zeroes.
        Full = "full",
    }
}

impl From<Preallocation> for Prealloc {
    fn from(mode: Preallocation) -> Prealloc {
        match mode {
            Preallocation::Off => Prealloc::Off,
            Preallocation::Metadata => Prealloc::Metadata,
            Preallocation::Falloc => Prealloc::Falloc,
            Preallocation::Full => Prealloc::Full,
        }
    }
}

options! {
    /// Creation options of qcow2 images. The order is that in which tools print them.
    pub struct CreateOptions {
        /// Encrypt with the old AES scheme
        "encryption" => encryption: bool = "off" [deprecated "use encrypt.format=luks"],
        /// How to encrypt: aes (old and weak) or luks
        "encrypt.format" => encrypt_format: Option<EncryptFormat>,
        /// ID of the secret that holds the AES key or LUKS passphrase
        "encrypt.key-secret" => encrypt_key_secret: Option<String>,
        /// Cipher algorithm
        "encrypt.cipher-alg" => encrypt_cipher_alg: Option<CipherAlg>,
        /// Cipher mode
        "encrypt.cipher-mode" => encrypt_cipher_mode: Option<CipherMode>,
        /// Generator of initialisation vectors
        "encrypt.ivgen-alg" => encrypt_ivgen_alg: Option<IvGenAlg>,
        /// Hash algorithm of the generator of initialisation vectors
        "encrypt.ivgen-hash-alg" => encrypt_ivgen_hash_alg: Option<HashAlg>,
        /// Hash algorithm of the key derivation
        "encrypt.hash-alg" => encrypt_hash_alg: Option<HashAlg>,
        /// Milliseconds to spend on key derivation
        "encrypt.iter-time" => encrypt_iter_time: Option<u64>,
        /// Unit of allocation: a power of two from 512 bytes to 2M
        "cluster_size" => cluster_size: Size = "65536",
        /// Divide clusters into 32 subclusters that are allocated one by one
        "extended_l2" => extended_l2: bool = "off",
        /// What to allocate at once: off, metadata, falloc or full
        "preallocation" => preallocation: Option<Preallocation>,
        /// How compressed clusters are compressed: zlib or zstd
        "compression_type" => compression_type: CompressionType = "zlib",
        /// Size of the virtual disk
        "size" => size: Option<Size>,
        /// Version of the format: 0.10 (v2) or 1.1 (v3)
        "compat" => compat: Option<Compat>,
        /// Image that provides what this one does not store itself
        "backing_file" => backing_file: Option<String>,
        /// Format of the backing file
        "backing_fmt" => backing_fmt: Option<String>,
        /// File that holds the guest's data instead of the image itself
        "data_file" => data_file: Option<String>,
        /// Keep the data file usable as a raw image of the virtual disk
        "data_file_raw" => data_file_raw: Option<bool>,
        /// Update refcounts late, at the price of a repair after a crash
        "lazy_refcounts" => lazy_refcounts: bool = "off",
        /// Bits of a refcount: 1, 2, 4, 8, 16, 32 or 64
        "refcount_bits" => refcount_bits: u64 = "16",
    }
}

/// How a new image is to be encrypted.
#[derive(Clone, Debug)]
pub(crate) enum NewCrypt {
    /// With the old scheme.
    Aes,
    /// With LUKS.
    Luks(NewVolume),
}

/// The encryption of a new image.
#[derive(Clone, Debug)]
pub(crate) struct NewEncryption {
    pub(crate) kind: NewCrypt,
    /// ID of the secret with the key.
    key_secret: Option<String>,
}

impl NewEncryption {
    /// ID of the secret with the key, which must be given.
    pub(crate) fn key_secret(&self) -> Result<&str> {
        let missing = || OptionError::Missing { name: "encrypt.key-secret".to_owned() };
        Ok(self.key_secret.as_deref().ok_or_else(missing)?)
    }

    /// Length of the encryption header in bytes.
    pub(crate) fn header_len(&self) -> u64 {
        match &self.kind {
            NewCrypt::Aes => 0,
            NewCrypt::Luks(volume) => volume.header_len(),
        }
    }
}

/// A new image whose options agree with each other.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// 2 or 3.
    pub(crate) version: u32,
    /// Size of the virtual disk in bytes, a multiple of 512.
    pub(crate) size: u64,
    pub(crate) cluster_bits: u32,
    pub(crate) refcount_order: u32,
    pub(crate) compression: Compression,
    pub(crate) backing_file: Option<String>,
    pub(crate) backing_format: Option<String>,
    pub(crate) data_file: Option<String>,
    pub(crate) data_file_raw: bool,
    pub(crate) lazy_refcounts: bool,
    pub(crate) extended_l2: bool,
    pub(crate) prealloc: Prealloc,
    pub(crate) encryption: Option<NewEncryption>,
}

fn conflict(name: &str, problem: &str) -> OptionError {
    OptionError::Conflict { name: name.to_owned(), problem: problem.to_owned() }
}

fn invalid(name: &str, value: impl ToString, expected: &str) -> OptionError {
    OptionError::Invalid {
        name: name.to_owned(),
        value: value.to_string(),
        expected: expected.to_owned(),
    }
}

impl CreateOptions {
    /// The encryption that the options ask for.
    fn new_encryption(&self) -> Result<Option<NewEncryption>> {
        let parts = VolumeOptions {
            cipher_alg: self.encrypt_cipher_alg,
            cipher_mode: self.encrypt_cipher_mode,
            ivgen_alg: self.encrypt_ivgen_alg,
            ivgen_hash_alg: self.encrypt_ivgen_hash_alg,
            hash_alg: self.encrypt_hash_alg,
            iter_time: self.encrypt_iter_time,
        };
        if self.encryption && self.encrypt_format.is_some() {
            return Err(conflict("encryption", "and encrypt.format exclude each other").into());
        }
        let format = self.encrypt_format.or(self.encryption.then_some(EncryptFormat::Aes));
        let Some(format) = format else {
            if parts != VolumeOptions::default() || self.encrypt_key_secret.is_some() {
                return Err(OptionError::Missing { name: "encrypt.format".to_owned() }.into());
            }
            return Ok(None);
        };
        let key_secret = self.encrypt_key_secret.clone();
        let kind = match format {
            EncryptFormat::Luks => NewCrypt::Luks(parts.volume("encrypt.", false)?),
            EncryptFormat::Aes if parts != VolumeOptions::default() => {
                let problem = "is 'aes', which has no other options than the key";
                return Err(conflict("encrypt.format", problem).into());
            }
            EncryptFormat::Aes => NewCrypt::Aes,
        };
        Ok(Some(NewEncryption { kind, key_secret }))
    }
}

impl NewImage {
    /// Checks the options against each other.
    pub(crate) fn new(options: &CreateOptions) -> Result<NewImage> {
        let size = options.size.ok_or_else(|| OptionError::Missing { name: "size".to_owned() })?;
        let size = size
            .0
            .checked_next_multiple_of(SECTOR)
            .filter(|&size| i64::try_from(size).is_ok())
            .ok_or_else(|| invalid("size", size.0, "a size that an image can have"))?;
        let cluster_bits = power_of_two(options.cluster_size.0)
            .filter(|bits| (MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(bits))
            .ok_or_else(|| {
                let expected = "a power of two between 512 and 2M";
                invalid("cluster_size", options.cluster_size.0, expected)
            })?;
        let refcount_order =
            power_of_two(options.refcount_bits).filter(|&order| order <= 6).ok_or_else(|| {
                let expected = "a power of two of at most 64";
                invalid("refcount_bits", options.refcount_bits, expected)
            })?;
        let data_file = options.data_file.clone().filter(|name| !name.is_empty());
        let data_file_raw = options.data_file_raw == Some(true);
        let mut prealloc = options.preallocation.map_or(Prealloc::Off, Prealloc::from);
        if data_file_raw && prealloc == Prealloc::Off {
            // A program that knows only the raw file writes to any place of it, so that the tables
            // must refer to all of it from the start.
            prealloc = Prealloc::Metadata;
        }
        let image = NewImage {
            version: if options.compat == Some(Compat::V2) { 2 } else { 3 },
            size,
            cluster_bits,
            refcount_order,
            compression: match options.compression_type {
                CompressionType::Zlib => Compression::Deflate,
                CompressionType::Zstd => Compression::Zstd,
            },
            backing_file: options.backing_file.clone().filter(|name| !name.is_empty()),
            backing_format: options.backing_fmt.clone().filter(|name| !name.is_empty()),
            data_file,
            data_file_raw,
            lazy_refcounts: options.lazy_refcounts,
            extended_l2: options.extended_l2,
            prealloc,
            encryption: options.new_encryption()?,
        };
        image.check_version()?;
        image.check_combinations()?;
        Ok(image)
    }

    /// Version 2 has none of the newer features.
    fn check_version(&self) -> Result<(), OptionError> {
        if self.version >= 3 {
            return Ok(());
        }
        let newer = [
            ("lazy_refcounts", self.lazy_refcounts),
            ("refcount_bits", self.refcount_order != 4),
            ("data_file", self.data_file.is_some()),
            ("compression_type", self.compression != Compression::Deflate),
            ("extended_l2", self.extended_l2),
        ];
        match newer.into_iter().find(|(_, used)| *used) {
            Some((name, _)) => Err(conflict(name, "needs version 3 of the format (compat=1.1)")),
            None => Ok(()),
        }
    }

    fn check_combinations(&self) -> Result<(), OptionError> {
        if self.extended_l2 && self.cluster_bits < MIN_EXTENDED_L2_BITS {
            return Err(conflict("extended_l2", "needs a cluster_size of at least 16k"));
        }
        if self.data_file_raw && self.data_file.is_none() {
            return Err(conflict("data_file_raw", "needs a data_file"));
        }
        if self.backing_file.is_some() {
            if self.data_file_raw {
                return Err(conflict("data_file_raw", "cannot be used with a backing file"));
            }
            if self.prealloc != Prealloc::Off && !self.extended_l2 {
                let problem = "can be used with a backing file only if extended_l2 is on";
                return Err(conflict("preallocation", problem));
            }
        }
        if let Some(format) = &self.backing_format {
            if self.backing_file.is_none() {
                return Err(conflict("backing_fmt", "needs a backing_file"));
            }
            if format.len() > MAX_FORMAT_NAME {
                return Err(invalid("backing_fmt", format, "a format name of at most 15 bytes"));
            }
        }
        if self.l1_entries() * 8 > MAX_L1_BYTES {
            return Err(invalid(
                "size",
                self.size,
                "possible with this cluster size; use a larger cluster_size",
            ));
        }
        Ok(())
    }

    /// Entries of the L1 table.
    pub(crate) fn l1_entries(&self) -> u64 {
        let entry_bits = if self.extended_l2 { 4 } else { 3 };
        self.size.div_ceil(1 << (self.cluster_bits + self.cluster_bits - entry_bits))
    }

    /// The header of the image, still without the place of its tables.
    pub(crate) fn header(&self) -> Header {
        let mut incompatible = Incompatible::empty();
        incompatible.set(Incompatible::DATA_FILE, self.data_file.is_some());
        incompatible.set(Incompatible::COMPRESSION, self.compression != Compression::Deflate);
        incompatible.set(Incompatible::EXTENDED_L2, self.extended_l2);
        let mut compatible = Compatible::empty();
        compatible.set(Compatible::LAZY_REFCOUNTS, self.lazy_refcounts);
        let mut autoclear = Autoclear::empty();
        autoclear.set(Autoclear::RAW_DATA_FILE, self.data_file_raw);
        Header {
            version: self.version,
            backing_file: self.backing_file.clone(),
            cluster_bits: self.cluster_bits,
            size: self.size,
            incompatible,
            compatible,
            autoclear,
            refcount_order: self.refcount_order,
            compression: self.compression,
            encryption: match &self.encryption {
                None => Encryption::None,
                Some(NewEncryption { kind: NewCrypt::Aes, .. }) => Encryption::Aes,
                Some(NewEncryption { kind: NewCrypt::Luks(_), .. }) => Encryption::Luks,
            },
            extensions: Extensions {
                backing_format: self.backing_format.clone(),
                data_file: self.data_file.clone(),
                // Its place is known when all is laid out.
                crypto: match self.encryption.as_ref().map_or(0, NewEncryption::header_len) {
                    0 => None,
                    length => Some(CryptoExtension { offset: 0, length }),
                },
                ..Extensions::default()
            },
            ..Header::default()
        }
    }
}

/// Base 2 logarithm of a power of two.
fn power_of_two(value: u64) -> Option<u32> {
    value.is_power_of_two().then(|| value.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Dict;

    fn new_image(options: &[(&'static str, &str)]) -> Result<NewImage, String> {
        let mut dict = Dict::default();
        dict.insert("size", "1M");
        for (name, value) in options {
            dict.insert(*name, *value);
        }
        let options = CreateOptions::parse(dict, "format 'qcow2'").map_err(|e| e.to_string())?;
        NewImage::new(&options).map_err(|e| e.to_string())
    }

    #[test]
    fn both_spellings_of_versions_are_known() {
        for (word, version) in [("0.10", 2), ("v2", 2), ("1.1", 3), ("v3", 3)] {
            assert_eq!(new_image(&[("compat", word)]).map(|image| image.version), Ok(version));
        }
        assert!(new_image(&[("compat", "1.2")]).is_err());
    }

    #[test]
    fn options_that_exclude_each_other_name_the_culprit() {
        let backing = [("backing_file", "base"), ("backing_fmt", "raw")];
        let with_backing = |more: &[(&'static str, &'static str)]| [&backing[..], more].concat();
        let cases: [(Vec<(&str, &str)>, &str); 13] = [
            (vec![("compat", "v2"), ("lazy_refcounts", "on")], "lazy_refcounts"),
            (vec![("compat", "v2"), ("refcount_bits", "8")], "refcount_bits"),
            (vec![("compat", "v2"), ("data_file", "x")], "data_file"),
            (vec![("compat", "v2"), ("compression_type", "zstd")], "compression_type"),
            (vec![("compat", "v2"), ("extended_l2", "on")], "extended_l2"),
            (vec![("extended_l2", "on"), ("cluster_size", "8k")], "extended_l2"),
            (vec![("refcount_bits", "3")], "refcount_bits"),
            (vec![("cluster_size", "4M")], "cluster_size"),
            (vec![("data_file_raw", "on")], "data_file_raw"),
            (vec![("backing_fmt", "raw")], "backing_fmt"),
            (vec![("size", "1E")], "size"),
            (with_backing(&[("preallocation", "metadata")]), "preallocation"),
            (with_backing(&[("data_file", "x"), ("data_file_raw", "on")]), "data_file_raw"),
        ];
        for (options, culprit) in cases {
            let error = new_image(&options).expect_err("must be refused");
            assert!(error.contains(&format!("'{culprit}'")), "{options:?}: {error}");
        }
        let fine = with_backing(&[("preallocation", "full"), ("extended_l2", "on")]);
        assert!(new_image(&fine).is_ok());
    }

    #[test]
    fn raw_data_files_get_their_tables_at_once() {
        let image = new_image(&[("data_file", "x"), ("data_file_raw", "on")]).expect("valid");
        assert_eq!(image.prealloc, Prealloc::Metadata);
        assert_eq!(new_image(&[("size", "513")]).map(|image| image.size), Ok(1024));
    }
}
