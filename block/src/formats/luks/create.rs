//! Creating and measuring images.

use std::sync::Arc;

use super::options::CreateOptions;
use super::{LUKS, SECTOR};
use crate::crypto::luks::{Area, NewVolume};
use crate::driver::{DriverFuture, Measure, Prealloc, Resize};
use crate::error::{Error, Result};
use crate::formats::new_file::{Created, FileName, open_file};
use crate::graph::{Backend, Graph};
use crate::options::filename::locate;
use crate::options::{Dict, OptionError};
use crate::secret::Secret;

/// An image whose options agree with each other.
struct NewImage {
    volume: NewVolume,
    /// Length of the file in bytes.
    file_size: u64,
    prealloc: Prealloc,
}

impl NewImage {
    /// Checks the options; `size` is that of the disk.
    fn new(options: &CreateOptions, size: u64) -> Result<NewImage> {
        let detached = options.detached_header == Some(true);
        let volume = options.volume_options().volume("", detached)?;
        let prealloc = options.preallocation.map_or(Prealloc::Off, Prealloc::from);
        if detached && size > 0 {
            return Err(Error::Option(OptionError::Conflict {
                name: "detached-header".to_owned(),
                problem: "leaves no room for a disk in the file: give it the size 0, and make the \
                          payload as a raw image of the size that the disk is to have"
                    .to_owned(),
            }));
        }
        let file_size = size
            .checked_next_multiple_of(SECTOR)
            .and_then(|size| size.checked_add(volume.header_len()))
            .filter(|&size| i64::try_from(size).is_ok())
            .ok_or_else(|| {
                let expected = "a size that an image can have";
                Error::Option(OptionError::invalid("size", &size.into(), expected))
            })?;
        Ok(NewImage { volume, file_size, prealloc })
    }

    async fn write(&self, file: &Backend, passphrase: &Secret) -> Result<()> {
        // What is between the parts of the header is to be zero, whatever was there.
        file.resize(0, Resize { exact: false, ..Resize::default() }).await?;
        let how = Resize { exact: false, prealloc: self.prealloc, zero_new: false };
        file.resize(self.file_size, how).await?;
        let area = Area { node: file.node(), offset: 0, len: self.volume.header_len() };
        self.volume.format(&area, passphrase).await
    }
}

fn key_secret(options: &CreateOptions) -> Result<&str> {
    options
        .key_secret
        .as_deref()
        .ok_or_else(|| Error::Option(OptionError::Missing { name: "key-secret".to_owned() }))
}

/// Makes an empty luks image of the content of `file`. `options` are the creation options of the
/// format, without any of the protocol's.
///
/// When this fails, `file` may hold anything, but no image that can be opened.
pub async fn format_node(graph: &Graph, file: &Backend, options: Dict) -> Result<()> {
    let options = CreateOptions::parse(options, &format!("format '{}'", LUKS.name))?;
    let passphrase = graph.secrets().find(key_secret(&options)?)?;
    NewImage::new(&options, options.size.0)?.write(file, &passphrase).await
}

/// `DriverInfo::create` of luks. Options that the format does not know go to the protocol.
pub(super) fn create<'a>(
    graph: &'a Arc<Graph>,
    filename: &'a str,
    mut options: Dict,
) -> DriverFuture<'a, ()> {
    Box::pin(async move {
        let own = CreateOptions::take(&mut options)?;
        let image = NewImage::new(&own, own.size.0)?;
        let passphrase = graph.secrets().find(key_secret(&own)?)?;
        options.insert("size", 0u64);
        let protocol = locate(filename, None)?.driver;
        let created = Created::new(graph, protocol, filename, options).await?;
        let result = async {
            let file = open_file(graph, FileName::Any(filename)).await?;
            let written = image.write(&file, &passphrase).await;
            written.and(file.close().await)
        }
        .await;
        if result.is_err() {
            created.remove();
        }
        result
    })
}

/// `DriverInfo::measure` of luks. With a source its size counts, else the option `size`.
pub(super) fn measure(options: Dict, source: Option<&Backend>) -> Result<Measure> {
    let options = CreateOptions::parse(options, &format!("format '{}'", LUKS.name))?;
    key_secret(&options)?;
    let size = source.map_or(options.size.0, Backend::size);
    let file_size = NewImage::new(&options, size)?.file_size;
    Ok(Measure { required: file_size, fully_allocated: file_size, bitmaps: None })
}
