//! Metadata contexts: what block status tells of (section "Metadata querying").
//!
//! The namespace `base` is the protocol's; `qemu` is described in the reference's `docs/interop/nbd`.

use std::fmt;

/// The context that tells holes and zeroes.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The context that tells which layer of a chain of overlays holds the data.
pub const ALLOCATION_DEPTH: &str = "qemu:allocation-depth";
/// What the names of contexts of dirty bitmaps begin with.
pub const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";

/// In `base:allocation`: no storage is taken.
pub const HOLE: u64 = 1;
/// In `base:allocation`: reads as zeroes.
pub const ZERO: u64 = 2;
/// In a dirty bitmap's context: was written.
pub const DIRTY: u64 = 1;

/// A context that this suite knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MetaContext {
    /// Holes and zeroes.
    Allocation,
    /// The layer that holds the data: 0 for none, 1 for the top, and so on.
    AllocationDepth,
    /// What a dirty bitmap has marked.
    DirtyBitmap(String),
}

impl MetaContext {
    /// The context called `name`.
    pub fn parse(name: &str) -> Option<MetaContext> {
        match name {
            BASE_ALLOCATION => Some(MetaContext::Allocation),
            ALLOCATION_DEPTH => Some(MetaContext::AllocationDepth),
            _ => match name.strip_prefix(DIRTY_BITMAP) {
                None | Some("") => None,
                Some(bitmap) => Some(MetaContext::DirtyBitmap(bitmap.to_owned())),
            },
        }
    }
}

impl fmt::Display for MetaContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaContext::Allocation => f.write_str(BASE_ALLOCATION),
            MetaContext::AllocationDepth => f.write_str(ALLOCATION_DEPTH),
            MetaContext::DirtyBitmap(bitmap) => write!(f, "{DIRTY_BITMAP}{bitmap}"),
        }
    }
}

/// What a client asks with one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaQuery {
    /// All contexts of the namespace `base`, in listings.
    AllBase,
    /// All dirty bitmaps, in listings.
    AllBitmaps,
    /// All contexts of the namespace `qemu`, in listings.
    AllQemu,
    /// One context.
    Context(MetaContext),
    /// Something that nothing here matches.
    Nothing,
}

impl MetaQuery {
    /// What `query` asks for. Wildcards have a meaning in listings only; to a selection they match
    /// nothing.
    pub fn parse(query: &str) -> MetaQuery {
        match query {
            "base:" => MetaQuery::AllBase,
            "qemu:" => MetaQuery::AllQemu,
            DIRTY_BITMAP => MetaQuery::AllBitmaps,
            name => MetaContext::parse(name).map_or(MetaQuery::Nothing, MetaQuery::Context),
        }
    }

    /// Whether a listing that asks this shows `context`.
    pub fn lists(&self, context: &MetaContext) -> bool {
        match self {
            MetaQuery::AllBase => *context == MetaContext::Allocation,
            MetaQuery::AllBitmaps => matches!(context, MetaContext::DirtyBitmap(_)),
            MetaQuery::AllQemu => *context != MetaContext::Allocation,
            MetaQuery::Context(wanted) => wanted == context,
            MetaQuery::Nothing => false,
        }
    }

    /// Whether a selection that asks this takes `context`.
    pub fn selects(&self, context: &MetaContext) -> bool {
        matches!(self, MetaQuery::Context(wanted) if wanted == context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_match_by_name_and_wildcard() {
        let bitmap = MetaContext::DirtyBitmap("b0".to_owned());
        let all = [MetaContext::Allocation, MetaContext::AllocationDepth, bitmap];
        let listed = |query: &str| {
            let query = MetaQuery::parse(query);
            all.iter().map(|context| u8::from(query.lists(context))).collect::<Vec<_>>()
        };
        assert_eq!(listed("base:"), [1, 0, 0]);
        assert_eq!(listed("qemu:"), [0, 1, 1]);
        assert_eq!(listed("qemu:dirty-bitmap:"), [0, 0, 1]);
        assert_eq!(listed("qemu:dirty-bitmap:b0"), [0, 0, 1]);
        assert_eq!(listed("qemu:dirty-bitmap:b"), [0, 0, 0]);
        assert_eq!(listed("qemu:allocation-depth"), [0, 1, 0]);
        assert_eq!(listed(""), [0, 0, 0]);
        for context in &all {
            assert_eq!(MetaContext::parse(&context.to_string()).as_ref(), Some(context));
            assert!(MetaQuery::parse(&context.to_string()).selects(context));
            assert!(!MetaQuery::parse("qemu:").selects(context));
        }
        assert_eq!(MetaContext::parse("qemu:dirty-bitmap:"), None);
    }
}
