//! Sockets, as far as structures with addresses in them go.

use cairn_tcg::Access;

use super::Call;
use super::vector::Parts;
use crate::abi::Width;
use crate::abi::layout::Reader;
use crate::errno::Errno;
use crate::host::Word;

/// Bytes of control messages that a call may have.
const MAX_CONTROL: u64 = 1 << 16;
/// Messages of one call (`UIO_MAXIOV`).
const MAX_MESSAGES: u64 = 1024;

/// A guest's `struct msghdr`.
struct Message {
    address: u64,
    name: u64,
    name_len: u32,
    parts: u64,
    count: u64,
    control: u64,
    control_len: u64,
}

/// Offsets in `struct msghdr` by the bytes of a long.
struct Offsets {
    name_len: u64,
    control_len: u64,
    flags: u64,
    size: u64,
}

impl Offsets {
    fn new(width: Width) -> Offsets {
        let long = width.bytes() as u64;
        // Behind the length of the name there are four bytes of padding on 64-bit guests.
        Offsets { name_len: long, control_len: 5 * long, flags: 6 * long, size: 7 * long }
    }
}

impl Message {
    fn read(call: &Call<'_>, address: u64) -> Result<Message, Errno> {
        let bytes = call.read_vec(address, Offsets::new(call.width()).size as usize)?;
        let mut from = Reader::new(call.width(), &bytes);
        let message = Message {
            address,
            name: from.long(),
            name_len: from.uint(),
            parts: from.long(),
            count: from.long(),
            control: from.long(),
            control_len: from.long(),
        };
        // Control messages begin with a long, and are not translated.
        if message.control_len != 0 && call.width() != Width::W64 {
            return Err(Errno::EINVAL);
        }
        if message.control_len > MAX_CONTROL {
            return Err(Errno::EINVAL);
        }
        Ok(message)
    }

    /// The host's `struct msghdr`.
    fn host(&self, call: &Call<'_>, parts: &Parts, access: Access) -> Result<[u8; 56], Errno> {
        let place = |address, len| match call.span(address, len, access)? {
            Word::Guest(place) => Ok::<u64, Errno>(place),
            _ => Ok(0),
        };
        let words = [
            place(self.name, self.name_len.into())?,
            self.name_len.into(),
            parts.address(),
            parts.count(),
            if self.control_len == 0 { 0 } else { place(self.control, self.control_len)? },
            self.control_len,
            0,
        ];
        let mut bytes = [0; 56];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(bytes)
    }
}

fn send(call: &Call<'_>, address: u64, flags: i32) -> Result<u64, Errno> {
    let message = Message::read(call, address)?;
    let parts = Parts::read(call, message.parts, message.count, Access::Read)?;
    let mut header = message.host(call, &parts, Access::Read)?;
    call.host(libc::SYS_sendmsg, [call.int(0).into(), Word::Out(&mut header), flags.into()])
}

fn receive(call: &Call<'_>, address: u64, flags: i32) -> Result<u64, Errno> {
    let message = Message::read(call, address)?;
    let parts = Parts::read(call, message.parts, message.count, Access::Write)?;
    let mut header = message.host(call, &parts, Access::Write)?;
    let words = [call.int(0).into(), Word::Out(&mut header), flags.into()];
    let count = call.host(libc::SYS_recvmsg, words)?;
    let offsets = Offsets::new(call.width());
    let at = message.address;
    call.write(at + offsets.name_len, &header[8..12])?;
    call.write(at + offsets.control_len, &header[40..40 + call.width().bytes()])?;
    call.write(at + offsets.flags, &header[48..52])?;
    Ok(count)
}

pub(super) fn sendmsg(call: &mut Call<'_>) -> Result<u64, Errno> {
    send(call, call.long(1), call.int(2))
}

pub(super) fn recvmsg(call: &mut Call<'_>) -> Result<u64, Errno> {
    receive(call, call.long(1), call.int(2))
}

/// Makes `one` for each `struct mmsghdr`: a header, and the bytes that were moved.
fn several(
    call: &Call<'_>,
    mut one: impl FnMut(&Call<'_>, u64) -> Result<u64, Errno>,
) -> Result<u64, Errno> {
    let size = Offsets::new(call.width()).size;
    let step = (size + 4).next_multiple_of(call.width().bytes() as u64);
    let count = (call.args[2] & 0xffff_ffff).min(MAX_MESSAGES);
    let mut done = 0;
    while done < count {
        let at = call.long(1) + done * step;
        match one(call, at) {
            Ok(len) => call.write(at + size, &(len as u32).to_le_bytes())?,
            // What has been moved is not lost.
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
        done += 1;
    }
    Ok(done)
}

pub(super) fn sendmmsg(call: &mut Call<'_>) -> Result<u64, Errno> {
    let flags = call.int(3);
    several(call, |call, at| send(call, at, flags))
}

/// The timeout is looked at between messages, as Linux does; here it ends the call once a message has come.
pub(super) fn recvmmsg(call: &mut Call<'_>) -> Result<u64, Errno> {
    let mut flags = call.int(3);
    let wait_for_one = flags & libc::MSG_WAITFORONE != 0 || call.pointer(4).is_some();
    flags &= !libc::MSG_WAITFORONE;
    several(call, |call, at| {
        let count = receive(call, at, flags)?;
        if wait_for_one {
            flags |= libc::MSG_DONTWAIT;
        }
        Ok(count)
    })
}

pub(super) fn setsockopt(call: &mut Call<'_>) -> Result<u64, Errno> {
    let (level, option) = (call.int(1), call.int(2));
    let filter = matches!(option, libc::SO_ATTACH_FILTER | libc::SO_ATTACH_REUSEPORT_CBPF);
    if level == libc::SOL_SOCKET && filter {
        // A program behind a pointer within the structure.
        return Err(Errno::ENOPROTOOPT);
    }
    let len = call.args[4] & 0xffff_ffff;
    let value = call.span(call.long(3), len, Access::Read)?;
    let words = [call.int(0).into(), level.into(), option.into(), value, len.into()];
    call.host(libc::SYS_setsockopt, words)
}
