//! Reading ranges of the sources, with or without regard to sectors that cannot be read.

use std::ops::Range;

use cairn_block::IoBufMut;
use cairn_block::graph::Backend;
use cairn_block::num::AsUsize as _;

use super::SECTOR;
use super::pipeline::Notice;
use super::source::Sources;
use crate::error::Result;

/// What reads the sources.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub(super) sources: &'r Sources,
    /// Unreadable sectors become zeroes, and are told of.
    pub(super) salvage: bool,
    pub(super) notice: &'r dyn Notice,
}

impl Reader<'_> {
    /// Reads `range` of the whole.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<IoBufMut> {
        let mut whole = IoBufMut::new((range.end - range.start).as_usize());
        let mut parts = Vec::new();
        for (image, part) in self.sources.within(range.clone()) {
            let buf = whole.split_to((part.end - part.start).as_usize());
            let (offset, present) = image.locate(&part);
            parts.push(self.read_part(image.backend(), offset, present, buf).await?);
        }
        Ok(parts.into_iter().reduce(join).unwrap_or(whole))
    }

    /// Reads `present` bytes from one image; the rest of `buf` becomes zero.
    async fn read_part(
        &self,
        image: &Backend,
        offset: u64,
        present: u64,
        mut buf: IoBufMut,
    ) -> Result<IoBufMut> {
        let mut behind = buf.split_off(present.as_usize());
        behind.fill(0);
        let len = buf.len();
        match image.read(offset, buf).await {
            Ok(data) => Ok(join(data, behind)),
            Err(_) if self.salvage => {
                let data = self.read_by_sectors(image, offset, len).await;
                Ok(join(data, behind))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads sector by sector; sectors that cannot be read become zeroes.
    async fn read_by_sectors(&self, image: &Backend, offset: u64, len: usize) -> IoBufMut {
        let mut rest = IoBufMut::new(len);
        let mut parts = Vec::new();
        let mut at = offset;
        while !rest.is_empty() {
            let sector = rest.split_to(rest.len().min(SECTOR.as_usize()));
            let len = sector.len();
            let data = image.read(at, sector).await.unwrap_or_else(|error| {
                self.notice.salvaged(&format!("error while reading offset {at}: {error}"));
                IoBufMut::zeroed(len)
            });
            parts.push(data);
            at += len as u64;
        }
        parts.into_iter().reduce(join).unwrap_or(rest)
    }
}

/// Joins parts that were cut from one buffer.
fn join(mut head: IoBufMut, tail: IoBufMut) -> IoBufMut {
    match head.join(tail) {
        Ok(()) => head,
        // The tail was replaced on the way.
        Err(tail) => {
            let mut whole = IoBufMut::new(head.len() + tail.len());
            let (front, back) = whole.split_at_mut(head.len());
            front.copy_from_slice(&head);
            back.copy_from_slice(&tail);
            whole
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_whole_again_even_if_one_was_replaced() {
        let mut head = IoBufMut::copy_of(b"abcdef");
        let tail = head.split_off(3);
        assert_eq!(&join(head, tail)[..], b"abcdef");
        let mut head = IoBufMut::copy_of(b"abcdef");
        head.truncate(3);
        assert_eq!(&join(head, IoBufMut::copy_of(b"xyz"))[..], b"abcxyz");
    }
}
