//! `measure`: the size that a new image would need.

use cairn_block::driver::{self, Measure};
use cairn_block::graph::Backend;
use cairn_block::options::parse_list;

use crate::error::{Error, Result};

/// What is measured.
#[derive(Clone, Copy)]
pub enum Subject<'i> {
    /// An empty virtual disk of so many bytes.
    Size(u64),
    /// An image that would be converted.
    Image(&'i Backend),
}

/// Measures a new image of `format`, created with `options` (a comma list).
pub async fn measure(format: &str, options: &str, subject: Subject<'_>) -> Result<Measure> {
    let driver = driver::find(format)
        .ok_or_else(|| Error::Usage(format!("there is no image format '{format}'")))?;
    let measure = driver.measure.ok_or_else(|| {
        Error::Usage(format!("the size of images of format '{format}' cannot be measured"))
    })?;
    let mut options = parse_list(options, None);
    let source = match subject {
        Subject::Size(size) => {
            options.insert("size", size);
            None
        }
        Subject::Image(image) => Some(image),
    };
    Ok(measure(options, source).await?)
}
