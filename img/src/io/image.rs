//! Opening the image that commands work on.

use std::sync::Arc;

use cairn_block::driver::{self, Perm};
use cairn_block::engine::Aio;
use cairn_block::graph::{Backend, Graph, Node, NodeFlags, OpenOptions};
use cairn_block::options::{CacheMode, DetectZeroes, Dict};
use tempfile::TempPath;

use crate::error::{Error, Result};
use crate::ops::image::image_options;

/// What this program is called as a user of nodes.
const USER: &str = "I/O exerciser";

/// How an image is to be opened.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Its file name, or with `image_opts` its options as a comma list.
    pub name: Option<String>,
    /// Its format, if it is known.
    pub format: Option<String>,
    /// `name` is a list of options.
    pub image_opts: bool,
    /// Further options.
    pub options: Dict,
    /// Writes are refused.
    pub read_only: bool,
    /// Writes go to a temporary overlay.
    pub snapshot: bool,
    /// Cache mode.
    pub cache: CacheMode,
    /// Reads store in the image what comes from its backing file.
    pub copy_on_read: bool,
    /// Who makes the system calls.
    pub aio: Aio,
    /// Discards reach the file.
    pub unmap: bool,
    /// Others may be writing to the image.
    pub force_share: bool,
    /// What becomes of writes of zeroes.
    pub detect_zeroes: DetectZeroes,
}

impl Default for Opening {
    fn default() -> Opening {
        Opening {
            name: None,
            format: None,
            image_opts: false,
            options: Dict::new(),
            read_only: false,
            snapshot: false,
            cache: CacheMode::Writethrough,
            copy_on_read: false,
            aio: Aio::Auto,
            unmap: true,
            force_share: false,
            detect_zeroes: DetectZeroes::Off,
        }
    }
}

/// Reads the word for who makes the system calls.
pub fn aio(word: &str) -> Result<Aio> {
    match word {
        "threads" => Ok(Aio::Threads),
        "native" => Ok(Aio::Native),
        "io_uring" => Ok(Aio::IoUring),
        _ => Err(Error::Usage(format!(
            "there is no aio mode '{word}'; there are threads, native and io_uring"
        ))),
    }
}

/// Reads the word for what discards do; true if they reach the file.
pub fn unmap(word: &str) -> Result<bool> {
    match word {
        "unmap" | "on" => Ok(true),
        "ignore" | "off" => Ok(false),
        _ => Err(Error::Usage(format!(
            "there is no discard mode '{word}'; there are ignore (off) and unmap (on)"
        ))),
    }
}

/// The image that commands work on.
pub(super) struct Image {
    /// This program's end of the graph.
    pub(super) backend: Backend,
    /// The node that the user means: the image, or the temporary overlay.
    pub(super) node: Arc<Node>,
    /// The temporary overlay, deleted when this is dropped.
    scratch: Option<TempPath>,
}

impl Opening {
    /// The same for the image `name`.
    pub(super) fn of(&self, name: &str) -> Opening {
        Opening { name: Some(name.to_owned()), ..self.clone() }
    }

    /// Opens the image.
    pub(super) async fn open(&self, graph: &Arc<Graph>) -> Result<Image> {
        let opened = self.try_open(graph).await;
        opened.map_err(|error| match self.name.as_ref().filter(|_| !self.image_opts) {
            Some(name) => Error::Usage(format!("can't open device {name}: {error}")),
            None => Error::Usage(format!("can't open: {error}")),
        })
    }

    async fn try_open(&self, graph: &Arc<Graph>) -> Result<Image> {
        let (node, scratch) = self.open_node(graph).await?;
        let top = if self.copy_on_read {
            let above = node_below("copy-on-read", &node);
            let flags = self.flags(self.read_only);
            graph.open(OpenOptions { filename: None, options: above, flags }).await?
        } else {
            Arc::clone(&node)
        };
        let mut used = Perm::CONSISTENT_READ;
        used.set(Perm::WRITE, !self.read_only);
        let mut backend = Backend::new(graph, top, USER, used, Perm::all())?;
        backend.set_write_through(self.cache.writethrough() && !self.snapshot);
        Ok(Image { backend, node, scratch })
    }

    /// Opens the image as a node that nobody uses yet, with the temporary overlay if there is one: its
    /// file has to live as long as the node.
    pub async fn open_node(&self, graph: &Arc<Graph>) -> Result<(Arc<Node>, Option<TempPath>)> {
        let what = self.describe()?;
        if self.snapshot {
            self.overlay(graph, what).await
        } else {
            Ok((graph.open(what).await?, None))
        }
    }

    fn describe(&self) -> Result<OpenOptions> {
        let mut options = self.options.clone();
        let mut filename = None;
        match &self.name {
            Some(list) if self.image_opts => options = image_options(list)?,
            name => filename.clone_from(name),
        }
        if let Some(format) = &self.format {
            options.insert("driver", format.as_str());
        }
        Ok(OpenOptions { filename, options, flags: self.flags(self.read_only || self.snapshot) })
    }

    fn flags(&self, read_only: bool) -> NodeFlags {
        NodeFlags {
            read_only,
            force_share: self.force_share,
            direct: self.cache.direct(),
            no_flush: self.cache.no_flush(),
            unmap: self.unmap,
            aio: self.aio,
            detect_zeroes: self.detect_zeroes,
            ..NodeFlags::default()
        }
    }

    /// Opens the image below a new overlay, which has the image's size.
    async fn overlay(
        &self,
        graph: &Arc<Graph>,
        what: OpenOptions,
    ) -> Result<(Arc<Node>, Option<TempPath>)> {
        let setup = |source| Error::Setup { what: "create a temporary overlay", source };
        let base = graph.open(what).await?;
        // Overlays can become large, which is what the other temporary directory is for.
        let file = tempfile::Builder::new().prefix("cairn.").tempfile_in("/var/tmp");
        let scratch = file.or_else(|_| tempfile::NamedTempFile::new()).map_err(setup)?;
        let scratch = scratch.into_temp_path();
        let filename = scratch.to_string_lossy().into_owned();
        let qcow2 = driver::find("qcow2").and_then(|info| info.create);
        let create = qcow2.ok_or_else(|| Error::Usage("overlays need qcow2".to_owned()))?;
        create(graph, &filename, Dict::from([("size", base.size())])).await?;
        let mut options = Dict::from([("driver", "qcow2")]);
        let file = Dict::from([("driver", "file"), ("filename", filename.as_str())]);
        options.insert("file", file);
        options.insert("backing", base.name());
        let flags = NodeFlags { direct: false, no_flush: true, ..self.flags(self.read_only) };
        let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
        Ok((node, Some(scratch)))
    }
}

impl Image {
    /// Makes sure that this program may do what `needs` says, for good.
    pub(super) fn require(&self, needs: Perm) -> Result<()> {
        let (used, shared) = self.backend.permissions();
        if used.contains(needs) {
            return Ok(());
        }
        Ok(self.backend.set_permissions(used | needs, shared)?)
    }

    /// Gives the image up; reports what goes wrong with that.
    pub(super) async fn close(self) -> Result<()> {
        let Image { backend, node, scratch } = self;
        drop(node);
        let closed = backend.close().await;
        drop(scratch);
        Ok(closed?)
    }
}

/// Options of a filter `driver` above `node`.
fn node_below(driver: &'static str, node: &Node) -> Dict {
    Dict::from([("driver", driver), ("file", node.name())])
}
