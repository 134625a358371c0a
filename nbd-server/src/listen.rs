//! Where a server is reached: TCP, unix and vsock sockets, and sockets that were opened by whoever
//! started the program.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use cairn_block::engine::VsockAddress;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, sockopt};
use tokio::io::Interest;

use crate::error::{Error, Result};
use crate::stream::BoxStream;

/// Clients that the kernel lets wait until they are accepted.
const BACKLOG: i32 = 1024;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// All addresses of a host, and a port.
    Tcp {
        /// Name or number.
        host: String,
        /// Port; 0 lets the system choose one.
        port: u16,
    },
    /// A path.
    Unix(PathBuf),
    /// A socket of a virtual machine or its host.
    Vsock(VsockAddress),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Vsock(VsockAddress { cid: VsockAddress::ANY, port }) => {
                write!(f, "vsock port {port}")
            }
            Address::Vsock(VsockAddress { cid, port }) => write!(f, "vsock {cid}:{port}"),
        }
    }
}

/// Sockets that clients connect to.
pub struct Listener {
    sockets: Vec<OwnedFd>,
    /// Removed when the listener goes away.
    path: Option<PathBuf>,
    /// Other machines can reach it.
    is_remote: bool,
}

impl Listener {
    /// Listens on `address`. A socket that is left over at the path of a unix socket is replaced.
    pub fn bind(address: &Address) -> Result<Listener> {
        let failed = || Error::system(format!("listen on {address}"));
        match address {
            Address::Tcp { host, port } => {
                let addresses: Vec<SocketAddr> =
                    (host.as_str(), *port).to_socket_addrs().map_err(failed())?.collect();
                let is_remote = addresses.iter().any(|address| is_remote(address.ip()));
                let bound = addresses.iter().map(TcpListener::bind);
                let sockets = bound.map(|socket| Ok(socket?.into())).collect::<io::Result<_>>();
                Ok(Listener { sockets: sockets.map_err(failed())?, path: None, is_remote })
            }
            Address::Unix(path) => {
                remove_socket(path).map_err(failed())?;
                let socket = UnixListener::bind(path).map_err(failed())?;
                let path = Some(path.clone());
                Ok(Listener { sockets: vec![socket.into()], path, is_remote: false })
            }
            Address::Vsock(address) => {
                let socket = vsock(*address).map_err(failed())?;
                Ok(Listener { sockets: vec![socket], path: None, is_remote: true })
            }
        }
    }

    /// Takes over a socket that listens already. Who opened it decided who can reach it.
    pub fn inherited(socket: OwnedFd) -> Result<Listener> {
        let is_listening = sockopt::socket_acceptconn(&socket)
            .map_err(|error| Error::system("use the inherited socket")(error.into()))?;
        if !is_listening {
            return Err(Error::Usage("the inherited socket does not listen".to_owned()));
        }
        Ok(Listener { sockets: vec![socket], path: None, is_remote: false })
    }

    /// Whether other machines can reach the server through it.
    pub fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// Port of the first TCP socket.
    pub fn port(&self) -> Option<u16> {
        self.sockets.iter().find_map(|socket| {
            let name = rustix::net::getsockname(socket).ok()?;
            Some(SocketAddr::try_from(name).ok()?.port())
        })
    }

    /// Makes the sockets known to the runtime of the I/O thread that accepts.
    pub(crate) fn register(&self) -> io::Result<Vec<Acceptor>> {
        self.sockets.iter().map(Acceptor::new).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_remote(address: IpAddr) -> bool {
    !address.is_loopback()
}

/// Removes the socket of a server that is gone. Other files are left alone.
fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

fn vsock(address: VsockAddress) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let family = AddressFamily::VSOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A socket that connections are accepted from, on one I/O thread. Its family does not matter.
pub(crate) struct Acceptor {
    /// Tells when there is a connection. The type is that of a stream, since the runtime's listeners look
    /// at the peer's address, and do not know those of every family.
    readiness: tokio::net::UnixStream,
}

impl Acceptor {
    fn new(socket: &OwnedFd) -> io::Result<Acceptor> {
        let socket = socket.try_clone()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = std::os::unix::net::UnixStream::from(socket);
        Ok(Acceptor { readiness: tokio::net::UnixStream::from_std(socket)? })
    }

    /// Accepts a connection.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = || Ok(accept_with(&self.readiness, flags)?);
        self.readiness.async_io(Interest::READABLE, accept).await.map(Accepted)
    }
}

/// A connection that was accepted, and that any I/O thread can take over.
pub(crate) struct Accepted(OwnedFd);

impl Accepted {
    /// The connection as a stream of the current I/O thread.
    pub(crate) fn into_stream(self) -> io::Result<BoxStream> {
        let Accepted(socket) = self;
        if sockopt::socket_domain(&socket)? == AddressFamily::UNIX {
            let socket = std::os::unix::net::UnixStream::from(socket);
            return Ok(Box::new(tokio::net::UnixStream::from_std(socket)?));
        }
        // TCP has these options, vsock does not.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let _ = sockopt::set_socket_keepalive(&socket, true);
        let socket = std::net::TcpStream::from(socket);
        Ok(Box::new(tokio::net::TcpStream::from_std(socket)?))
    }
}
