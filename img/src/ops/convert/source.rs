//! Several images as one, and what is known of its ranges.

use std::ops::Range;
use std::sync::Arc;

use cairn_block::driver::Status;
use cairn_block::graph::{Backend, Node, backing_of};

use super::SECTOR;
use crate::error::Result;

/// Images one behind the other, each padded to whole sectors.
pub(crate) struct Sources {
    images: Vec<Image>,
    size: u64,
}

/// One of the images.
pub(super) struct Image {
    backend: Backend,
    /// First byte of its part in the whole.
    start: u64,
    /// The part of the image that is used.
    part: Range<u64>,
    /// What lies below its top layer.
    backing: Option<Arc<Node>>,
}

/// What a range of the sources holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Data, or what may be data.
    Data,
    /// Zeroes.
    Zero,
    /// Nothing of its own: the backing file of the target has it.
    Backing,
}

/// Which layers of the sources count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layers {
    /// All: what none of them has is zero.
    All,
    /// All, and what none of them has is [`Content::Backing`].
    Allocated,
    /// The first one of each image: what it does not have is [`Content::Backing`].
    Top,
}

impl Sources {
    /// All of `backends`.
    pub(crate) fn new(backends: Vec<Backend>) -> Sources {
        let mut size = 0;
        let mut images = Vec::with_capacity(backends.len());
        for backend in backends {
            let part = 0..backend.size();
            let image = Image::new(backend, size, part);
            size = image.end();
            images.push(image);
        }
        Sources { images, size }
    }

    /// A part of one image, without padding.
    pub(crate) fn part(backend: Backend, part: Range<u64>) -> Sources {
        let size = part.end - part.start;
        Sources { images: vec![Image::new(backend, 0, part)], size }
    }

    /// Size of the whole in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether some of it comes over a network.
    pub(super) fn is_remote(&self) -> bool {
        self.images.iter().any(|image| image.backend.node().is_remote())
    }

    /// The images, and what of each lies in `range` of the whole.
    pub(super) fn within(&self, range: Range<u64>) -> impl Iterator<Item = (&Image, Range<u64>)> {
        self.images.iter().filter_map(move |image| {
            let part = range.start.max(image.start)..range.end.min(image.end());
            (part.start < part.end).then_some((image, part))
        })
    }

    /// The content of the first run of `range`, and where that run ends.
    pub(super) async fn content(
        &self,
        range: Range<u64>,
        layers: Layers,
    ) -> Result<(Content, u64)> {
        let Some((image, part)) = self.within(range.clone()).next() else {
            return Ok((Content::Zero, range.end));
        };
        let (offset, present) = image.locate(&part);
        if present == 0 {
            // The rest of the last sector.
            return Ok((Content::Zero, part.end));
        }
        let base = image.backing.as_ref().filter(|_| layers == Layers::Top);
        let status = image.backend.content_above(base, offset, present).await?;
        let flags = status.extent.status;
        let is_allocated = flags.contains(Status::ALLOCATED);
        let content = if layers == Layers::Allocated && !is_allocated {
            Content::Backing
        } else if flags.contains(Status::ZERO) {
            Content::Zero
        } else if flags.contains(Status::DATA) || layers != Layers::Top {
            Content::Data
        } else {
            Content::Backing
        };
        Ok((content, part.start + status.extent.len))
    }

    /// Bytes of data in all layers, as far as that is known without reading it.
    pub(super) async fn data_bytes(&self) -> Result<u64> {
        self.bytes_with(Layers::All, |content| content == Content::Data).await
    }

    /// Bytes that some layer has allocated.
    pub(crate) async fn allocated_bytes(&self) -> Result<u64> {
        self.bytes_with(Layers::Allocated, |content| content != Content::Backing).await
    }

    async fn bytes_with(&self, layers: Layers, counts: impl Fn(Content) -> bool) -> Result<u64> {
        let (mut at, mut data) = (0, 0);
        while at < self.size {
            let (content, end) = self.content(at..self.size, layers).await?;
            if counts(content) {
                data += end - at;
            }
            at = end;
        }
        Ok(data)
    }

    /// The images themselves.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.images.iter().map(|image| &image.backend)
    }

    /// Closes the images. Returns the first failure.
    pub(crate) async fn close(self) -> Result<()> {
        let mut result = Ok(());
        for image in self.images {
            let closed = image.backend.close().await;
            result = result.and(closed.map_err(Into::into));
        }
        result
    }
}

impl Image {
    fn new(backend: Backend, start: u64, part: Range<u64>) -> Image {
        let backing = backing_of(&backend.node());
        Image { backend, start, part, backing }
    }

    /// First byte behind it in the whole.
    fn end(&self) -> u64 {
        self.start + (self.part.end - self.part.start).next_multiple_of(SECTOR)
    }

    /// The image itself.
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Where in the image a range of the whole is, and how many bytes of it are there; what is
    /// missing pads the last sector and reads as zeroes.
    pub(super) fn locate(&self, range: &Range<u64>) -> (u64, u64) {
        let offset = self.part.start + (range.start - self.start);
        let present = self.part.end.saturating_sub(offset).min(range.end - range.start);
        (offset, present)
    }
}
