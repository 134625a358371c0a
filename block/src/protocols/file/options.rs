//! Options of the drivers `file` and `host_device`.

use super::storage::Access;
use crate::driver::Prealloc;
use crate::engine::Aio;
use crate::error::{Error, Result};
use crate::graph::NodeFlags;
use crate::options::{OptionError, Size};

crate::option_words! {
    /// Who makes the system calls.
    pub(super) enum AioWord {
        /// A pool of threads.
        Threads = "threads",
        /// The kernel's asynchronous interface; needs cache.direct=on.
        Native = "native",
        /// The kernel's ring interface.
        IoUring = "io_uring",
    }
}

crate::option_words! {
    /// Whether to take image locks.
    pub(super) enum Locking {
        /// Where the system has suitable locks.
        Auto = "auto",
        /// No.
        Off = "off",
        /// Yes; opening fails where that is not possible.
        On = "on",
    }
}

crate::option_words! {
    /// Storage for a new file, or for a volume that has no tables of its own.
    pub(crate) enum Preallocation {
        /// None.
        Off = "off",
        /// Reserved.
        Falloc = "falloc",
        /// Written.
        Full = "full",
    }
}

impl From<Preallocation> for Prealloc {
    fn from(mode: Preallocation) -> Prealloc {
        match mode {
            Preallocation::Off => Prealloc::Off,
            Preallocation::Falloc => Prealloc::Falloc,
            Preallocation::Full => Prealloc::Full,
        }
    }
}

crate::options! {
    /// Options for opening.
    pub(super) struct RuntimeOptions {
        /// Path of the file or device.
        "filename" => filename: String [strong],
        /// Who makes the system calls; by default io_uring where the system allows it, else threads.
        "aio" => aio: Option<AioWord>,
        /// Requests that enter the kernel together at most (0: the engine decides).
        "aio-max-batch" => aio_max_batch: u64 = "0",
        /// Whether to take image locks.
        "locking" => locking: Locking = "auto",
        /// Manager for persistent reservations (not supported).
        "pr-manager" => pr_manager: Option<String>,
        /// Drop the page cache when an image is taken over from another host.
        "drop-cache" => drop_cache: bool = "on",
        /// Check that the page cache was dropped (not supported).
        "x-check-cache-dropped" => check_cache_dropped: bool = "off",
    }
}

impl RuntimeOptions {
    /// Refuses what excludes each other or cannot be done.
    pub(super) fn check(&self, flags: NodeFlags) -> Result<()> {
        if self.aio(flags) == Aio::Native && !flags.direct {
            return Err(Error::Option(OptionError::Conflict {
                name: "aio".to_owned(),
                problem: "can only be 'native' together with cache.direct=on".to_owned(),
            }));
        }
        if self.pr_manager.is_some() {
            let what = "persistent reservations (pr-manager) are not supported";
            return Err(Error::unsupported(&self.filename, what));
        }
        if self.check_cache_dropped {
            let what = "checking that the page cache was dropped (x-check-cache-dropped) is not \
                        supported";
            return Err(Error::unsupported(&self.filename, what));
        }
        Ok(())
    }

    fn aio(&self, flags: NodeFlags) -> Aio {
        match self.aio {
            None => flags.aio,
            Some(AioWord::Threads) => Aio::Threads,
            Some(AioWord::Native) => Aio::Native,
            Some(AioWord::IoUring) => Aio::IoUring,
        }
    }

    pub(super) fn access(&self, flags: NodeFlags) -> Access {
        let max_batch = u32::try_from(self.aio_max_batch).unwrap_or(u32::MAX);
        Access { direct: flags.direct, aio: self.aio(flags), max_batch }
    }
}

crate::options! {
    /// Options for creating a file, in the order in which tools print them.
    pub(super) struct CreateOptions {
        /// Size of the file.
        "size" => size: Size = "0",
        /// Turn copy-on-write off (btrfs).
        "nocow" => nocow: Option<bool>,
        /// Storage that the file gets at once, reserved (falloc) or written (full).
        "preallocation" => preallocation: Option<Preallocation>,
        /// Unit in which the file system is to allocate, on file systems with such hints (1M unless
        /// given; 0 for none).
        "extent_size_hint" => extent_size_hint: Option<Size>,
    }
}

crate::options! {
    /// Options for preparing a device.
    pub(super) struct DeviceCreateOptions {
        /// Size that the device must at least have.
        "size" => size: Size = "0",
    }
}
