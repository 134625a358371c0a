//! How the descriptor of a file is used. Whether it goes around the page cache can change while the node
//! is open, and with it the alignment of requests.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::storage::Access;
use crate::engine::FileOptions;

/// How a descriptor is used.
pub(super) struct Usage {
    /// What never changes of it.
    access: Access,
    direct: AtomicBool,
    memory_alignment: AtomicU32,
    offset_alignment: AtomicU32,
}

impl Usage {
    /// The use of a descriptor that was opened with `access` and is handled as `options` say.
    pub(super) fn new(access: Access, options: FileOptions) -> Usage {
        Usage {
            access,
            direct: AtomicBool::new(access.direct),
            memory_alignment: AtomicU32::new(options.memory_alignment),
            offset_alignment: AtomicU32::new(options.offset_alignment),
        }
    }

    /// Takes a descriptor into use that was opened with another `access`. There are no requests.
    pub(super) fn switch(&self, access: Access, options: FileOptions) {
        self.direct.store(access.direct, Ordering::Release);
        self.memory_alignment.store(options.memory_alignment, Ordering::Release);
        self.offset_alignment.store(options.offset_alignment, Ordering::Release);
    }

    /// How to open the file.
    pub(super) fn access(&self) -> Access {
        Access { direct: self.direct.load(Ordering::Acquire), ..self.access }
    }

    /// How the engine is to use the descriptor.
    pub(super) fn file_options(&self) -> FileOptions {
        let Access { direct, aio, max_batch } = self.access();
        let (memory_alignment, offset_alignment) = self.alignment();
        FileOptions { direct, memory_alignment, offset_alignment, aio, max_batch }
    }

    /// Alignment of memory, and of offsets and lengths.
    pub(super) fn alignment(&self) -> (u32, u32) {
        let load = |alignment: &AtomicU32| alignment.load(Ordering::Acquire);
        (load(&self.memory_alignment), load(&self.offset_alignment))
    }
}
