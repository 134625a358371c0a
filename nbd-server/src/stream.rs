//! What carries a session: a socket, or TLS over one.

use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Any stream.
pub type BoxStream = Box<dyn Stream>;
