//! The kernel's NBD devices, through generic netlink (linux/nbd-netlink.h, linux/genetlink.h).
//!
//! Messages consist of attributes, each behind its length and number, padded to four bytes; integers are
//! in the machine's byte order.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Size of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;
/// `NLMSG_ERROR`, which acknowledges too.
const MESSAGE_ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 1 | 4;
/// `GENL_ID_CTRL`.
const CONTROL: u16 = 16;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`.
const FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`.
const FAMILY_NAME: u16 = 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK`.
const TYPE_MASK: u16 = !(3 << 14);

/// `NBD_CMD_CONNECT`.
const CONNECT: u8 = 1;
/// `NBD_CMD_DISCONNECT`.
const DISCONNECT: u8 = 2;
/// Attributes: `NBD_ATTR_INDEX` and those that follow it.
const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BLOCK_SIZE_BYTES: u16 = 3;
const SERVER_FLAGS: u16 = 5;
const SOCKETS: u16 = 7;
/// `NBD_SOCK_ITEM` and, in it, `NBD_SOCK_FD`.
const SOCKET_ITEM: u16 = 1;
const SOCKET_FD: u16 = 1;

/// Longest answer, in bytes.
const ANSWER: usize = 8 << 10;

/// A session of a device.
pub(super) struct DeviceSession<'s> {
    /// Number of the device.
    pub(super) index: u32,
    /// Size in bytes.
    pub(super) size: u64,
    /// Block size in bytes.
    pub(super) block: u32,
    /// The export's flags.
    pub(super) flags: u16,
    /// The connection, at the beginning of transmission.
    pub(super) socket: BorrowedFd<'s>,
}

/// Gives a session to its device.
pub(super) fn connect(session: &DeviceSession<'_>) -> io::Result<()> {
    let fd = session.socket.as_raw_fd().to_ne_bytes();
    let item = attribute(SOCKET_ITEM | NESTED, &attribute(SOCKET_FD, &fd));
    let attributes = [
        attribute(INDEX, &session.index.to_ne_bytes()),
        attribute(SIZE_BYTES, &session.size.to_ne_bytes()),
        attribute(BLOCK_SIZE_BYTES, &u64::from(session.block).to_ne_bytes()),
        attribute(SERVER_FLAGS, &u64::from(session.flags).to_ne_bytes()),
        attribute(SOCKETS | NESTED, &item),
    ];
    Netlink::open()?.command(CONNECT, &attributes.concat())
}

/// Takes the session of device number `index` away.
pub(super) fn disconnect(index: u32) -> io::Result<()> {
    Netlink::open()?.command(DISCONNECT, &attribute(INDEX, &index.to_ne_bytes()))
}

/// A netlink socket, and the number of the kernel's NBD interface.
struct Netlink {
    socket: OwnedFd,
    family: u16,
}

impl Netlink {
    /// Fails with `ENOENT` if the kernel has no NBD driver.
    fn open() -> io::Result<Netlink> {
        let family = AddressFamily::NETLINK;
        let flags = SocketFlags::CLOEXEC;
        let protocol = Some(netlink::GENERIC);
        let socket = socket_with(family, SocketType::RAW, flags, protocol)?;
        let name = attribute(FAMILY_NAME, b"nbd\0");
        let attributes = exchange(&socket, CONTROL, GET_FAMILY, &name)?;
        let id = find(&attributes, FAMILY_ID).and_then(|id| id.try_into().ok());
        let family = id.map(u16::from_ne_bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Netlink { socket, family })
    }

    fn command(&self, command: u8, attributes: &[u8]) -> io::Result<()> {
        exchange(&self.socket, self.family, command, attributes).map(drop)
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The value of the first attribute of `kind`.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..len)?;
        if u16_at(attributes, 2)? & TYPE_MASK == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn request(family: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + GENERIC_HEADER + attributes.len()).unwrap_or(u32::MAX);
    let mut message = len.to_ne_bytes().to_vec();
    message.extend_from_slice(&family.to_ne_bytes());
    message.extend_from_slice(&REQUEST.to_ne_bytes());
    // Sequence number and port of the sender, which the kernel fills in.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[command, 1, 0, 0]);
    message.extend_from_slice(attributes);
    message
}

/// Sends a command, and returns the attributes of the answer that comes before the acknowledgement.
fn exchange(socket: &OwnedFd, family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let message = request(family, command, attributes);
    send(socket, &message, SendFlags::empty())?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; ANSWER];
        let (len, _) = recv(socket, &mut buffer, RecvFlags::empty())?;
        let mut messages = buffer.get(..len).unwrap_or_default();
        while let Some((kind, body, rest)) = next_message(messages) {
            if kind == MESSAGE_ERROR {
                let code = body.first_chunk().map(|code| i32::from_ne_bytes(*code));
                return match code {
                    Some(0) => Ok(answer),
                    Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                    None => Err(io::ErrorKind::InvalidData.into()),
                };
            }
            answer = body.get(GENERIC_HEADER..).unwrap_or_default().to_vec();
            messages = rest;
        }
    }
}

/// Cuts the first message off: its type, its content and what follows.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?);
    let len = usize::try_from(len).ok()?;
    let body = bytes.get(HEADER..len)?;
    let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 4)?, body, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found() {
        let all = [attribute(FAMILY_NAME, b"nbd\0"), attribute(FAMILY_ID, &[7, 0])].concat();
        assert_eq!(all.len(), 16);
        assert_eq!(find(&all, FAMILY_ID), Some(&[7, 0][..]));
        assert_eq!(find(&all, FAMILY_NAME), Some(&b"nbd\0"[..]));
        assert_eq!(find(&all, 9), None);
        assert_eq!(find(&[0, 0, 0, 0], 9), None);
    }

    #[test]
    fn messages_are_cut_apart() {
        let message = request(CONTROL, GET_FAMILY, &attribute(FAMILY_NAME, b"nbd\0"));
        let two = [message.clone(), message.clone()].concat();
        let (kind, body, rest) = next_message(&two).expect("whole");
        assert_eq!((kind, body.len()), (CONTROL, message.len() - HEADER));
        assert_eq!(rest, message);
        assert!(next_message(&message[..10]).is_none());
    }
}
