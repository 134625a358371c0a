//! Options for opening an image, and what follows from them.

use std::time::Duration;

use super::crypt::EncryptFormat;
use super::geometry::Geometry;
use super::header::Header;
use super::overlap::Structure;
use crate::error::{Error, Result};
use crate::graph::NodeFlags;
use crate::option_words;
use crate::options::{OptionError, Size};

/// Largest default size of the cache for L2 tables in bytes.
const DEFAULT_L2_CACHE: u64 = 32 << 20;
/// Size of an L2 slice in bytes, unless clusters are smaller.
const DEFAULT_SLICE: u64 = 4096;
/// Seconds after which unused metadata leaves the memory by default.
const DEFAULT_CLEAN_INTERVAL: u64 = 600;
/// Most entries of a cache.
const MAX_ENTRIES: u64 = i32::MAX as u64;
/// Most seconds after which caches are cleaned.
const MAX_CLEAN_INTERVAL: u64 = u32::MAX as u64;
/// Refcount blocks that must fit into memory at least.
const MIN_REFCOUNT_BLOCKS: u64 = 4;

option_words! {
    /// Groups of metadata that data writes are checked against.
    pub(crate) enum OverlapCheck {
        /// None.
        None = "none",
        /// What never changes its place.
        Constant = "constant",
        /// What can be checked without I/O.
        Cached = "cached",
        /// Everything.
        All = "all",
    }
}

crate::options! {
    /// Options for opening.
    pub(crate) struct Qcow2Options {
        /// Put off refcount updates; a crash then requires a repair, which is done when opening.
        "lazy-refcounts" => lazy_refcounts: Option<bool>,
        /// Pass guests' discards to the file; by default if the node has discard=unmap.
        "pass-discard-request" => pass_discard_request: Option<bool>,
        /// Give storage back that deleted snapshots used; on by default.
        "pass-discard-snapshot" => pass_discard_snapshot: Option<bool>,
        /// Give storage back on other occasions; off by default.
        "pass-discard-other" => pass_discard_other: Option<bool>,
        /// Keep discarded clusters allocated, so that the image does not become fragmented; off by
        /// default.
        "discard-no-unref" => discard_no_unref: Option<bool>,
        /// Metadata that data writes are checked against, before the single switches.
        "overlap-check.template" => template: Option<OverlapCheck>,
        /// Check data writes against the header.
        "overlap-check.main-header" => main_header: Option<bool>,
        /// Check data writes against the active L1 table.
        "overlap-check.active-l1" => active_l1: Option<bool>,
        /// Check data writes against active L2 tables.
        "overlap-check.active-l2" => active_l2: Option<bool>,
        /// Check data writes against the refcount table.
        "overlap-check.refcount-table" => refcount_table: Option<bool>,
        /// Check data writes against refcount blocks.
        "overlap-check.refcount-block" => refcount_block: Option<bool>,
        /// Check data writes against the snapshot table.
        "overlap-check.snapshot-table" => snapshot_table: Option<bool>,
        /// Check data writes against L1 tables of snapshots.
        "overlap-check.inactive-l1" => inactive_l1: Option<bool>,
        /// Check data writes against L2 tables of snapshots.
        "overlap-check.inactive-l2" => inactive_l2: Option<bool>,
        /// Check data writes against the bitmap directory.
        "overlap-check.bitmap-directory" => bitmap_directory: Option<bool>,
        /// Encryption of the image, if it has to be the one named: aes or luks.
        "encrypt.format" => encrypt_format: Option<EncryptFormat>,
        /// ID of the secret with the passphrase.
        "encrypt.key-secret" => encrypt_key_secret: Option<String> [strong],
        /// Most iterations of a key derivation that are accepted from the header; 50 million unless
        /// the header can be trusted.
        "encrypt.max-iterations" => encrypt_max_iterations: Option<u64>,
        /// Short for overlap-check.template.
        "overlap-check" => overlap_check: Option<OverlapCheck>,
        /// Memory for metadata in total.
        "cache-size" => cache_size: Option<Size>,
        /// Memory for L2 tables; by default as much as the disk needs, and at most 32 MiB.
        "l2-cache-size" => l2_cache_size: Option<Size>,
        /// Unit in which L2 tables are read, a power of two from 512 bytes to the cluster size.
        "l2-cache-entry-size" => l2_cache_entry_size: Option<Size>,
        /// Memory for refcount blocks, at least 4 clusters.
        "refcount-cache-size" => refcount_cache_size: Option<Size>,
        /// Seconds after which metadata that was not used leaves the memory; 0 keeps it; 600 by
        /// default.
        "cache-clean-interval" => cache_clean_interval: Option<u64>,
    }
}

impl Qcow2Options {
    /// These options as changes of those in force, `old`.
    pub(crate) fn over(mut self, old: &Qcow2Options) -> Result<Qcow2Options> {
        let (new_template, new_total) =
            (self.template.is_some() || self.overlap_check.is_some(), self.cache_size.is_some());
        let whole_cache = |options: &Qcow2Options| {
            options.cache_size.is_some()
                && options.l2_cache_size.is_some()
                && options.refcount_cache_size.is_some()
        };
        let new_cache = whole_cache(&self);
        macro_rules! keep {
            ($($option:ident),+) => { $(self.$option = self.$option.take().or(old.$option.clone());)+ };
        }
        for (name, differs) in [
            ("encrypt.format", self.encrypt_format.is_some_and(|f| Some(f) != old.encrypt_format)),
            (
                "encrypt.key-secret",
                self.encrypt_key_secret.is_some()
                    && self.encrypt_key_secret != old.encrypt_key_secret,
            ),
            (
                "encrypt.max-iterations",
                self.encrypt_max_iterations.is_some_and(|n| Some(n) != old.encrypt_max_iterations),
            ),
        ] {
            if differs {
                return Err(conflict(name, "cannot change while the image is open"));
            }
        }
        keep!(lazy_refcounts, pass_discard_request, pass_discard_snapshot, pass_discard_other);
        keep!(discard_no_unref, l2_cache_entry_size, cache_clean_interval, cache_size);
        keep!(encrypt_format, encrypt_key_secret, encrypt_max_iterations);
        if !new_template {
            // A new template is a new choice as a whole.
            keep!(template, overlap_check, main_header, active_l1, active_l2, refcount_table);
            keep!(refcount_block, snapshot_table, inactive_l1, inactive_l2, bitmap_directory);
        }
        if !new_total {
            keep!(l2_cache_size, refcount_cache_size);
        }
        if whole_cache(&self) && !new_cache {
            // Both parts are known now, so that the former total has nothing left to say.
            self.cache_size = None;
        }
        Ok(self)
    }
}

/// How an open image works, worked out from the options, the flags and the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuning {
    /// Metadata that data writes are checked against.
    pub(crate) overlap_check: Structure,
    /// Refcount blocks in memory at most.
    pub(crate) refcount_blocks: usize,
    /// Size of an L2 slice in bytes.
    pub(crate) slice_size: u64,
    /// L2 slices in memory at most.
    pub(crate) l2_slices: usize,
    /// Put off refcount updates; by default as the image says.
    pub(crate) lazy_refcounts: Option<bool>,
    /// Discards reach the file.
    pub(crate) pass_discard: bool,
    /// Storage that only deleted snapshots used is given back to the file.
    pub(crate) pass_discard_snapshot: bool,
    /// Storage that metadata leaves is given back to the file.
    pub(crate) pass_discard_other: bool,
    /// Discarded clusters stay allocated.
    pub(crate) discard_no_unref: bool,
    /// Time after which unused metadata leaves the memory.
    pub(crate) clean_interval: Option<Duration>,
}

fn conflict(name: &str, problem: &str) -> Error {
    Error::Option(OptionError::Conflict { name: name.to_owned(), problem: problem.to_owned() })
}

impl Tuning {
    /// What `options` mean for the image with this header.
    pub(crate) fn new(options: &Qcow2Options, header: &Header, flags: NodeFlags) -> Result<Tuning> {
        let geometry = Geometry::of(header);
        let cluster_size = geometry.cluster_size();
        let slice_size = match options.l2_cache_entry_size {
            None => DEFAULT_SLICE.min(cluster_size),
            Some(Size(size)) if size.is_power_of_two() && (512..=cluster_size).contains(&size) => {
                size
            }
            Some(_) => {
                let problem = "must be a power of two from 512 bytes to the cluster size";
                return Err(conflict("l2-cache-entry-size", problem));
            }
        };
        if options.discard_no_unref == Some(true) && header.version < 3 {
            let problem = "needs an image of version 3 (compat=1.1)";
            return Err(conflict("discard-no-unref", problem));
        }
        if options.lazy_refcounts == Some(true) && header.version < 3 {
            return Err(conflict("lazy-refcounts", "needs an image of version 3 (compat=1.1)"));
        }
        let (l2, refcounts) = cache_sizes(options, header, &geometry)?;
        if l2 / slice_size > MAX_ENTRIES {
            return Err(conflict("l2-cache-size", "is too large"));
        }
        if refcounts / cluster_size > MAX_ENTRIES {
            return Err(conflict("refcount-cache-size", "is too large"));
        }
        if options.cache_clean_interval.is_some_and(|seconds| seconds > MAX_CLEAN_INTERVAL) {
            return Err(conflict("cache-clean-interval", "is too long"));
        }
        let fits = |size: u64, unit: u64| usize::try_from(size / unit).unwrap_or(usize::MAX);
        Ok(Tuning {
            overlap_check: overlap_check(options)?,
            refcount_blocks: fits(refcounts.max(MIN_REFCOUNT_BLOCKS * cluster_size), cluster_size),
            slice_size,
            l2_slices: fits(l2, slice_size).max(2),
            lazy_refcounts: options.lazy_refcounts,
            pass_discard: options.pass_discard_request.unwrap_or(flags.unmap),
            pass_discard_snapshot: options.pass_discard_snapshot.unwrap_or(true),
            pass_discard_other: options.pass_discard_other.unwrap_or(false),
            discard_no_unref: options.discard_no_unref.unwrap_or(false),
            clean_interval: Some(options.cache_clean_interval.unwrap_or(DEFAULT_CLEAN_INTERVAL))
                .filter(|&seconds| seconds > 0)
                .map(Duration::from_secs),
        })
    }
}

/// Bytes for L2 tables and for refcount blocks.
fn cache_sizes(options: &Qcow2Options, header: &Header, geometry: &Geometry) -> Result<(u64, u64)> {
    let cluster_size = geometry.cluster_size();
    // A cache for more than the whole disk is of no use.
    let needed = geometry.l1_entries(header.size).saturating_mul(cluster_size);
    let least = MIN_REFCOUNT_BLOCKS * cluster_size;
    let (total, l2, refcounts) = (
        options.cache_size.map(|s| s.0),
        options.l2_cache_size.map(|s| s.0),
        options.refcount_cache_size.map(|s| s.0),
    );
    let over = |part: Option<u64>| part.zip(total).is_some_and(|(part, total)| part > total);
    if total.is_some() && l2.is_some() && refcounts.is_some() {
        let problem = "cannot be given along with both l2-cache-size and refcount-cache-size";
        return Err(conflict("cache-size", problem));
    }
    if over(l2) {
        return Err(conflict("l2-cache-size", "is larger than cache-size"));
    }
    if over(refcounts) {
        return Err(conflict("refcount-cache-size", "is larger than cache-size"));
    }
    Ok(match (total, l2, refcounts) {
        (Some(total), Some(l2), _) => (l2.min(needed), total - l2),
        (Some(total), None, Some(refcounts)) => ((total - refcounts).min(needed), refcounts),
        (Some(total), None, None) => {
            // L2 tables are looked up all the time, refcounts only by allocation.
            let l2 = needed.min(total.saturating_sub(least)).max(total / 2);
            (l2.min(needed), total - l2)
        }
        (None, l2, refcounts) => {
            (l2.unwrap_or(DEFAULT_L2_CACHE).min(needed), refcounts.unwrap_or(least))
        }
    })
}

fn overlap_check(options: &Qcow2Options) -> Result<Structure> {
    let short = options.overlap_check;
    if short.is_some() && options.template.is_some() && short != options.template {
        return Err(conflict("overlap-check.template", "contradicts overlap-check"));
    }
    let mut checked = match short.or(options.template).unwrap_or(OverlapCheck::Cached) {
        OverlapCheck::None => Structure::empty(),
        OverlapCheck::Constant => Structure::CONSTANT,
        OverlapCheck::Cached => Structure::CACHED,
        OverlapCheck::All => Structure::all(),
    };
    let single = [
        (options.main_header, Structure::HEADER),
        (options.active_l1, Structure::ACTIVE_L1),
        (options.active_l2, Structure::ACTIVE_L2),
        (options.refcount_table, Structure::REFCOUNT_TABLE),
        (options.refcount_block, Structure::REFCOUNT_BLOCK),
        (options.snapshot_table, Structure::SNAPSHOT_TABLE),
        (options.inactive_l1, Structure::INACTIVE_L1),
        (options.inactive_l2, Structure::INACTIVE_L2),
        (options.bitmap_directory, Structure::BITMAP_DIRECTORY),
    ];
    for (on, structure) in single {
        if let Some(on) = on {
            checked.set(structure, on);
        }
    }
    Ok(checked)
}
