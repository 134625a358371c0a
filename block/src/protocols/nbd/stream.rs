//! Connections to servers: TCP, Unix sockets and vsock.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::options::{Address, InetAddress};
use crate::engine::{run_blocking, sys};
use crate::tls::TlsStream;

/// A Unix socket whose queue of new connections is full is tried again after this time.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// A connection without TLS.
pub(super) enum Socket {
    Tcp(TcpStream),
    /// Any other kind of stream socket: the system calls are the same.
    Unix(UnixStream),
}

impl Socket {
    /// Connects to `address`.
    pub(super) async fn connect(address: &Address) -> io::Result<Socket> {
        match address {
            Address::Inet(inet) => connect_inet(inet).await.map(Socket::Tcp),
            Address::Unix { path, is_abstract } => {
                let path = if *is_abstract { format!("\0{path}") } else { path.clone() };
                loop {
                    match UnixStream::connect(&path).await {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            tokio::time::sleep(QUEUE_PAUSE).await;
                        }
                        other => return other.map(Socket::Unix),
                    }
                }
            }
            Address::Vsock { cid, port } => {
                let (cid, port) = (*cid, *port);
                adopt(run_blocking(move || sys::connect_vsock(cid, port)).await?)
            }
            Address::Descriptor(fd) => adopt(sys::duplicate(*fd)?),
        }
    }
}

fn adopt(fd: std::os::fd::OwnedFd) -> io::Result<Socket> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream).map(Socket::Unix)
}

async fn connect_inet(inet: &InetAddress) -> io::Result<TcpStream> {
    let host = inet.host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, inet.port)],
        Err(_) if inet.numeric => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the host is no IP address"));
        }
        Err(_) => tokio::net::lookup_host((host, inet.port)).await?.collect(),
    };
    let (ipv4, ipv6) = inet.families();
    let mut last = io::Error::new(
        io::ErrorKind::NotFound,
        "the host has no address of the wanted family (ipv4, ipv6)",
    );
    for address in found {
        if !(if address.is_ipv4() { ipv4 } else { ipv6 }) {
            continue;
        }
        match connect_address(address, inet.keep_alive).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_address(address: SocketAddr, keep_alive: bool) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_keepalive(keep_alive)?;
    let stream = socket.connect(address).await?;
    // Requests are batched here, so that the system need not wait for more.
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What the protocol runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl Stream for Socket {}
impl<S: Stream> Stream for TlsStream<S> {}
#[cfg(test)]
impl Stream for tokio::io::DuplexStream {}
