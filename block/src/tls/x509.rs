//! Certificates: the object `tls-creds-x509`, on top of rustls.
//!
//! The directory holds what the reference expects there: `ca-cert.pem`, optionally `ca-crl.pem`, and
//! `server-cert.pem` with `server-key.pem` or `client-cert.pem` with `client-key.pem`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::{Endpoint, key};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Longest file in bytes that is read; bundles of all public authorities have some hundred KiB.
const MAX_FILE: u64 = 16 << 20;

/// What the options of the object say.
pub(super) struct Settings<'a> {
    pub(super) id: &'a str,
    pub(super) dir: &'a Path,
    pub(super) endpoint: Endpoint,
    pub(super) verify_peer: bool,
    pub(super) sanity_check: bool,
    pub(super) passphrase: Option<Secret>,
}

/// Certificates, ready for use.
pub(super) enum X509 {
    /// For the end that connects.
    Client(Arc<ClientConfig>),
    /// For the end that accepts.
    Server(Arc<ServerConfig>),
}

impl X509 {
    /// Reads the files, and checks them if that is wanted.
    pub(super) fn load(options: &Settings<'_>) -> Result<X509> {
        let files = Files { id: options.id, dir: options.dir };
        let provider = Arc::new(ring::default_provider());
        match options.endpoint {
            Endpoint::Client => files.client(options, provider).map(X509::Client),
            Endpoint::Server => files.server(options, provider).map(X509::Server),
        }
    }
}

struct Files<'a> {
    id: &'a str,
    dir: &'a Path,
}

impl Files<'_> {
    fn problem(&self, problem: impl Into<String>) -> Error {
        Error::Credentials { id: self.id.to_owned(), problem: problem.into() }
    }

    fn about(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        self.problem(format!("cannot be used: '{}' {problem}", self.path(name).display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The content of a file; `None` if it does not exist.
    fn optional(&self, name: &str) -> Result<Option<Vec<u8>>> {
        super::read_file(&self.path(name), MAX_FILE)
            .map_err(|error| self.about(name, format_args!("cannot be read: {error}")))
    }

    fn required(&self, name: &str) -> Result<Vec<u8>> {
        self.optional(name)?.ok_or_else(|| self.about(name, "does not exist"))
    }

    fn certificates(&self, name: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        match found {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) => Err(self.about(name, "has no certificate in PEM form")),
            Err(error) => Err(self.about(name, format_args!("is no PEM file: {error}"))),
        }
    }

    /// The authorities whose certificates are accepted.
    fn authorities(&self) -> Result<Arc<RootCertStore>> {
        const NAME: &str = "ca-cert.pem";
        let text = self.required(NAME)?;
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(NAME, &text)? {
            roots.add(certificate).map_err(|error| {
                self.about(NAME, format_args!("has an unusable certificate: {error}"))
            })?;
        }
        Ok(Arc::new(roots))
    }

    fn revocations(&self) -> Result<Vec<CertificateRevocationListDer<'static>>> {
        const NAME: &str = "ca-crl.pem";
        let Some(text) = self.optional(NAME)? else { return Ok(Vec::new()) };
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&text).collect();
        lists.map_err(|error| self.about(NAME, format_args!("is no PEM file: {error}")))
    }

    /// The certificate of this end with its key, unless neither file exists.
    fn own(&self, end: &str, passphrase: Option<&Secret>) -> Result<Option<Identity>> {
        let cert_name = format!("{end}-cert.pem");
        let key_name = format!("{end}-key.pem");
        let (chain, key) = match (self.optional(&cert_name)?, self.optional(&key_name)?) {
            (Some(chain), Some(key)) => (chain, key),
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(self.about(&key_name, "does not exist")),
            (None, Some(_)) => return Err(self.about(&cert_name, "does not exist")),
        };
        let chain = self.certificates(&cert_name, &chain)?;
        let key = key::read(&key, passphrase).map_err(|problem| self.about(&key_name, problem))?;
        Ok(Some(Identity { chain, key }))
    }

    fn client(
        &self,
        options: &Settings<'_>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<ClientConfig>> {
        let unusable = |error: rustls::Error| self.problem(format!("cannot be used: {error}"));
        let roots = self.authorities()?;
        let own = self.own("client", options.passphrase.as_ref())?;
        if let Some(own) = own.as_ref().filter(|_| options.sanity_check) {
            let verifier = self.client_verifier(&roots, &provider)?;
            own.check(|end_entity, rest, now| {
                verifier.verify_client_cert(end_entity, rest, now).map(drop)
            })
            .map_err(|error| self.untrusted("client-cert.pem", &error))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = if options.verify_peer {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .with_crls(self.revocations()?)
                .only_check_end_entity_revocation()
                .allow_unknown_revocation_status()
                .build()
                .map_err(|error| self.problem(format!("cannot be used: {error}")))?;
            builder.with_webpki_verifier(verifier)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        };
        let config = match own {
            Some(own) => builder.with_client_auth_cert(own.chain, own.key).map_err(unusable)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    fn server(
        &self,
        options: &Settings<'_>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<ServerConfig>> {
        let unusable = |error: rustls::Error| self.problem(format!("cannot be used: {error}"));
        let roots = self.authorities()?;
        let own = self
            .own("server", options.passphrase.as_ref())?
            .ok_or_else(|| self.about("server-cert.pem", "does not exist"))?;
        if options.sanity_check {
            let algorithms = provider.signature_verification_algorithms;
            own.check(|end_entity, rest, now| {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    &roots,
                    rest,
                    now,
                    algorithms.all,
                )
            })
            .map_err(|error| self.untrusted("server-cert.pem", &error))?;
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = if options.verify_peer {
            builder.with_client_cert_verifier(self.client_verifier(&roots, &provider)?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(own.chain, own.key).map_err(unusable)?;
        // Connections are few and long: resuming sessions would only cost memory.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    fn client_verifier(
        &self,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .with_crls(self.revocations()?)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| self.problem(format!("cannot be used: {error}")))
    }

    fn untrusted(&self, name: &str, error: &rustls::Error) -> Error {
        let hint = "peers would refuse it (sanity-check=off skips this test)";
        self.about(
            name,
            format_args!("does not pass the test against ca-cert.pem: {error}; {hint}"),
        )
    }
}

/// A certificate, with those that lead from it to an authority, and its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Applies a test to the certificate and those behind it, as of now.
    fn check(
        &self,
        test: impl Fn(
            &CertificateDer<'static>,
            &[CertificateDer<'static>],
            UnixTime,
        ) -> Result<(), rustls::Error>,
    ) -> Result<(), rustls::Error> {
        match self.chain.split_first() {
            Some((end_entity, rest)) => test(end_entity, rest, UnixTime::now()),
            None => Ok(()),
        }
    }
}

/// Accepts the certificate of any server (`verify-peer=off`); it must still own the key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
