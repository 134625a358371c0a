//! Objects: things that options of nodes refer to by an ID, such as secrets and throttle groups.
//!
//! This is the one table of their types, for `--object` and its help; each type's own module knows
//! what its options mean.

use crate::error::{Error, Result};
use crate::filters::throttle;
use crate::graph::Graph;
use crate::options::{Dict, OptionDesc, expand};
use crate::{authz, secret, tls};

/// A type of object.
pub struct ObjectType {
    /// Its name, as in `qom-type`.
    pub name: &'static str,
    /// Its options besides `id`.
    pub options: &'static [OptionDesc],
    /// What stands before the names of its options, with the dot; else empty.
    pub prefix: &'static str,
    create: fn(graph: &Graph, kind: &str, id: &str, options: Dict) -> Result<()>,
}

/// The types of objects, in alphabetical order.
pub static OBJECTS: &[ObjectType] = &[
    ObjectType { name: "authz-list", options: authz::ListOptions::TABLE, ..AUTHZ },
    ObjectType { name: "authz-list-file", options: authz::FileOptions::TABLE, ..AUTHZ },
    ObjectType { name: "authz-simple", options: authz::SimpleOptions::TABLE, ..AUTHZ },
    ObjectType { name: "secret", options: secret::SecretOptions::TABLE, ..SECRET },
    ObjectType { name: "secret_keyring", options: secret::KeyringOptions::TABLE, ..SECRET },
    ObjectType {
        name: throttle::OBJECT,
        options: throttle::LimitOptions::TABLE,
        prefix: "limits.",
        create: |graph, _, id, options| {
            throttle::create(graph.throttle_groups(), id, expand(options)?)
        },
    },
    ObjectType { name: "tls-creds-anon", options: tls::AnonOptions::TABLE, ..TLS },
    ObjectType { name: "tls-creds-psk", options: tls::PskOptions::TABLE, ..TLS },
    ObjectType { name: "tls-creds-x509", options: tls::X509Options::TABLE, ..TLS },
];

const AUTHZ: ObjectType = ObjectType { create: authz::create, ..SECRET };

const SECRET: ObjectType = ObjectType {
    name: "",
    options: &[],
    prefix: "",
    create: |graph, kind, id, options| secret::create(graph.secrets(), kind, id, options),
};

const TLS: ObjectType = ObjectType { create: tls::create, ..SECRET };

/// Adds the object of type `kind` with these `options` to `graph`, as `id`. Errors do not repeat
/// values, which may be secret.
pub fn create(graph: &Graph, kind: &str, id: &str, options: Dict) -> Result<()> {
    match OBJECTS.iter().find(|object| object.name == kind) {
        Some(object) => (object.create)(graph, kind, id, options),
        None => {
            Err(Error::Name { what: "object type", name: kind.to_owned(), problem: "is not known" })
        }
    }
}
