//! Pre-shared keys: the object `tls-creds-psk`.
//!
//! The file `keys.psk` in the directory has a line `NAME:KEY` for each client, the key in hexadecimal
//! digits, as `psktool` of GnuTLS writes it.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Endpoint;
use super::openssl::{Context, Keys};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Longest file in bytes that is read.
const MAX_FILE: u64 = 16 << 20;

/// Reads the keys in `dir` for `endpoint`; a client presents the one of `username`.
pub(super) fn load(
    id: &str,
    dir: &Path,
    endpoint: Endpoint,
    username: &str,
) -> Result<Arc<Context>> {
    let path = dir.join("keys.psk");
    let problem = |problem: String| Error::Credentials { id: id.to_owned(), problem };
    let about = |what: &str| problem(format!("cannot be used: '{}' {what}", path.display()));
    let text = super::read_file(&path, MAX_FILE)
        .map_err(|error| about(&format!("cannot be read: {error}")))?
        .ok_or_else(|| about("does not exist"))?;
    let text = Zeroizing::new(text);
    let mut keys = parse(&text).map_err(|line| {
        about(&format!("is damaged: line {line} is not NAME:KEY with hexadecimal digits"))
    })?;
    let keys = match endpoint {
        Endpoint::Server => Keys::Server(keys),
        Endpoint::Client => {
            let key = keys
                .remove(username.as_bytes())
                .ok_or_else(|| about(&format!("has no key for the username '{username}'")))?;
            let identity = CString::new(username).map_err(|_| about("has no such username"))?;
            Keys::Client { identity, key }
        }
    };
    Context::new(keys).map_err(problem)
}

/// The keys by name, or the number of the line that is wrong.
fn parse(text: &[u8]) -> std::result::Result<HashMap<Vec<u8>, Secret>, usize> {
    let mut keys = HashMap::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let wrong = number + 1;
        let colon = line.iter().rposition(|byte| *byte == b':').ok_or(wrong)?;
        let (name, key) = line.split_at(colon);
        let key = unhex(key.get(1..).unwrap_or_default()).filter(|key| !key.is_empty());
        keys.insert(name.to_vec(), Secret::new(key.ok_or(wrong)?));
    }
    Ok(keys)
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_by_name() {
        let keys = parse(b"# comment\nalice:0aFF\n\nb:ob:00\r\n").expect("valid");
        assert_eq!(keys[&b"alice"[..]].expose(), [0x0a, 0xff]);
        assert_eq!(keys[&b"b:ob"[..]].expose(), [0]);
        for (text, line) in [("alice", 1), ("\na:0", 2), ("a:0g", 1), ("a:", 1)] {
            assert_eq!(parse(text.as_bytes()).err(), Some(line), "{text}");
        }
    }
}
