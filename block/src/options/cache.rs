//! Cache modes: the names that bundle how a tool or device uses the host's page cache and flushes.

crate::option_words! {
    /// A cache mode as `-t`, `-T` and `--cache` name it.
    pub enum CacheMode {
        /// No page cache; the device reports a volatile write cache.
        None = "none" | "off",
        /// Page cache, completed writes may still be volatile.
        Writeback = "writeback",
        /// Page cache, each write is flushed before it completes.
        Writethrough = "writethrough",
        /// No page cache, each write is flushed before it completes.
        Directsync = "directsync",
        /// Page cache, flushes are ignored.
        Unsafe = "unsafe",
    }
}

impl CacheMode {
    /// Whether the page cache is bypassed (`cache.direct`).
    pub fn direct(self) -> bool {
        matches!(self, CacheMode::None | CacheMode::Directsync)
    }

    /// Whether flushes are ignored (`cache.no-flush`).
    pub fn no_flush(self) -> bool {
        matches!(self, CacheMode::Unsafe)
    }

    /// Whether each write is flushed before it completes. This is a property of the node's user,
    /// not of the node.
    pub fn writethrough(self) -> bool {
        matches!(self, CacheMode::Writethrough | CacheMode::Directsync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_bundle_three_properties() {
        for (word, direct, no_flush, writethrough) in [
            ("none", true, false, false),
            ("off", true, false, false),
            ("writeback", false, false, false),
            ("writethrough", false, false, true),
            ("directsync", true, false, true),
            ("unsafe", false, true, false),
        ] {
            let mode = CacheMode::from_word(word).unwrap();
            assert_eq!(
                (mode.direct(), mode.no_flush(), mode.writethrough()),
                (direct, no_flush, writethrough),
                "{word}"
            );
        }
        assert_eq!(CacheMode::from_word("None"), None);
    }
}
