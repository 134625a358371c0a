//! Transfers between a file and several places of memory.

use cairn_tcg::Access;

use super::Call;
use crate::abi::Width;
use crate::abi::layout::Reader;
use crate::errno::Errno;
use crate::host::Word;

/// `UIO_MAXIOV`
const MAX_PARTS: usize = 1024;

/// An array of the host's `struct iovec`.
pub(super) struct Parts(Vec<u8>);

impl Parts {
    /// Bytes of an element.
    const SIZE: usize = 16;

    /// Translates `count` elements at `address`, to memory that is going to be accessed like this.
    pub(super) fn read(
        call: &Call<'_>,
        address: u64,
        count: u64,
        access: Access,
    ) -> Result<Parts, Errno> {
        let count = usize::try_from(count).ok().filter(|count| *count <= MAX_PARTS);
        let count = count.ok_or(Errno::EINVAL)?;
        let size = 2 * call.width().bytes();
        let bytes = call.read_vec(address, count * size)?;
        let mut host = Vec::with_capacity(count * Parts::SIZE);
        for bytes in bytes.chunks_exact(size) {
            let mut part = Reader::new(call.width(), bytes);
            let (base, len) = (part.long(), part.long());
            let place = match call.span(base, len, access)? {
                Word::Guest(place) => place,
                _ => 0,
            };
            host.extend(place.to_ne_bytes());
            host.extend(len.to_ne_bytes());
        }
        Ok(Parts(host))
    }

    /// The array.
    pub(super) fn word(&self) -> Word<'_> {
        Word::In(&self.0)
    }

    /// The array's address, as a field of another structure.
    pub(super) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    pub(super) fn count(&self) -> u64 {
        (self.0.len() / Parts::SIZE) as u64
    }
}

fn transfer(call: &Call<'_>, number: libc::c_long, access: Access) -> Result<u64, Errno> {
    let parts = Parts::read(call, call.long(1), call.long(2), access)?;
    // The offset is a pair of longs, low half first; hosts of 64 bits ignore the high one.
    let offset = match call.width() {
        Width::W64 => call.args[3],
        Width::W32 => call.long(3) | call.args[4] << 32,
    };
    let words = [
        call.int(0).into(),
        parts.word(),
        parts.count().into(),
        offset.into(),
        Word::Number(0),
        call.int(5).into(),
    ];
    call.host(number, words)
}

pub(super) fn readv(call: &mut Call<'_>) -> Result<u64, Errno> {
    transfer(call, libc::SYS_readv, Access::Write)
}

pub(super) fn writev(call: &mut Call<'_>) -> Result<u64, Errno> {
    transfer(call, libc::SYS_writev, Access::Read)
}

pub(super) fn preadv(call: &mut Call<'_>) -> Result<u64, Errno> {
    transfer(call, libc::SYS_preadv, Access::Write)
}

pub(super) fn pwritev(call: &mut Call<'_>) -> Result<u64, Errno> {
    transfer(call, libc::SYS_pwritev, Access::Read)
}

pub(super) fn preadv2(call: &mut Call<'_>) -> Result<u64, Errno> {
    transfer(call, libc::SYS_preadv2, Access::Write)
}

pub(super) fn pwritev2(call: &mut Call<'_>) -> Result<u64, Errno> {
    transfer(call, libc::SYS_pwritev2, Access::Read)
}
