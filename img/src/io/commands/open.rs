//! `open` and `close`.

use cairn_block::engine::Aio;
use cairn_block::options::{CacheMode, Dict, expand, join_lists, parse_list};
use futures_util::future::LocalBoxFuture;

use crate::cli::args::cache_or;
use crate::io::command::{Call, Fault};
use crate::io::image::{Opening, aio, unmap};
use crate::io::session::Session;

pub(in crate::io) const DETAILS: &str = "
  -C          store in the image what reads find in its backing file
  -d MODE     whether discards reach the file: unmap (default) or ignore
  -i MODE     how requests reach the kernel: threads, native or io_uring
  -k          the same as -i native
  -n          bypass the page cache; the same as -t none
  -o OPTIONS  options of the image, as key=value,…
  -r          read-only
  -s          write to a temporary overlay
  -t MODE     cache mode (default: writethrough)
  -U          even if another program is writing to it

Example: open -n -o driver=raw /tmp/data
";

pub(in crate::io) fn open<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("Cd:i:kno:rst:U")?;
        let cache = if flags.has('n') { Some("none") } else { flags.value('t') };
        let aio_word = if flags.has('k') { Some("native") } else { flags.value('i') };
        let lists: Vec<&str> = flags.values('o').collect();
        if session.image_opts && !lists.is_empty() {
            let text = "--image-opts and 'open -o' are mutually exclusive";
            return Err(Fault::Result(text.to_owned()));
        }
        let mut opening = Opening {
            image_opts: session.image_opts,
            read_only: flags.has('r'),
            snapshot: flags.has('s'),
            cache: cache_or(cache, CacheMode::Writethrough)?,
            copy_on_read: flags.has('C'),
            aio: aio_word.map_or(Ok(Aio::Auto), aio)?,
            unmap: flags.value('d').map_or(Ok(true), unmap)?,
            force_share: flags.has('U'),
            options: options(&lists)?,
            ..Opening::default()
        };
        match flags.operands[..] {
            [name] => opening.name = Some(name.to_owned()),
            [] if !opening.options.is_empty() => {}
            _ => return Err(Fault::Usage(None)),
        }
        if session.is_open() {
            return Err(Fault::Note("file open already, try 'help close'".to_owned()));
        }
        Ok(session.open(&opening).await?)
    })
}

/// The options in comma lists.
pub(super) fn options(lists: &[&str]) -> Result<Dict, Fault> {
    let options = join_lists(lists).and_then(|list| expand(parse_list(&list, None)));
    options.map_err(|error| Fault::Error(error.to_string()))
}

pub(in crate::io) fn close<'a>(
    session: &'a mut Session,
    _: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move { Ok(session.close().await?) })
}
