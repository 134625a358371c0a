//! `--connect` and `--disconnect`: devices of the kernel.
//!
//! The program is the server of its own image, connects to itself as a client would, and gives that
//! connection to the kernel once the handshake is done.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use tokio::net::UnixStream;

use super::netlink::{self, DeviceSession};
use crate::client::Negotiation;
use crate::error::{Error, Result};

/// The number of a device.
fn index(device: &str) -> Result<u32> {
    let number = device.strip_prefix("/dev/nbd").and_then(|number| number.parse().ok());
    number.ok_or_else(|| {
        Error::Usage(format!("'{device}' is no NBD device; they are called /dev/nbd0 and so on"))
    })
}

/// What the kernel's answer means for the user.
fn explain(what: String, source: io::Error) -> Error {
    let reason = match source.kind() {
        io::ErrorKind::NotFound => "the kernel has no NBD driver; try 'modprobe nbd'",
        io::ErrorKind::PermissionDenied => "only root may do that",
        io::ErrorKind::ResourceBusy => "the device is in use",
        io::ErrorKind::InvalidInput => "there is no such device, or it is not in use",
        _ => return Error::System { what, source },
    };
    Error::Usage(format!("cannot {what}: {reason}"))
}

/// Lets `device` show the export `name` of the server behind the unix socket `path`.
pub(super) async fn attach(device: &str, path: &Path, name: &str) -> Result<()> {
    let index = index(device)?;
    let what = || format!("attach '{device}'");
    let stream = UnixStream::connect(path).await.map_err(Error::system(what()))?;
    let socket = stream.as_fd().try_clone_to_owned().map_err(Error::system(what()))?;
    let mut negotiation = Negotiation::begin(Box::new(stream)).await?;
    let (size, flags, block) = negotiation.go(name).await?;
    drop(negotiation.into_stream());
    rustix::io::ioctl_fionbio(&socket, false).map_err(|e| explain(what(), e.into()))?;
    let session = DeviceSession { index, size, block, flags: flags.bits(), socket: socket.as_fd() };
    netlink::connect(&session).map_err(|error| explain(what(), error))
}

/// Detaches `device`.
pub(super) fn detach(device: &str) -> Result<()> {
    netlink::disconnect(index(device)?)
        .map_err(|error| explain(format!("detach '{device}'"), error))
}
