//! Lossless conversions of integers that the standard library leaves fallible for small targets.

const _: () = assert!(usize::BITS == 64, "Cairn addresses images with 64-bit sizes only");

/// Conversion to `usize` that loses nothing on a 64-bit target.
pub trait AsUsize: Copy {
    /// The same number as `usize`.
    fn as_usize(self) -> usize;
}

impl AsUsize for u64 {
    #[allow(clippy::cast_possible_truncation)] // usize has 64 bits, see above
    fn as_usize(self) -> usize {
        self as usize
    }
}

impl AsUsize for u32 {
    fn as_usize(self) -> usize {
        self as usize
    }
}
