//! The objects `tls-creds-anon`, `tls-creds-psk` and `tls-creds-x509`, with the reference's options.

use std::path::Path;

use super::{Endpoint, Kind, TlsCreds, psk, x509};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::options::{Dict, OptionError};

crate::options! {
    /// Options of `tls-creds-anon`.
    pub(crate) struct AnonOptions {
        /// Directory of the files
        "dir" => dir: Option<String>,
        /// Side of the connection: client or server
        "endpoint" => endpoint: Endpoint = "client",
        /// Checks of the peer's certificate (there is none)
        "verify-peer" => verify_peer: Option<bool>,
        /// Algorithms, as a priority string of GnuTLS
        "priority" => priority: Option<String>,
    }
}

crate::options! {
    /// Options of `tls-creds-psk`.
    pub(crate) struct PskOptions {
        /// Directory with the file keys.psk
        "dir" => dir: String,
        /// Side of the connection: client or server
        "endpoint" => endpoint: Endpoint = "client",
        /// Name of the key that a client uses
        "username" => username: String = "qemu",
        /// Accepted, without effect: both ends have the key, so both are checked
        "verify-peer" => verify_peer: Option<bool>,
        /// Algorithms, as a priority string of GnuTLS; has no effect
        "priority" => priority: Option<String>,
    }
}

crate::options! {
    /// Options of `tls-creds-x509`.
    pub(crate) struct X509Options {
        /// Directory with ca-cert.pem, ca-crl.pem and {client,server}-{cert,key}.pem
        "dir" => dir: String,
        /// Side of the connection: client or server
        "endpoint" => endpoint: Endpoint = "client",
        /// Whether the peer must have a valid certificate
        "verify-peer" => verify_peer: bool = "on",
        /// Whether to test the own certificate when the object is created
        "sanity-check" => sanity_check: bool = "on",
        /// ID of the secret with the passphrase of the private key
        "passwordid" => passwordid: Option<String>,
        /// Algorithms, as a priority string of GnuTLS; has no effect
        "priority" => priority: Option<String>,
    }
}

/// Adds the credentials that an object of type `kind` with these `options` is, as `id`.
pub(crate) fn create(graph: &Graph, kind: &str, id: &str, options: Dict) -> Result<()> {
    let within = |error: OptionError| Error::from(error).context(format!("object '{id}'"));
    let owner = format!("object type '{kind}'");
    let (endpoint, made, priority) = match kind {
        "tls-creds-anon" => {
            AnonOptions::parse(options, &owner).map_err(within)?;
            return Err(Error::Credentials {
                id: id.to_owned(),
                problem:
                    "would be anonymous, and so protect against nobody who can change what is \
                          sent: this is not supported; use tls-creds-psk or tls-creds-x509"
                        .to_owned(),
            });
        }
        "tls-creds-psk" => {
            let options = PskOptions::parse(options, &owner).map_err(within)?;
            let dir = Path::new(&options.dir);
            let context = psk::load(id, dir, options.endpoint, &options.username)?;
            (options.endpoint, Kind::Psk(context), options.priority)
        }
        _ => {
            let options = X509Options::parse(options, &owner).map_err(within)?;
            let passphrase = options.passwordid.map(|id| graph.secrets().find(&id)).transpose()?;
            let x509 = x509::X509::load(&x509::Settings {
                id,
                dir: Path::new(&options.dir),
                endpoint: options.endpoint,
                verify_peer: options.verify_peer,
                sanity_check: options.sanity_check,
                passphrase,
            })?;
            (options.endpoint, Kind::X509(x509), options.priority)
        }
    };
    if priority.is_some() {
        graph.notices().warn(&format!(
            "the priority of object '{id}' has no effect: TLS 1.3 and 1.2 are used with the \
             library's own choice of algorithms"
        ));
    }
    graph.tls_credentials().add(TlsCreds { id: id.to_owned(), endpoint, kind: made })
}
