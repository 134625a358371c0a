//! Flags that every node has, and how children inherit them.

use crate::driver::Role;
use crate::engine::Aio;
use crate::error::Result;
use crate::options::{DetectZeroes, Discard, NodeOptions};

/// Flags of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeFlags {
    /// Writes are refused.
    pub read_only: bool,
    /// A protocol opens its storage writable only while something writes.
    pub auto_read_only: bool,
    /// Others may do anything to the storage meanwhile; read-only nodes only.
    pub force_share: bool,
    /// Bypass the page cache (`cache.direct`).
    pub direct: bool,
    /// Ignore flushes (`cache.no-flush`).
    pub no_flush: bool,
    /// Discards, and zero writes that may unmap, reach the storage.
    pub unmap: bool,
    /// Who makes a file's system calls, unless its own options say.
    pub aio: Aio,
    /// What to do with writes of zeroes.
    pub detect_zeroes: DetectZeroes,
    /// The whole image is about to be written: large writes may go around the page cache.
    pub bulk: bool,
    /// Only metadata will be read.
    pub no_io: bool,
    /// Backing files are not opened.
    pub no_backing: bool,
    /// Opened to be checked: damage that is repairable does not prevent opening.
    pub check: bool,
}

impl NodeFlags {
    /// What a child with `role` starts from; its own options may override.
    pub fn inherited(self, role: Role) -> NodeFlags {
        let cow = role.contains(Role::COW);
        NodeFlags {
            read_only: self.read_only || cow,
            auto_read_only: self.auto_read_only && !cow,
            // Formats decide themselves what reaches their file.
            unmap: !cow,
            detect_zeroes: DetectZeroes::Off,
            no_io: self.no_io && !role.contains(Role::METADATA),
            no_backing: self.no_backing && !role.contains(Role::DATA),
            check: false,
            ..self
        }
    }
}

impl NodeFlags {
    /// These flags with what a node's own options say.
    pub fn with(mut self, options: &NodeOptions) -> Result<NodeFlags> {
        self.read_only = options.read_only.unwrap_or(self.read_only);
        self.auto_read_only = options.auto_read_only.unwrap_or(self.auto_read_only);
        self.force_share = options.force_share.unwrap_or(self.force_share);
        self.direct = options.cache_direct.unwrap_or(self.direct);
        self.no_flush = options.cache_no_flush.unwrap_or(self.no_flush);
        self.unmap = options.discard.map_or(self.unmap, |discard| discard == Discard::Unmap);
        self.detect_zeroes = options.detect_zeroes.unwrap_or(self.detect_zeroes);
        let discard = if self.unmap { Discard::Unmap } else { Discard::Ignore };
        options.check(self.read_only, discard)?;
        Ok(self)
    }
}
