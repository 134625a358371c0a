//! Replacing clusters that are marked as zero, which version 2 of the format cannot say: by nothing
//! where nothing shows through, else by data.
//!
//! All trees are walked, those of snapshots too. A table that several of them share is changed once,
//! where it is: what it comes to show is the same for each of them.

use std::collections::HashSet;
use std::sync::Arc;

use super::entry::{Cluster, RawEntry, Standard};
use super::image::Image;
use super::references::Table;
use crate::buf::IoBuf;
use crate::driver::WriteFlags;
use crate::error::{Error, Result};
use crate::num::AsUsize;

/// How far an operation is: steps done, and steps in total.
pub(super) type OnProgress<'a> = &'a dyn Fn(u64, u64);

impl Image {
    /// Expands the zero clusters of all trees. A step of `progress` is an L1 entry.
    pub(super) async fn expand_zeroes(self: &Arc<Image>, progress: OnProgress<'_>) -> Result<()> {
        let snapshots = self.read_snapshots().await?.snapshots;
        // Damage is found before anything changes.
        for snapshot in &snapshots {
            let l1 = self.read_l1_table(snapshot.l1_offset, snapshot.l1_entries).await?;
            self.tables(&l1)?;
        }
        self.change_alone(async |image| {
            let active = {
                let header = image.header.lock();
                (header.l1_offset, header.l1_size)
            };
            let mut trees = vec![active];
            trees.extend(snapshots.iter().map(|s| (s.l1_offset, s.l1_entries)));
            let total = trees.iter().map(|&(_, entries)| u64::from(entries)).sum();
            let mut done = 0;
            let mut seen = HashSet::new();
            for (offset, entries) in trees {
                let l1 = image.read_l1_table(offset, entries).await?;
                let mut tables = image.tables(&l1)?.into_iter().peekable();
                for index in 0..l1.len() {
                    if let Some(table) = tables.next_if(|table| table.index == index)
                        && seen.insert(table.offset)
                    {
                        image.expand_table(table).await?;
                    }
                    done += 1;
                    progress(done, total);
                }
            }
            Ok(Ok(()))
        })
        .await
    }

    async fn expand_table(self: &Arc<Image>, table: Table) -> Result<()> {
        let geometry = self.geometry();
        let mut entries = self.read_l2_table(table.offset).await?;
        // As often as the table is referred to, so often are its clusters.
        let references = self.refcount(table.offset).await?;
        if references == 0 {
            let detail = format!("the L2 table at {:#x} is counted as free", table.offset);
            return Err(Error::corrupt(&*self.label, detail));
        }
        let shown = self.backing.as_ref().map_or(0, |backing| backing.size());
        let first = table.index as u64 * geometry.l2_coverage();
        let mut freed = Vec::new();
        let mut changed = false;
        for (guest, raw) in (first..).step_by(geometry.cluster_size().as_usize()).zip(&mut entries)
        {
            if *raw == RawEntry::default() {
                continue;
            }
            let Cluster::Standard(old) = self.decode_entry(table.offset, *raw)? else { continue };
            if old.zero == 0 {
                continue;
            }
            let new = self.expand_cluster(old, guest, guest < shown, references).await?;
            freed.extend(old.host.filter(|&host| new.host != Some(host)));
            *raw = Cluster::Standard(new).encode(&geometry);
            changed = true;
        }
        if !changed {
            return Ok(());
        }
        // The data, and its refcounts, before the entries that lead there.
        self.settle().await?;
        self.barrier().await?;
        self.write_l2_table(table.offset, &entries).await?;
        self.file.flush().await?;
        for host in freed {
            for _ in 0..references {
                self.release_now(host, 1).await?;
            }
        }
        self.balance().await
    }

    /// What becomes of the zero cluster `old` at `guest`, to which `references` tables lead. Where the
    /// backing file would show, it gets data.
    async fn expand_cluster(
        self: &Arc<Image>,
        old: Standard,
        guest: u64,
        shows: bool,
        references: u64,
    ) -> Result<Standard> {
        if !shows {
            return Ok(Standard::default());
        }
        let own = match old.host {
            // Storage that others use, too, may hold their data.
            Some(host) if self.refcount(host).await? == references => Some(host),
            _ => None,
        };
        let host = if let Some(host) = own {
            host
        } else {
            let host = self.allocate(1, "data cluster").await?.offset;
            for _ in 1..references {
                self.with_allocator(|alloc| alloc.share(host, 1)).await?;
            }
            host
        };
        let zeroes = IoBuf::zeroed(self.geometry().cluster_size().as_usize());
        self.check_data(host, zeroes.len() as u64).await?;
        self.write_data(guest, host, zeroes, WriteFlags::empty()).await?;
        Ok(Standard { host: Some(host), copied: references == 1, allocated: 1, zero: 0 })
    }

    /// The refcount of the cluster at `offset`.
    async fn refcount(&self, offset: u64) -> Result<u64> {
        let cluster = offset >> self.geometry().cluster_bits;
        self.with_allocator(|alloc| Ok(alloc.refs.get(cluster)?)).await
    }
}
