//! What `compare` prints.

use crate::ops::compare::Verdict;

/// The line before the end of the longer image is examined.
pub const SIZE_WARNING: &str = "Warning: Image size mismatch!\n";

/// The line for the verdict.
pub fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Identical => "Images are identical.\n".to_owned(),
        Verdict::ContentDiffers { offset } => format!("Content mismatch at offset {offset}!\n"),
        Verdict::SizeDiffers => "Strict mode: Image size mismatch!\n".to_owned(),
        Verdict::StatusDiffers { offset } => {
            format!("Strict mode: Offset {offset} block status mismatch!\n")
        }
    }
}
