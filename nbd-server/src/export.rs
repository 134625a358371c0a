//! Exports: the nodes that clients can use, under the names by which they know them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use cairn_block::dirty_bitmap::DirtyBitmap;
use cairn_block::driver::Perm;
use cairn_block::graph::{Backend, Graph, Node, backing_of, skip_filters};
use cairn_block::options::CacheMode;
use cairn_nbd_wire::{BlockSizes, ExportFlags, MAX_PAYLOAD, MAX_STRING, MetaContext};

use crate::error::{Error, Result};

/// Exported sizes are multiples of this, in bytes.
const SECTOR: u64 = 512;
/// Length of requests that works best, in bytes, unless the node has larger blocks.
const PREFERRED_SIZE: u32 = 4096;

/// How a node is to be exported.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// By which name; at most [`MAX_STRING`] bytes. The empty name is the default export.
    pub name: String,
    /// What it is, for people; at most [`MAX_STRING`] bytes.
    pub description: Option<String>,
    /// Clients may write.
    pub writable: bool,
    /// Several clients at a time can rely on one's flush for the writes of all.
    pub multi_conn: bool,
    /// Clients can ask how deep in a chain of overlays data lies.
    pub allocation_depth: bool,
    /// Dirty bitmaps whose content clients can ask for.
    pub bitmaps: Vec<String>,
    /// How writes are cached; a write-through mode makes every write durable.
    pub cache: CacheMode,
}

/// A node that clients can use.
pub struct Export {
    name: String,
    description: Option<String>,
    backend: Backend,
    writable: bool,
    multi_conn: bool,
    contexts: Vec<Context>,
}

/// A metadata context of an export.
pub(crate) struct Context {
    pub(crate) name: MetaContext,
    /// The number by which sessions refer to it.
    pub(crate) id: u32,
    pub(crate) source: Source,
}

/// What a context tells.
pub(crate) enum Source {
    /// Holes and zeroes.
    Allocation,
    /// Depth of the layer that holds data.
    Depth,
    /// Marks of a dirty bitmap.
    Bitmap(Arc<DirtyBitmap>),
}

impl Export {
    /// Exports `node`. Nobody else may write to it meanwhile, or change its size, unless it was opened
    /// so.
    pub async fn new(
        graph: &Arc<Graph>,
        node: Arc<Node>,
        options: ExportOptions,
    ) -> Result<Export> {
        let ExportOptions { name, description, .. } = &options;
        for (what, text) in
            [("the export name", Some(name)), ("the description", description.as_ref())]
        {
            if text.is_some_and(|text| text.len() > MAX_STRING) {
                return Err(Error::Usage(format!("{what} is longer than {MAX_STRING} bytes")));
            }
        }
        let mut contexts =
            vec![Context { name: MetaContext::Allocation, id: 0, source: Source::Allocation }];
        if options.allocation_depth {
            let name = MetaContext::AllocationDepth;
            contexts.push(Context { name, id: 1, source: Source::Depth });
        }
        for (name, id) in options.bitmaps.iter().zip(2..) {
            let bitmap = find_bitmap(&node, name, options.writable).await?;
            let name = MetaContext::DirtyBitmap(name.clone());
            if name.to_string().len() > MAX_STRING {
                return Err(Error::Usage(format!("the name of bitmap '{name}' is too long")));
            }
            if contexts.iter().any(|context| context.name == name) {
                return Err(Error::Usage(format!("'{name}' is given twice")));
            }
            contexts.push(Context { name, id, source: Source::Bitmap(bitmap) });
        }
        let mut used = Perm::CONSISTENT_READ;
        used.set(Perm::WRITE, options.writable);
        let user = format!("export '{name}'");
        let mut backend = Backend::new(graph, node, &user, used, Perm::all() - Perm::RESIZE)?;
        backend.set_write_through(options.writable && options.cache.writethrough());
        Ok(Export {
            name: options.name,
            description: options.description,
            backend,
            writable: options.writable,
            multi_conn: options.multi_conn,
            contexts,
        })
    }

    /// The name by which clients know it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is, for people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Present size in bytes.
    pub fn size(&self) -> u64 {
        self.backend.size() / SECTOR * SECTOR
    }

    /// Whether clients may write.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Its end of the graph.
    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Its metadata contexts, in the order in which they are listed and answered.
    pub(crate) fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// What it is and can do, but for what depends on the session.
    pub(crate) fn flags(&self) -> ExportFlags {
        let mut flags = ExportFlags::HAS_FLAGS
            | ExportFlags::SEND_FLUSH
            | ExportFlags::SEND_FUA
            | ExportFlags::SEND_CACHE;
        if self.writable {
            flags |= ExportFlags::SEND_TRIM
                | ExportFlags::SEND_WRITE_ZEROES
                | ExportFlags::SEND_FAST_ZERO;
        } else {
            flags |= ExportFlags::READ_ONLY;
        }
        flags.set(ExportFlags::CAN_MULTI_CONN, self.multi_conn);
        flags
    }

    /// Its true block sizes.
    pub(crate) fn block_sizes(&self) -> BlockSizes {
        let limits = self.backend.node().driver().limits();
        let min = limits.request_alignment.max(1);
        let max = match limits.max_transfer {
            0 => MAX_PAYLOAD,
            max => u32::try_from(max).unwrap_or(MAX_PAYLOAD).min(MAX_PAYLOAD),
        };
        BlockSizes { min, preferred: PREFERRED_SIZE.max(min), max: (max / min * min).max(min) }
    }

    /// Gives the node up. If nobody else uses it, it is flushed and closed.
    pub async fn close(self) -> Result<()> {
        Ok(self.backend.close().await?)
    }
}

/// Finds a bitmap in the chain of overlays: in the top layer, else in the next one that has it.
async fn find_bitmap(node: &Arc<Node>, name: &str, writable: bool) -> Result<Arc<DirtyBitmap>> {
    let mut layer = Some(skip_filters(Arc::clone(node)));
    let mut is_top = true;
    while let Some(node) = layer {
        let infos = match node.driver().bitmaps().await {
            Ok(infos) => infos,
            Err(error) if error.is_unsupported() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if let Some(info) = infos.iter().find(|info| info.name == name) {
            if info.enabled && is_top && !writable && !node.is_read_only() {
                return Err(Error::Usage(format!(
                    "bitmap '{name}' records changes of a writable node, which a read-only export \
                     cannot show"
                )));
            }
            return Ok(node.driver().live_bitmap(name.to_owned()).await?);
        }
        layer = backing_of(&node).map(skip_filters);
        is_top = false;
    }
    Err(Error::Usage(format!("there is no bitmap '{name}' in the image or its backing files")))
}

/// The exports of a server. Sessions look them up without a lock.
#[derive(Default)]
pub struct Exports(ArcSwap<Vec<Arc<Export>>>);

impl Exports {
    /// Adds an export. Fails if its name is taken.
    pub fn add(&self, export: Export) -> Result<Arc<Export>> {
        let export = Arc::new(export);
        if self.find(export.name()).is_some() {
            return Err(Error::Usage(format!("there is an export '{}' already", export.name())));
        }
        self.0.rcu(|exports| {
            let mut exports = Vec::clone(exports);
            exports.push(Arc::clone(&export));
            exports
        });
        Ok(export)
    }

    /// Takes an export away. Sessions that use it go on.
    pub fn remove(&self, name: &str) -> Option<Arc<Export>> {
        let export = self.find(name)?;
        self.0.rcu(|exports| {
            exports.iter().filter(|other| !Arc::ptr_eq(other, &export)).cloned().collect::<Vec<_>>()
        });
        Some(export)
    }

    /// The export called `name`.
    pub fn find(&self, name: &str) -> Option<Arc<Export>> {
        self.0.load().iter().find(|export| export.name() == name).cloned()
    }

    /// All exports in the order in which they were added.
    pub fn list(&self) -> Arc<Vec<Arc<Export>>> {
        self.0.load_full()
    }
}
