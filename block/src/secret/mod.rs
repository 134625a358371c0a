//! Secrets: passphrases and keys that options refer to by an ID instead of containing them.
//!
//! A graph has a set of them ([`Secrets`], at [`Graph::secrets`](crate::graph::Graph::secrets)), from
//! which drivers take what options such as `key-secret=ID` name. Their bytes are wiped from memory
//! when the last user drops them, and appear in no message, log or debugging output.

mod object;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

pub use object::{KeyringOptions, SecretOptions, create};

use crate::error::{Error, Result};

/// Bytes that nobody else is to see. Clones share them.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes over `bytes`.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes. Copies that are made of them are the caller's to wipe.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Secrets by their IDs.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<HashMap<String, Secret>>);

impl Secrets {
    /// Adds a secret; fails if the ID is taken.
    pub fn add(&self, id: &str, secret: Secret) -> Result<()> {
        let mut secrets = self.0.lock();
        if secrets.contains_key(id) {
            return Err(Error::Name {
                what: "object",
                name: id.to_owned(),
                problem: "exists already",
            });
        }
        secrets.insert(id.to_owned(), secret);
        Ok(())
    }

    /// The secret called `id`.
    pub fn find(&self, id: &str) -> Result<Secret> {
        let found = self.0.lock().get(id).cloned();
        found.ok_or_else(|| problem(id, "does not exist; define it with --object secret,id=…"))
    }

    /// Takes a secret away. Who uses it already keeps it.
    pub fn remove(&self, id: &str) -> Option<Secret> {
        self.0.lock().remove(id)
    }
}

/// What is wrong with the secret called `id`, as a clause that follows its name.
fn problem(id: &str, problem: impl Into<String>) -> Error {
    Error::Secret { id: id.to_owned(), problem: problem.into() }
}
