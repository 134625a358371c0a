//! `resize`: change the size of the virtual disk.

use cairn_block::driver::{Prealloc, Resize};
use cairn_block::graph::Backend;

use crate::error::{Error, Result};

/// The size asked for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSize {
    /// This size.
    Exactly(u64),
    /// So much more.
    Grow(u64),
    /// So much less.
    Shrink(u64),
}

impl NewSize {
    /// The new size of an image that has `current` bytes; `None` if that is below 0 or too large.
    fn of(self, current: u64) -> Option<u64> {
        match self {
            NewSize::Exactly(size) => Some(size),
            NewSize::Grow(by) => current.checked_add(by),
            NewSize::Shrink(by) => current.checked_sub(by),
        }
    }
}

/// Resizes `image`. Data behind the new end is lost, so that needs `allow_shrink`.
pub async fn resize(
    image: &Backend,
    size: NewSize,
    prealloc: Prealloc,
    allow_shrink: bool,
) -> Result<()> {
    let new = new_size(image, size, prealloc, allow_shrink)?;
    image.resize(new, Resize { exact: true, prealloc, zero_new: false }).await?;
    Ok(())
}

/// The size that [`resize`] would give `image`, in bytes.
pub fn new_size(
    image: &Backend,
    size: NewSize,
    prealloc: Prealloc,
    allow_shrink: bool,
) -> Result<u64> {
    let current = image.size();
    let Some(new) = size.of(current).filter(|&new| new > 0) else {
        return Err(Error::Usage(format!(
            "the new size must be above 0; the image has {current} bytes now"
        )));
    };
    if new <= current && prealloc != Prealloc::Off {
        return Err(Error::Usage("preallocation is for growing images only".to_owned()));
    }
    if new < current && !allow_shrink {
        return Err(Error::Usage(format!(
            "shrinking from {current} to {new} bytes deletes all data behind the new end; \
             use --shrink if that is what you want"
        )));
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_present_size() {
        assert_eq!(NewSize::Exactly(5).of(10), Some(5));
        assert_eq!(NewSize::Grow(5).of(10), Some(15));
        assert_eq!(NewSize::Shrink(10).of(10), Some(0));
        assert_eq!(NewSize::Shrink(11).of(10), None);
        assert_eq!(NewSize::Grow(u64::MAX).of(10), None);
    }
}
