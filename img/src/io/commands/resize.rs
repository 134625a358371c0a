//! `truncate`: change the size.

use cairn_block::driver::{Prealloc, Resize};
use futures_util::future::LocalBoxFuture;

use crate::io::command::{Call, Fault};
use crate::io::number::bytes;
use crate::io::session::Session;

pub(in crate::io) const DETAILS: &str = "
  -m MODE     storage for the new part: off (default), metadata, falloc or full

Example: truncate -m metadata 10G
";

pub(in crate::io) fn truncate<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("m:")?;
        let prealloc = match flags.value('m') {
            None | Some("off") => Prealloc::Off,
            Some("metadata") => Prealloc::Metadata,
            Some("falloc") => Prealloc::Falloc,
            Some("full") => Prealloc::Full,
            Some(other) => {
                return Err(Fault::Error(format!(
                    "there is no preallocation mode '{other}'; there are off, metadata, falloc \
                     and full"
                )));
            }
        };
        let [size] = flags.operands[..] else { return Err(Fault::Usage(None)) };
        let size = bytes(size)?;
        let how = Resize { exact: false, prealloc, zero_new: false };
        Ok(session.image()?.backend.resize(size, how).await?)
    })
}
