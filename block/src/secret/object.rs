//! The objects `secret` and `secret_keyring`: where the bytes of a secret come from, and how they are
//! wrapped.
//!
//! What is stored may be base64 text, and it may be encrypted with another secret (AES-256 in CBC mode
//! with PKCS #7 padding), so that only that one need be passed in safety.

use std::fmt;
use std::io::Read;
use std::path::Path;

use aes::Aes256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Secret, Secrets, problem};
use crate::crypto::decrypt_cbc;
use crate::engine::sys;
use crate::error::{Error, Result};
use crate::option_words;
use crate::options::{Dict, OptionError, OptionKind, OptionType, Value};

/// Most bytes that a secret has.
const MAX_LEN: u64 = 8 << 20;
/// Length of an AES block in bytes.
const BLOCK: usize = 16;

/// Text that is not shown. An option's type.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl OptionType for Hidden {
    const KIND: OptionKind = OptionKind::Str;

    fn from_value(name: &str, value: Value) -> Result<Hidden, OptionError> {
        match value {
            Value::Str(text) => Ok(Hidden(Zeroizing::new(text))),
            _ => {
                Err(OptionError::Conflict { name: name.to_owned(), problem: "must be text".into() })
            }
        }
    }
}

option_words! {
    /// How a secret is written.
    pub enum Format {
        /// As it is.
        Raw = "raw",
        /// As base64 text (RFC 4648).
        Base64 = "base64",
    }
}

crate::options! {
    /// Options of `secret`.
    pub struct SecretOptions {
        /// The secret itself; every user of the machine can read it in the list of processes
        "data" => data: Option<Hidden>,
        /// File that holds the secret
        "file" => file: Option<String>,
        /// Open file descriptor to read the secret from
        "fd" => fd: Option<u32>,
        /// Environment variable that holds the secret
        "env" => env: Option<String>,
        /// How the secret is written: raw or base64
        "format" => format: Format = "raw",
        /// ID of the secret with whose 32 bytes this one is encrypted (AES-256-CBC)
        "keyid" => keyid: Option<String>,
        /// Initialisation vector of the encryption: 16 bytes in base64
        "iv" => iv: Option<String>,
    }
}

crate::options! {
    /// Options of `secret_keyring`.
    pub struct KeyringOptions {
        /// Serial number of the key in the kernel's keyring
        "serial" => serial: u32,
        /// How the secret is written: raw or base64
        "format" => format: Format = "raw",
        /// ID of the secret with whose 32 bytes this one is encrypted (AES-256-CBC)
        "keyid" => keyid: Option<String>,
        /// Initialisation vector of the encryption: 16 bytes in base64
        "iv" => iv: Option<String>,
    }
}

/// Adds the secret that an object of type `kind` with these `options` is, as `id`.
pub fn create(secrets: &Secrets, kind: &str, id: &str, options: Dict) -> Result<()> {
    let within = |error: OptionError| Error::from(error).context(format!("object '{id}'"));
    let owner = format!("object type '{kind}'");
    let (stored, wrapping) = match kind {
        "secret" => {
            let options = SecretOptions::parse(options, &owner).map_err(within)?;
            let wrapping = Wrapping {
                format: options.format,
                keyid: options.keyid.clone(),
                iv: options.iv.clone(),
            };
            (load(id, options)?, wrapping)
        }
        "secret_keyring" => {
            let options = KeyringOptions::parse(options, &owner).map_err(within)?;
            let stored = sys::read_key(options.serial).map_err(|error| {
                problem(id, format!("cannot be read from the keyring: {error}"))
            })?;
            let KeyringOptions { format, keyid, iv, .. } = options;
            (stored, Wrapping { format, keyid, iv })
        }
        _ => {
            return Err(Error::Name {
                what: "object type",
                name: kind.to_owned(),
                problem: "is not known",
            });
        }
    };
    let bytes = wrapping.unwrap(secrets, id, stored)?;
    secrets.add(id, Secret::new(bytes.to_vec()))
}

/// The stored bytes.
fn load(id: &str, options: SecretOptions) -> Result<Zeroizing<Vec<u8>>> {
    let given = [
        options.data.is_some(),
        options.file.is_some(),
        options.fd.is_some(),
        options.env.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(problem(id, "needs exactly one of data, file, fd and env"));
    }
    if let Some(Hidden(text)) = options.data {
        return Ok(Zeroizing::new(text.as_bytes().to_vec()));
    }
    if let Some(path) = options.file {
        return read_file(id, Path::new(&path), &format!("file '{path}'"));
    }
    if let Some(fd) = options.fd {
        let path = format!("/dev/fd/{fd}");
        return read_file(id, Path::new(&path), &format!("file descriptor {fd}"));
    }
    let name = options.env.unwrap_or_default();
    match std::env::var_os(&name) {
        Some(value) => Ok(Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value))),
        None => {
            Err(problem(id, format!("names the environment variable '{name}', which is not set")))
        }
    }
}

fn read_file(id: &str, path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut bytes));
    match read {
        Ok(len) if len as u64 > MAX_LEN => {
            Err(problem(id, format!("in {what} is longer than {MAX_LEN} bytes")))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(problem(id, format!("cannot be read from {what}: {error}"))),
    }
}

/// What was done to the bytes before they were stored.
struct Wrapping {
    format: Format,
    keyid: Option<String>,
    iv: Option<String>,
}

impl Wrapping {
    /// The secret in `stored`.
    fn unwrap(
        &self,
        secrets: &Secrets,
        id: &str,
        stored: Zeroizing<Vec<u8>>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let bytes = match self.format {
            Format::Raw => stored,
            Format::Base64 => decode(&stored).ok_or_else(|| problem(id, "is not base64 text"))?,
        };
        let Some(keyid) = &self.keyid else {
            return match self.iv {
                Some(_) => Err(problem(id, "has an iv, which only goes with a keyid")),
                None => Ok(bytes),
            };
        };
        let key = secrets.find(keyid)?;
        let iv = self.iv.as_deref().ok_or_else(|| problem(id, "has a keyid but no iv"))?;
        let iv: [u8; BLOCK] = decode(iv.as_bytes())
            .and_then(|iv| iv.as_slice().try_into().ok())
            .ok_or_else(|| problem(id, "has an iv that is not 16 bytes in base64"))?;
        if key.expose().len() != 32 {
            return Err(problem(keyid, "is not a key of 32 bytes"));
        }
        decrypt_cbc::<Aes256>(key.expose(), iv, bytes)
            .ok_or_else(|| problem(id, format!("cannot be decrypted with secret '{keyid}'")))
    }
}

fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // Files end with a newline, and long texts have some inside.
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(Zeroizing::new(text).as_slice()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(secrets: &Secrets, id: &str, options: &[(&'static str, &str)]) -> Result<(), String> {
        let options = options.iter().fold(Dict::new(), |mut dict, (name, value)| {
            dict.insert(*name, *value);
            dict
        });
        create(secrets, "secret", id, options).map_err(|error| error.to_string())
    }

    fn bytes(secrets: &Secrets, id: &str) -> Vec<u8> {
        secrets.find(id).expect("it exists").expose().to_vec()
    }

    #[test]
    fn secrets_come_from_options_files_and_the_environment() {
        let secrets = Secrets::default();
        add(&secrets, "a", &[("data", "letmein")]).expect("data");
        assert_eq!(bytes(&secrets, "a"), b"letmein");
        add(&secrets, "b", &[("data", "bGV0\nbWVpbg=="), ("format", "base64")]).expect("base64");
        assert_eq!(bytes(&secrets, "b"), b"letmein");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"from \xff file\n").expect("written");
        let path = file.path().to_str().expect("text");
        add(&secrets, "c", &[("file", path)]).expect("file");
        assert_eq!(bytes(&secrets, "c"), b"from \xff file\n");
        add(&secrets, "d", &[("env", "PATH")]).expect("environment");
        assert_eq!(bytes(&secrets, "d"), std::env::var("PATH").expect("set").into_bytes());
        let fd = std::os::fd::AsRawFd::as_raw_fd(file.as_file()).to_string();
        add(&secrets, "e", &[("fd", &fd)]).expect("descriptor");
        assert_eq!(bytes(&secrets, "e"), b"from \xff file\n");
    }

    #[test]
    fn encrypted_secrets_need_the_right_key() {
        let secrets = Secrets::default();
        // Made with: printf 123456 | openssl enc -aes-256-cbc -a -K 00..1f -iv 00..0f
        let key = STANDARD.encode((0..32).collect::<Vec<u8>>());
        let iv = STANDARD.encode((0..16).collect::<Vec<u8>>());
        add(&secrets, "master", &[("data", &key), ("format", "base64")]).expect("master");
        let stored = "ZAETodKTx4svTYAmaIyeXg==";
        let options = [("data", stored), ("format", "base64"), ("keyid", "master"), ("iv", &iv)];
        add(&secrets, "inner", &options).expect("decrypts");
        assert_eq!(bytes(&secrets, "inner"), b"123456");
        add(&secrets, "other", &[("data", &"x".repeat(32))]).expect("other");
        let mut wrong = options;
        wrong[2].1 = "other";
        let error = add(&secrets, "wrong", &wrong).expect_err("other key");
        assert!(error.contains("decrypted") && !error.contains(stored), "{error}");
        wrong[2].1 = "inner";
        assert!(add(&secrets, "short", &wrong).expect_err("short key").contains("32 bytes"));
        assert!(add(&secrets, "no iv", &options[..3]).expect_err("no iv").contains("no iv"));
    }

    #[test]
    fn mistakes_are_named_without_the_data() {
        let secrets = Secrets::default();
        for (options, hint) in [
            (&[("format", "raw")][..], "exactly one"),
            (&[("data", "SEKRIT"), ("file", "/x")], "exactly one"),
            (&[("data", "SEKRIT"), ("iv", "AAAA")], "iv"),
            (&[("data", "SEKRI!"), ("format", "base64")], "base64"),
            (&[("data", "SEKRIT"), ("frmat", "raw")], "format"),
            (&[("file", "/nonexistent/file")], "No such file"),
            (&[("env", "CAIRN_TEST_UNSET")], "not set"),
        ] {
            let error = add(&secrets, "s", options).expect_err(hint);
            assert!(error.contains(hint), "{error}");
            assert!(!error.contains("SEKRI"), "{error}");
        }
        let mut options = Dict::new();
        options.insert("data", 12_345_678u64);
        let error = create(&secrets, "secret", "n", options).expect_err("a number").to_string();
        assert!(!error.contains("12345678"), "{error}");
        add(&secrets, "s", &[("data", "SEKRIT")]).expect("valid");
        assert!(add(&secrets, "s", &[("data", "again")]).expect_err("twice").contains("already"));
        assert!(!format!("{secrets:?} {:?}", secrets.find("s")).contains("SEKRIT"));
    }

    #[test]
    fn a_missing_key_of_the_keyring_is_an_error() {
        let options = Dict::from([("serial", 2_147_483_647u64)]);
        let error =
            create(&Secrets::default(), "secret_keyring", "k", options).expect_err("no key");
        assert!(error.to_string().contains("keyring"), "{error}");
    }
}
