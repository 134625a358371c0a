//! What carries a session: a socket, or TLS over one.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Any stream.
pub type BoxStream = Box<dyn Stream>;

/// A stream after its TLS handshake.
pub struct Secured {
    /// The stream of what was decrypted.
    pub stream: BoxStream,
    /// Who the peer is, as its certificate says (the distinguished name) or as it said itself (the
    /// name of its pre-shared key); `None` if it did not say.
    pub peer: Option<String>,
}

/// A future of a TLS handshake.
pub type Securing<'a> = Pin<Box<dyn Future<Output = io::Result<Secured>> + 'a>>;

/// The server's side of TLS handshakes. Any I/O thread may use it at any time.
pub trait TlsAcceptor: Send + Sync {
    /// Performs the handshake on `stream`.
    fn accept(&self, stream: BoxStream) -> Securing<'_>;
}

/// Decides who may use the server. Any I/O thread may ask it at any time.
pub trait Authorizer: Send + Sync {
    /// Whether the peer called `name` may.
    fn is_allowed(&self, name: &str) -> bool;
}
