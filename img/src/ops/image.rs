//! Opening images as users name them.

use std::sync::Arc;

use cairn_block::driver::Perm;
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::options::{CacheMode, Dict, expand, parse_list};

use crate::error::Result;

/// What this program is called as a user of nodes.
const USER: &str = "image tool";

/// An image as the user names it.
#[derive(Clone, Debug)]
pub enum ImageSpec {
    /// A file name, possibly with a protocol, and the format if it is known.
    File {
        /// The name.
        name: String,
        /// The format; `None` to find out by probing.
        format: Option<String>,
    },
    /// Options of the node and its children, as `--image-opts` takes them.
    Options(String),
}

/// What is to be done with an image.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// It is written to; otherwise it is opened read-only.
    pub write: bool,
    /// Most of what is written comes in large pieces, which need not stay in the page cache.
    pub fill: bool,
    /// Its size may change.
    pub resize: bool,
    /// Only its metadata is looked at, and its backing file is left alone.
    pub metadata_only: bool,
    /// Its backing file is left alone.
    pub no_backing: bool,
    /// It may be damaged: it is opened to be checked.
    pub check: bool,
    /// Others may be writing to it.
    pub force_share: bool,
    /// Nobody else may write to it meanwhile.
    pub exclusive: bool,
    /// Cache mode.
    pub cache: CacheMode,
}

impl Default for Access {
    /// Reading through the page cache.
    fn default() -> Access {
        Access {
            write: false,
            fill: false,
            resize: false,
            metadata_only: false,
            no_backing: false,
            check: false,
            force_share: false,
            exclusive: false,
            cache: CacheMode::Writeback,
        }
    }
}

impl Access {
    /// Reading all of it.
    pub fn read(cache: CacheMode, force_share: bool) -> Access {
        Access { force_share, cache, ..Access::default() }
    }

    pub(super) fn flags(self) -> NodeFlags {
        NodeFlags {
            read_only: !self.write,
            force_share: self.force_share,
            direct: self.cache.direct(),
            no_flush: self.cache.no_flush(),
            unmap: true,
            no_io: self.metadata_only,
            no_backing: self.metadata_only || self.no_backing,
            check: self.check,
            bulk: self.fill,
            ..NodeFlags::default()
        }
    }

    fn shared(self) -> Perm {
        if self.exclusive && !self.force_share {
            Perm::CONSISTENT_READ | Perm::WRITE_UNCHANGED
        } else {
            Perm::all()
        }
    }

    fn permissions(self) -> Perm {
        let mut perm = Perm::empty();
        perm.set(Perm::CONSISTENT_READ, !self.metadata_only);
        perm.set(Perm::WRITE, self.write);
        perm.set(Perm::RESIZE, self.resize);
        perm
    }
}

impl ImageSpec {
    /// A file name with its format, or options, as the command line gives them.
    pub fn new(name: String, format: Option<String>, image_opts: bool) -> ImageSpec {
        if image_opts { ImageSpec::Options(name) } else { ImageSpec::File { name, format } }
    }

    /// What messages call the image.
    pub fn label(&self) -> &str {
        match self {
            ImageSpec::File { name, .. } => name,
            ImageSpec::Options(text) => text,
        }
    }

    /// Opens the image.
    pub async fn open(&self, graph: &Arc<Graph>, access: &Access) -> Result<Backend> {
        self.open_with(graph, access, Dict::new()).await
    }

    /// Opens the image; `extra` has options for the node that the user did not give.
    pub async fn open_with(
        &self,
        graph: &Arc<Graph>,
        access: &Access,
        extra: Dict,
    ) -> Result<Backend> {
        let mut what = self.describe(access)?;
        what.options.merge_defaults(extra);
        open(graph, access, what).await
    }

    /// What is to be opened.
    pub(super) fn describe(&self, access: &Access) -> Result<OpenOptions> {
        let flags = access.flags();
        Ok(match self {
            ImageSpec::File { name, format } => {
                OpenOptions::file(name.as_str(), format.as_deref(), flags)
            }
            ImageSpec::Options(text) => {
                OpenOptions { filename: None, options: image_options(text)?, flags }
            }
        })
    }
}

/// Opens an image that is described already.
pub(super) async fn open(
    graph: &Arc<Graph>,
    access: &Access,
    what: OpenOptions,
) -> Result<Backend> {
    let node = graph.open(what).await?;
    let mut image = Backend::new(graph, node, USER, access.permissions(), access.shared())?;
    image.set_write_through(access.write && access.cache.writethrough());
    Ok(image)
}

/// Image options as a comma list; a first part without a key is the `file` node.
pub(crate) fn image_options(text: &str) -> Result<Dict> {
    Ok(expand(parse_list(text, Some("file"))).map_err(cairn_block::Error::from)?)
}
