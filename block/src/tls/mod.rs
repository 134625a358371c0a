//! TLS for network protocols, both ends: credentials, and streams made with them.
//!
//! Credentials are objects of the graph ([`TlsCredentials`], at
//! [`Graph::tls_credentials`](crate::graph::Graph::tls_credentials)) with the types and the files of
//! the reference: certificates by rustls, pre-shared keys by the system's OpenSSL. TLS 1.3 and 1.2 are
//! spoken. Handshakes have no deadline of their own; whoever starts one drops it when that passes.

mod der;
mod key;
mod name;
mod object;
mod openssl;
mod psk;
mod x509;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) use object::{AnonOptions, PskOptions, X509Options, create};

use crate::error::{Error, Result};
use openssl::SslStream;
use x509::X509;

crate::option_words! {
    /// The side of a connection that credentials are for.
    pub enum Endpoint {
        /// The side that connects.
        Client = "client",
        /// The side that accepts.
        Server = "server",
    }
}

/// Credentials of one end, ready for use.
pub struct TlsCreds {
    id: String,
    endpoint: Endpoint,
    kind: Kind,
}

enum Kind {
    Psk(Arc<openssl::Context>),
    X509(X509),
}

impl fmt::Debug for TlsCreds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsCreds({} {})", self.id, self.endpoint)
    }
}

impl TlsCreds {
    /// The side that they are for.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Whether clients need the name of the server, to check its certificate.
    pub fn needs_hostname(&self) -> bool {
        matches!(self.kind, Kind::X509(_))
    }

    /// Fails with [`Error::Credentials`] unless they are for `endpoint`.
    pub fn check_endpoint(&self, endpoint: Endpoint) -> Result<()> {
        if self.endpoint == endpoint {
            return Ok(());
        }
        let problem = format!(
            "are for the {} end; define them with endpoint={endpoint} to use them here",
            self.endpoint
        );
        Err(Error::Credentials { id: self.id.clone(), problem })
    }

    /// TLS as client over `stream`. The server must prove to be `hostname` (a DNS name or an IP
    /// address), unless the credentials say not to check or are pre-shared keys.
    pub async fn connect<S>(&self, stream: S, hostname: Option<&str>) -> Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.check_endpoint(Endpoint::Client)?;
        let peer = hostname.unwrap_or("the server");
        let failed = |error: io::Error| handshake_error(peer, &error);
        match &self.kind {
            Kind::Psk(context) => {
                let stream = SslStream::start(context, stream).await.map_err(failed)?;
                Ok(TlsStream { transport: Transport::OpenSsl(stream), peer_name: None })
            }
            Kind::X509(X509::Client(config)) => {
                let Some(hostname) = hostname else {
                    let problem = "need the name of the server to check its certificate; give it \
                                   with the option tls-hostname"
                        .to_owned();
                    return Err(Error::Credentials { id: self.id.clone(), problem });
                };
                let name = ServerName::try_from(hostname.to_owned()).map_err(|_| {
                    let problem =
                        format!("cannot be checked against the invalid name '{hostname}'");
                    Error::Credentials { id: self.id.clone(), problem }
                })?;
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name, stream).await.map_err(failed)?;
                Ok(TlsStream::with_certificates(stream.into()))
            }
            Kind::X509(X509::Server(_)) => unreachable_endpoint(&self.id),
        }
    }

    /// TLS as server over `stream`. With `verify-peer` the client must have a certificate, whose
    /// owner [`TlsStream::peer_name`] then tells.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.check_endpoint(Endpoint::Server)?;
        let failed = |error: io::Error| handshake_error("the client", &error);
        match &self.kind {
            Kind::Psk(context) => {
                let stream = SslStream::start(context, stream).await.map_err(failed)?;
                Ok(TlsStream { transport: Transport::OpenSsl(stream), peer_name: None })
            }
            Kind::X509(X509::Server(config)) => {
                let acceptor = TlsAcceptor::from(Arc::clone(config));
                let stream = acceptor.accept(stream).await.map_err(failed)?;
                Ok(TlsStream::with_certificates(stream.into()))
            }
            Kind::X509(X509::Client(_)) => unreachable_endpoint(&self.id),
        }
    }
}

fn handshake_error(peer: &str, error: &io::Error) -> Error {
    let problem = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it hung up during the handshake".to_owned(),
        _ => error.to_string(),
    };
    Error::Tls { peer: peer.to_owned(), problem }
}

/// What `check_endpoint` has excluded, as the error that it would have been.
fn unreachable_endpoint<T>(id: &str) -> Result<T> {
    let problem = "are for the other end".to_owned();
    Err(Error::Credentials { id: id.to_owned(), problem })
}

/// A stream under TLS.
pub struct TlsStream<S> {
    transport: Transport<S>,
    peer_name: Option<String>,
}

enum Transport<S> {
    OpenSsl(SslStream<S>),
    Rustls(Box<tokio_rustls::TlsStream<S>>),
}

impl<S> TlsStream<S> {
    fn with_certificates(stream: tokio_rustls::TlsStream<S>) -> TlsStream<S> {
        let certificates = stream.get_ref().1.peer_certificates();
        let peer_name = certificates.and_then(<[_]>::first).and_then(|end| name::subject(end));
        TlsStream { transport: Transport::Rustls(Box::new(stream)), peer_name }
    }

    /// The distinguished name of the owner of the peer's certificate (RFC 4514), if it has shown one.
    pub fn peer_name(&self) -> Option<&str> {
        self.peer_name.as_deref()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::OpenSsl(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Rustls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::OpenSsl(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Rustls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::OpenSsl(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Rustls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::OpenSsl(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Rustls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Credentials by their IDs.
#[derive(Debug, Default)]
pub struct TlsCredentials(Mutex<HashMap<String, Arc<TlsCreds>>>);

impl TlsCredentials {
    /// Adds credentials; fails if the ID is taken.
    fn add(&self, creds: TlsCreds) -> Result<()> {
        let mut all = self.0.lock();
        if all.contains_key(&creds.id) {
            let problem = "exists already";
            return Err(Error::Name { what: "object", name: creds.id, problem });
        }
        all.insert(creds.id.clone(), Arc::new(creds));
        Ok(())
    }

    /// The credentials called `id`.
    pub fn find(&self, id: &str) -> Result<Arc<TlsCreds>> {
        self.0.lock().get(id).cloned().ok_or_else(|| Error::Credentials {
            id: id.to_owned(),
            problem: "do not exist; define them with --object tls-creds-x509,id=…".to_owned(),
        })
    }

    /// The credentials for clients, if only one set of them is defined: what a name that demands TLS
    /// uses.
    pub fn only_client(&self) -> Result<Arc<TlsCreds>> {
        let all = self.0.lock();
        let mut clients = all.values().filter(|creds| creds.endpoint == Endpoint::Client);
        let problem = match (clients.next(), clients.next()) {
            (Some(only), None) => return Ok(Arc::clone(only)),
            (None, _) => "are needed; define them with --object tls-creds-x509,id=…",
            (Some(_), Some(_)) => "are not the only ones; choose some with the option tls-creds",
        };
        Err(Error::Credentials { id: "any".to_owned(), problem: problem.to_owned() })
    }

    /// Takes credentials away. Who uses them already keeps them.
    pub fn remove(&self, id: &str) -> Option<Arc<TlsCreds>> {
        self.0.lock().remove(id)
    }
}

/// The content of a file of at most `max` bytes; `None` if it does not exist.
fn read_file(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;

    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("it is longer than {max} bytes")));
    }
    Ok(Some(bytes))
}
