//! Waiting for files.

use cairn_tcg::Access;

use super::Call;
use crate::abi::layout::{Reader, epoll_event};
use crate::errno::Errno;
use crate::host::Word;
use crate::signal::SignalSet;

/// Bytes of a signal set.
const SET: u64 = 8;
/// Bytes of `struct pollfd`.
const POLLFD: u64 = 8;
/// Events that one call returns at most.
const MAX_EVENTS: usize = 4096;

pub(super) fn ppoll(call: &mut Call<'_>) -> Result<u64, Errno> {
    let count = call.args[1] & 0xffff_ffff;
    let time = call.span(call.long(2), 16, Access::Write)?;
    let mask = call.signal_set(call.long(3), call.long(4))?;
    let files = call.span(call.long(0), count * POLLFD, Access::Write)?;
    call.waiting(mask, |call, mask| {
        call.host(libc::SYS_ppoll, [files, count.into(), time, mask, SET.into()])
    })
}

/// A set of files, which the kernel takes in words of eight bytes.
struct FileSet {
    address: u64,
    bytes: Vec<u8>,
    /// Bytes of the guest's.
    len: usize,
}

impl FileSet {
    fn read(call: &Call<'_>, address: u64, count: u64) -> Result<Option<FileSet>, Errno> {
        if address == 0 {
            return Ok(None);
        }
        let long = call.width().bytes();
        let len = (count as usize).div_ceil(8).next_multiple_of(long);
        let mut bytes = call.read_vec(address, len)?;
        bytes.resize(len.next_multiple_of(8), 0);
        Ok(Some(FileSet { address, bytes, len }))
    }

    fn word(set: &mut Option<FileSet>) -> Word<'_> {
        set.as_mut().map_or(Word::Number(0), |set| Word::Out(&mut set.bytes))
    }

    fn write(set: Option<&FileSet>, call: &Call<'_>) -> Result<(), Errno> {
        set.map_or(Ok(()), |set| call.write(set.address, &set.bytes[..set.len]))
    }
}

/// Files that a set may have; the limit of open ones is below that.
const MAX_FILES: i32 = 1 << 20;

pub(super) fn pselect6(call: &mut Call<'_>) -> Result<u64, Errno> {
    let count = call.int(0);
    if count < 0 {
        return Err(Errno::EINVAL);
    }
    let count = count.min(MAX_FILES) as u64;
    let mut sets = [
        FileSet::read(call, call.long(1), count)?,
        FileSet::read(call, call.long(2), count)?,
        FileSet::read(call, call.long(3), count)?,
    ];
    let time = call.span(call.long(4), 16, Access::Write)?;
    // The last argument points to the address and the size of a signal set.
    let mask = match call.pointer(5) {
        None => None,
        Some(address) => {
            let bytes = call.read_vec(address, 2 * call.width().bytes())?;
            let mut from = Reader::new(call.width(), &bytes);
            let (set, size) = (from.long(), from.long());
            call.signal_set(set, size)?
        }
    };
    let ready = call.waiting(mask, |call, mask| {
        let address = match &mask {
            Word::In(bytes) => bytes.as_ptr() as u64,
            _ => 0,
        };
        let pair: Vec<u8> = [address, SET].into_iter().flat_map(u64::to_ne_bytes).collect();
        let [read, write, except] = &mut sets;
        let words = [
            count.into(),
            FileSet::word(read),
            FileSet::word(write),
            FileSet::word(except),
            time,
            Word::In(&pair),
        ];
        call.host(libc::SYS_pselect6, words)
    })?;
    for set in &sets {
        FileSet::write(set.as_ref(), call)?;
    }
    Ok(ready)
}

pub(super) fn epoll_ctl(call: &mut Call<'_>) -> Result<u64, Errno> {
    let event = match call.pointer(3) {
        Some(address) => Some(epoll_event::to_host(&call.read(address)?)),
        None => None,
    };
    let event = event.as_ref().map_or(Word::Number(0), |event| Word::In(event));
    let words = [call.int(0).into(), call.int(1).into(), call.int(2).into(), event];
    call.host(libc::SYS_epoll_ctl, words)
}

pub(super) fn epoll_pwait(call: &mut Call<'_>) -> Result<u64, Errno> {
    let time = call.int(3);
    epoll(call, libc::SYS_epoll_pwait, time.into())
}

pub(super) fn epoll_pwait2(call: &mut Call<'_>) -> Result<u64, Errno> {
    let time = call.span(call.long(3), 16, Access::Read)?;
    epoll(call, libc::SYS_epoll_pwait2, time)
}

fn epoll(call: &mut Call<'_>, number: libc::c_long, time: Word<'static>) -> Result<u64, Errno> {
    let events = call.long(1);
    let count = usize::try_from(call.int(2)).ok().filter(|count| *count != 0);
    let count = count.ok_or(Errno::EINVAL)?.min(MAX_EVENTS);
    let mask: Option<SignalSet> = call.signal_set(call.long(4), call.long(5))?;
    call.span(events, (count * epoll_event::SIZE) as u64, Access::Write)?;
    let mut host = vec![0; count * epoll_event::HOST_SIZE];
    let ready = call.waiting(mask, |call, mask| {
        let words = [
            call.int(0).into(),
            Word::Out(&mut host),
            (count as u64).into(),
            time,
            mask,
            SET.into(),
        ];
        call.host(number, words)
    })?;
    let ready_events = host.chunks_exact(epoll_event::HOST_SIZE).take(ready as usize);
    let guest: Vec<u8> = ready_events.flat_map(epoll_event::from_host).collect();
    call.write(events, &guest)?;
    Ok(ready)
}
