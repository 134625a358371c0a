//! Private keys in PEM files, encrypted ones included.
//!
//! Encrypted keys are those of PKCS #8 (RFC 5958) under PBES2 (RFC 8018, section 6.2) with PBKDF2 and
//! AES in CBC mode, which is what current tools write. Others are refused with the way to convert
//! them.

use aes::{Aes128, Aes192, Aes256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::der::{CONTEXT_0, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, value};
use crate::crypto::{HashAlg, decrypt_cbc};
use crate::secret::Secret;

/// Most iterations of the key derivation that are accepted. Owners choose some thousands.
const MAX_ITERATIONS: u64 = 10_000_000;

/// `id-PBES2` (RFC 8018, appendix A.4).
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
/// `id-PBKDF2` (RFC 8018, appendix A.2).
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];

/// The first private key in `text`, a PEM file. `passphrase` opens it if it is encrypted. The error
/// is a clause that follows the file's name.
pub(super) fn read(
    text: &[u8],
    passphrase: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>, String> {
    if contains(text, b"ENCRYPTED PRIVATE KEY-----") {
        let passphrase = passphrase.ok_or(
            "is encrypted; give its passphrase as a secret, with passwordid=ID on this object",
        )?;
        let der = section(text, "ENCRYPTED PRIVATE KEY").ok_or("has no readable PEM section")?;
        let key = decrypt(&der, passphrase.expose())?;
        return Ok(with_fixed_scalar(PrivateKeyDer::Pkcs8(key.to_vec().into())));
    }
    if contains(text, b"Proc-Type: 4,ENCRYPTED") {
        return Err(
            "is encrypted in an obsolete way; convert it with 'openssl pkcs8 -topk8'".into()
        );
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(with_fixed_scalar(key)),
        Err(_) => Err("has no private key in PEM form".to_owned()),
    }
}

/// `id-ecPublicKey` (RFC 5480, section 2.1.1).
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

/// The length in bytes of a private number of a curve, by the curve's OID (RFC 5480, section 2.1.1.1).
fn scalar_len(curve: &[u8]) -> Option<usize> {
    match curve {
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Some(32),
        [0x2b, 0x81, 4, 0, 34] => Some(48),
        [0x2b, 0x81, 4, 0, 35] => Some(66),
        _ => None,
    }
}

/// The same key, with the number in an elliptic-curve key as long as RFC 5915 demands. GnuTLS before
/// 3.8 writes it as an integer: with a zero in front, or too short.
fn with_fixed_scalar(key: PrivateKeyDer<'static>) -> PrivateKeyDer<'static> {
    match &key {
        PrivateKeyDer::Sec1(der) => match fixed_ec_key(der.secret_sec1_der(), None) {
            Some(fixed) => PrivateKeyDer::Sec1(fixed.into()),
            None => key,
        },
        PrivateKeyDer::Pkcs8(der) => match fixed_pkcs8(der.secret_pkcs8_der()) {
            Some(fixed) => PrivateKeyDer::Pkcs8(fixed.into()),
            None => key,
        },
        _ => key,
    }
}

/// A `PrivateKeyInfo` (RFC 5958, section 2) with a fixed `ECPrivateKey`; `None` if it has none.
fn fixed_pkcs8(der: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Reader::new(der).inside(SEQUENCE)?;
    let version = whole.expect(INTEGER)?;
    let algorithm = whole.expect(SEQUENCE)?;
    let mut parts = Reader::new(algorithm);
    if parts.expect(OBJECT_IDENTIFIER)? != EC_PUBLIC_KEY {
        return None;
    }
    let len = scalar_len(parts.expect(OBJECT_IDENTIFIER)?)?;
    let key = fixed_ec_key(whole.expect(OCTET_STRING)?, Some(len))?;
    let fixed = [
        value(INTEGER, version),
        value(SEQUENCE, algorithm),
        value(OCTET_STRING, &key),
        whole.rest().to_vec(),
    ];
    Some(value(SEQUENCE, &fixed.concat()))
}

/// An `ECPrivateKey` (RFC 5915, section 3) with its number made `len` bytes long, or as long as its
/// own parameters say.
fn fixed_ec_key(der: &[u8], len: Option<usize>) -> Option<Vec<u8>> {
    let mut whole = Reader::new(der).inside(SEQUENCE)?;
    let version = whole.expect(INTEGER)?;
    let number = whole.expect(OCTET_STRING)?;
    let rest = whole.rest();
    let len = match (len, whole.inside(CONTEXT_0)) {
        (Some(len), _) => len,
        (None, parameters) => scalar_len(parameters?.expect(OBJECT_IDENTIFIER)?)?,
    };
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = number.get(zeros..)?;
    let mut fixed = Zeroizing::new(vec![0; len.checked_sub(digits.len())?]);
    fixed.extend_from_slice(digits);
    let parts = [value(INTEGER, version), value(OCTET_STRING, &fixed), rest.to_vec()];
    Some(value(SEQUENCE, &parts.concat()))
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

/// The bytes of the first PEM section called `label`.
fn section(text: &[u8], label: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, behind) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = behind.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(body).ok()
}

/// The key in an `EncryptedPrivateKeyInfo` (RFC 5958, section 3).
fn decrypt(der: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    let scheme = Scheme::read(der)?;
    let mut key = Zeroizing::new(vec![0; scheme.cipher.key_len()]);
    scheme.prf.pbkdf2(passphrase, scheme.salt, scheme.iterations, &mut key);
    let stored = Zeroizing::new(scheme.data.to_vec());
    let decrypted = match scheme.cipher {
        Cipher::Aes128 => decrypt_cbc::<Aes128>(&key, scheme.iv, stored),
        Cipher::Aes192 => decrypt_cbc::<Aes192>(&key, scheme.iv, stored),
        Cipher::Aes256 => decrypt_cbc::<Aes256>(&key, scheme.iv, stored),
    };
    // Padding that happens to be valid under a wrong key is told from a key by its first byte.
    decrypted
        .filter(|key| key.first() == Some(&SEQUENCE))
        .ok_or_else(|| "cannot be decrypted: the passphrase is wrong".to_owned())
}

/// How a key is encrypted.
struct Scheme<'a> {
    prf: HashAlg,
    salt: &'a [u8],
    iterations: u32,
    cipher: Cipher,
    iv: [u8; 16],
    data: &'a [u8],
}

#[derive(Clone, Copy)]
enum Cipher {
    Aes128,
    Aes192,
    Aes256,
}

impl Cipher {
    /// By its OID (NIST, `aes` arc).
    fn from_oid(oid: &[u8]) -> Option<Cipher> {
        match oid {
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2] => Some(Cipher::Aes128),
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 22] => Some(Cipher::Aes192),
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42] => Some(Cipher::Aes256),
            _ => None,
        }
    }

    /// Length of the key in bytes.
    fn key_len(self) -> usize {
        match self {
            Cipher::Aes128 => 16,
            Cipher::Aes192 => 24,
            Cipher::Aes256 => 32,
        }
    }
}

/// The hash of the HMAC that PBKDF2 uses, by its OID (RFC 8018, appendix B.1).
fn prf_from_oid(oid: &[u8]) -> Option<HashAlg> {
    match oid.strip_prefix(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2])? {
        [7] => Some(HashAlg::Sha1),
        [8] => Some(HashAlg::Sha224),
        [9] => Some(HashAlg::Sha256),
        [10] => Some(HashAlg::Sha384),
        [11] => Some(HashAlg::Sha512),
        _ => None,
    }
}

impl<'a> Scheme<'a> {
    fn read(der: &'a [u8]) -> Result<Scheme<'a>, String> {
        let mut whole = Reader::new(der).inside(SEQUENCE).ok_or("is damaged")?;
        let mut algorithm = whole.inside(SEQUENCE).ok_or("is damaged")?;
        let data = whole.expect(OCTET_STRING).ok_or("is damaged")?;
        let other = || {
            "is encrypted in a way that is not supported (PBKDF2 with AES is); convert it with \
             'openssl pkcs8 -topk8 -v2 aes-256-cbc'"
                .to_owned()
        };
        if algorithm.expect(OBJECT_IDENTIFIER) != Some(PBES2) {
            return Err(other());
        }
        let mut parameters = algorithm.inside(SEQUENCE).ok_or("is damaged")?;
        let mut derivation = parameters.inside(SEQUENCE).ok_or("is damaged")?;
        if derivation.expect(OBJECT_IDENTIFIER) != Some(PBKDF2) {
            return Err(other());
        }
        let mut derivation = derivation.inside(SEQUENCE).ok_or("is damaged")?;
        let salt = derivation.expect(OCTET_STRING).ok_or_else(other)?;
        let iterations = derivation.unsigned().ok_or("is damaged")?;
        if derivation.peek() == Some(INTEGER) {
            // The key length, which follows from the cipher.
            derivation.any().ok_or("is damaged")?;
        }
        let prf = match derivation.inside(SEQUENCE) {
            Some(mut prf) => prf.expect(OBJECT_IDENTIFIER).and_then(prf_from_oid),
            // The default (RFC 8018, appendix A.2).
            None => Some(HashAlg::Sha1),
        };
        let mut encryption = parameters.inside(SEQUENCE).ok_or("is damaged")?;
        let cipher = encryption.expect(OBJECT_IDENTIFIER).and_then(Cipher::from_oid);
        let iv = encryption.expect(OCTET_STRING).and_then(|iv| iv.try_into().ok());
        if iterations > MAX_ITERATIONS {
            return Err(format!(
                "asks for {iterations} iterations of the key derivation; {MAX_ITERATIONS} are accepted"
            ));
        }
        Ok(Scheme {
            prf: prf.ok_or_else(other)?,
            salt,
            iterations: u32::try_from(iterations).map_err(|_| other())?.max(1),
            cipher: cipher.ok_or_else(other)?,
            iv: iv.ok_or_else(other)?,
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ec_key(number: &[u8]) -> Vec<u8> {
        let curve = value(OBJECT_IDENTIFIER, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
        let parts = [value(INTEGER, &[1]), value(OCTET_STRING, number), value(CONTEXT_0, &curve)];
        value(SEQUENCE, &parts.concat())
    }

    #[test]
    fn numbers_of_keys_get_the_length_of_their_curve() {
        let exact = [&[0; 2][..], &[0xee; 30]].concat();
        for number in [&exact[..], &exact[1..], &exact[2..], &[&[0][..], &exact].concat()] {
            assert_eq!(fixed_ec_key(&ec_key(number), None), Some(ec_key(&exact)));
        }
        assert_eq!(fixed_ec_key(&ec_key(&[1; 33]), None), None);
        assert_eq!(fixed_ec_key(&[0x30, 1, 2], None), None);
    }
}
