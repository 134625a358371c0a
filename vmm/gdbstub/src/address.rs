//! Where GDB connects to: a TCP port, or a socket in the file system.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Where GDB connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A port of this machine, on all its addresses.
    Port(u16),
    /// A socket.
    Path(PathBuf),
}

impl Address {
    /// A number is a port; everything else is a path.
    pub fn parse(text: &str) -> Address {
        text.parse().map_or_else(|_| Address::Path(PathBuf::from(text)), Address::Port)
    }

    /// Waits for connections from now on.
    pub fn listen(&self) -> io::Result<Listener> {
        Ok(match self {
            Address::Port(port) => Listener::Tcp(TcpListener::bind(("0.0.0.0", *port))?),
            Address::Path(path) => {
                remove_socket(path)?;
                Listener::Unix(UnixListener::bind(path)?)
            }
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Port(port) => write!(f, "port {port}"),
            Address::Path(path) => write!(f, "'{}'", path.display()),
        }
    }
}

/// Removes a socket that somebody has left behind, but nothing else.
fn remove_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match path.symlink_metadata() {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Waits for connections.
#[derive(Debug)]
pub enum Listener {
    /// On a port.
    Tcp(TcpListener),
    /// On a socket in the file system.
    Unix(UnixListener),
}

impl Listener {
    /// The next connection.
    pub fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Packets are small, and each is waited for.
                stream.set_nodelay(true)?;
                Connection::Tcp(stream)
            }
            Listener::Unix(listener) => Connection::Unix(listener.accept()?.0),
        })
    }
}

/// A connection to GDB.
#[derive(Debug)]
pub enum Connection {
    /// Over a network.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

impl Connection {
    pub(crate) fn try_clone(&self) -> io::Result<Connection> {
        Ok(match self {
            Connection::Tcp(stream) => Connection::Tcp(stream.try_clone()?),
            Connection::Unix(stream) => Connection::Unix(stream.try_clone()?),
        })
    }

    /// Ends both directions, for all clones.
    pub(crate) fn shut(&self) {
        // It may be closed already.
        let _ = match self {
            Connection::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Connection::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl io::Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.read(buffer),
            Connection::Unix(stream) => stream.read(buffer),
        }
    }
}

impl io::Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.write(bytes),
            Connection::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
