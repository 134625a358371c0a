//! Guest data of encrypted images (qcow2 specification, "Full disk encryption header pointer" and
//! the field `crypt_method`).
//!
//! With LUKS the numbers of sectors go by the place in the file, with the old AES scheme by the place
//! on the virtual disk. Only data clusters are encrypted, never compressed ones, of which encrypted
//! images have none.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::header::{Encryption, Header};
use super::image::Image;
use super::options::Qcow2Options;
use crate::buf::{IoBuf, IoBufMut};
use crate::crypto::luks::{AmendOptions, Area, Volume};
use crate::crypto::{
    CipherAlg, CipherMode, CipherSpec, EncryptedData, HashAlg, IvGenAlg, SectorCipher,
};
use crate::driver::WriteFlags;
use crate::error::{Error, Result};
use crate::graph::{Edge, Graph, OpenContext};
use crate::option_words;
use crate::options::OptionError;
use crate::secret::Secret;

/// Length of a sector in bytes.
const SECTOR: u64 = SectorCipher::SECTOR as u64;

option_words! {
    /// How guest data is encrypted, in the words of options.
    pub enum EncryptFormat {
        /// The old scheme.
        Aes = "aes",
        /// LUKS.
        Luks = "luks",
    }
}

/// What stands between guest data and the file.
pub(super) enum Crypt {
    /// Nothing.
    Plain,
    /// Encryption to which the key was not given: guest data is out of reach.
    Locked,
    /// The old scheme.
    Aes(Arc<SectorCipher>),
    /// LUKS.
    Luks(Box<Volume>),
}

/// The cipher of the old scheme, whose key is the start of the password.
fn aes_cipher(password: &Secret, label: &str) -> Result<SectorCipher> {
    let spec = CipherSpec {
        alg: CipherAlg::Aes128,
        mode: CipherMode::Cbc,
        ivgen: IvGenAlg::Plain64,
        ivgen_hash: HashAlg::Sha256,
    };
    let mut key = Zeroizing::new([0; 16]);
    key.iter_mut().zip(password.expose()).for_each(|(to, from)| *to = *from);
    SectorCipher::new(spec, &*key).map_err(|error| Error::unsupported(label, error.to_string()))
}

/// Opens the encryption that `header` describes.
pub(super) async fn open(
    context: &OpenContext<'_>,
    file: &Edge,
    header: &Header,
    options: &Qcow2Options,
) -> Result<Crypt> {
    let format = match header.encryption {
        Encryption::None => None,
        Encryption::Aes => Some(EncryptFormat::Aes),
        Encryption::Luks => Some(EncryptFormat::Luks),
    };
    if let Some(given) = options.encrypt_format
        && format != Some(given)
    {
        let problem = match format {
            Some(format) => format!("is '{given}', but the image is encrypted with '{format}'"),
            None => "was given, but the image is not encrypted".to_owned(),
        };
        let name = "encrypt.format".to_owned();
        return Err(Error::Option(OptionError::Conflict { name, problem }));
    }
    let Some(format) = format else { return Ok(Crypt::Plain) };
    let flags = context.flags();
    if flags.no_io {
        return Ok(Crypt::Locked);
    }
    let Some(id) = &options.encrypt_key_secret else {
        if flags.check {
            return Ok(Crypt::Locked);
        }
        let missing = OptionError::Missing { name: "encrypt.key-secret".to_owned() };
        return Err(Error::from(missing).context(format!("'{}' is encrypted", file.node().label())));
    };
    let passphrase = context.secret(id)?;
    if format == EncryptFormat::Aes {
        return Ok(Crypt::Aes(Arc::new(aes_cipher(&passphrase, &context.label())?)));
    }
    let Some(place) = header.extensions.crypto else {
        let detail = "it is encrypted, but the header does not say where the encryption header is";
        return Err(Error::corrupt(context.label(), detail));
    };
    let (offset, len) = (place.offset, place.length);
    let cluster_size = 1u64 << header.cluster_bits;
    if !offset.is_multiple_of(cluster_size)
        || offset.checked_add(len).is_none_or(|end| end > file.size())
    {
        let detail = format!("its encryption header ({len} bytes at {offset:#x}) is misplaced");
        return Err(Error::corrupt(context.label(), detail));
    }
    let area = Area { node: file.node(), offset, len };
    let limit = context.max_luks_iterations(options.encrypt_max_iterations);
    let luks = area.header(false).await?;
    let volume = Volume::open(area, luks, false, passphrase, limit).await?;
    Ok(Crypt::Luks(Box::new(volume)))
}

impl Crypt {
    /// Whether guest data is stored as something else.
    pub(super) fn is_encrypted(&self) -> bool {
        !matches!(self, Crypt::Plain)
    }

    /// The cipher, and the number of the sector at this place of the disk and of the file.
    fn cipher(&self, guest: u64, host: u64) -> Option<(&Arc<SectorCipher>, u64)> {
        match self {
            Crypt::Plain | Crypt::Locked => None,
            Crypt::Aes(cipher) => Some((cipher, guest / SECTOR)),
            Crypt::Luks(volume) => Some((&volume.cipher, host / SECTOR)),
        }
    }
}

impl Image {
    fn locked(&self) -> Error {
        self.unsupported("the image is encrypted and was opened without its key")
    }

    /// Reads the guest data for `guest` that is stored at `host` of the data file.
    pub(super) async fn read_data(&self, guest: u64, host: u64, buf: IoBufMut) -> Result<IoBufMut> {
        match self.crypt.cipher(guest, host) {
            Some((cipher, sector)) => {
                EncryptedData { file: self.data(), cipher }.read(host, sector, buf).await
            }
            None if self.crypt.is_encrypted() => Err(self.locked()),
            None => self.data().read(host, buf).await,
        }
    }

    /// Writes the guest data for `guest` to `host` of the data file.
    pub(super) async fn write_data(
        &self,
        guest: u64,
        host: u64,
        buf: IoBuf,
        flags: WriteFlags,
    ) -> Result<()> {
        match self.crypt.cipher(guest, host) {
            Some((cipher, sector)) => {
                EncryptedData { file: self.data(), cipher }.write(host, sector, buf, flags).await
            }
            None if self.crypt.is_encrypted() => Err(self.locked()),
            None => self.data().write(host, buf, flags).await,
        }
    }

    /// Whether what is not allocated, and all that is, reads as zeroes in a new image. Storage that an
    /// encrypted image allocated in advance does not.
    pub(super) fn is_blank(&self) -> bool {
        if !self.crypt.is_encrypted() {
            return true;
        }
        let header = self.header.lock();
        let crypto = header.extensions.crypto.map_or(0, |place| place.offset + place.length);
        let l1 = header.l1_offset + u64::from(header.l1_size) * 8;
        let cluster = self.geometry().cluster_size();
        self.file.size() <= l1.max(crypto).next_multiple_of(cluster)
    }

    /// Changes the key slots of the encryption; see [`Volume::amend`].
    pub(super) async fn amend_key_slots(
        &self,
        graph: &Graph,
        options: &AmendOptions,
        force: bool,
    ) -> Result<()> {
        match &self.crypt {
            Crypt::Luks(volume) => volume.amend(graph.secrets(), options, force).await,
            Crypt::Locked => Err(self.locked()),
            Crypt::Plain | Crypt::Aes(_) => {
                Err(self.unsupported("the image has no key slots, which only LUKS has"))
            }
        }
    }
}
