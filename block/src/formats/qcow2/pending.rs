//! Host clusters that lost a reference, on their way to being free.
//!
//! A reference may be counted off only when the table that held it is on disk without it: otherwise a
//! crash could leave the old reference pointing to a cluster with a new owner. So freed clusters first
//! wait for a write-back round that covers their removal, then until no request can still be using
//! them ([`super::epoch`]).

use parking_lot::Mutex;

use super::epoch::Epochs;

/// A reference to be counted off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freed {
    /// Host offset of the first cluster.
    pub(crate) offset: u64,
    /// Number of clusters.
    pub(crate) clusters: u64,
    /// What was there.
    pub(crate) kind: FreedKind,
}

/// What kind of cluster lost a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreedKind {
    /// Guest data whose storage is to be given back to the file.
    Discarded,
    /// Anything else.
    Other,
    /// An L2 table.
    Table,
}

#[derive(Default)]
struct Lists {
    /// Unmapped in memory only.
    unmapped: Vec<Freed>,
    /// Unmapped on disk, with the epoch in which that was known.
    durable: Vec<(u64, Freed)>,
    /// Clusters of requests that were dropped half-way; I/O to them may still be under way.
    abandoned: Vec<Freed>,
    clusters: u64,
}

/// All references that wait to be counted off.
#[derive(Default)]
pub(crate) struct Pending(Mutex<Lists>);

impl Pending {
    /// Adds a reference that was just removed from a table in memory.
    pub(crate) fn push(&self, freed: Freed) {
        let mut lists = self.0.lock();
        lists.clusters += freed.clusters;
        lists.unmapped.push(freed);
    }

    /// Adds clusters that were allocated for a request which was then dropped.
    pub(crate) fn abandon(&self, freed: Freed) {
        self.0.lock().abandoned.push(freed);
    }

    /// Makes abandoned clusters ordinary freed ones. No request is under way any more.
    pub(crate) fn adopt_abandoned(&self) {
        let mut lists = self.0.lock();
        let abandoned = std::mem::take(&mut lists.abandoned);
        lists.unmapped.extend(abandoned);
    }

    /// Clusters that wait, in any state but abandoned.
    pub(crate) fn clusters(&self) -> u64 {
        self.0.lock().clusters
    }

    /// Whether a write-back round has something to do here.
    pub(crate) fn has_unmapped(&self) -> bool {
        !self.0.lock().unmapped.is_empty()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let lists = self.0.lock();
        lists.unmapped.is_empty() && lists.durable.is_empty()
    }

    /// Takes what was unmapped in memory so far, for a write-back round.
    pub(crate) fn take_unmapped(&self) -> Vec<Freed> {
        std::mem::take(&mut self.0.lock().unmapped)
    }

    /// Gives back what a failed round had taken.
    pub(crate) fn restore(&self, freed: Vec<Freed>) {
        self.0.lock().unmapped.extend(freed);
    }

    /// Notes that a round made the removals durable.
    pub(crate) fn confirm(&self, freed: Vec<Freed>, epochs: &Epochs) {
        let epoch = epochs.retire();
        self.0.lock().durable.extend(freed.into_iter().map(|f| (epoch, f)));
    }

    /// Takes what no request can be using any more, in the order of offsets.
    pub(crate) fn take_safe(&self, epochs: &Epochs) -> Vec<Freed> {
        let mut lists = self.0.lock();
        if lists.durable.is_empty() {
            return Vec::new();
        }
        let limit = epochs.advance();
        let (safe, rest) = lists.durable.iter().partition::<Vec<_>, _>(|(epoch, _)| *epoch < limit);
        lists.durable = rest;
        let mut safe: Vec<_> = safe.into_iter().map(|(_, freed)| freed).collect();
        lists.clusters -= safe.iter().map(|f| f.clusters).sum::<u64>().min(lists.clusters);
        safe.sort_unstable_by_key(|f| f.offset);
        safe
    }
}
