//! Events: the places that requests pass inside a format driver, where a `blkdebug` node below it can
//! make them fail or wait. The names are those of the reference.

crate::option_words! {
    /// A place that a request passes.
    #[derive(Hash)]
    pub enum Event {
        /// An L1 entry is written.
        L1Update = "l1_update",
        /// A larger L1 table is allocated.
        L1GrowAllocTable = "l1_grow_alloc_table",
        /// A larger L1 table is written.
        L1GrowWriteTable = "l1_grow_write_table",
        /// A larger L1 table comes into use.
        L1GrowActivateTable = "l1_grow_activate_table",
        /// A part of an L2 table is read.
        L2Load = "l2_load",
        /// A part of an L2 table is written.
        L2Update = "l2_update",
        /// The L2 entry of a compressed cluster is written.
        L2UpdateCompressed = "l2_update_compressed",
        /// An L2 table that is to be copied is read.
        L2AllocCowRead = "l2_alloc_cow_read",
        /// A new L2 table is written.
        L2AllocWrite = "l2_alloc_write",
        /// Data is read.
        ReadAio = "read_aio",
        /// Data is read from the backing file.
        ReadBackingAio = "read_backing_aio",
        /// Compressed data is read.
        ReadCompressed = "read_compressed",
        /// Data is written.
        WriteAio = "write_aio",
        /// Compressed data is written.
        WriteCompressed = "write_compressed",
        /// Machine state is read.
        VmstateLoad = "vmstate_load",
        /// Machine state is written.
        VmstateSave = "vmstate_save",
        /// Data is read to be copied.
        CowRead = "cow_read",
        /// Copied data is written.
        CowWrite = "cow_write",
        /// The refcount table is read.
        ReftableLoad = "reftable_load",
        /// The refcount table grows.
        ReftableGrow = "reftable_grow",
        /// The refcount table is written.
        ReftableUpdate = "reftable_update",
        /// A refcount block was read.
        RefblockLoad = "refblock_load",
        /// A refcount block is written.
        RefblockUpdate = "refblock_update",
        /// A part of a refcount block is written.
        RefblockUpdatePart = "refblock_update_part",
        /// Clusters were allocated, with the refcount blocks that they need.
        RefblockAlloc = "refblock_alloc",
        /// A new refcount block gets its entry in the table.
        RefblockAllocHookup = "refblock_alloc_hookup",
        /// A new refcount block is written.
        RefblockAllocWrite = "refblock_alloc_write",
        /// The blocks of a new refcount table are written.
        RefblockAllocWriteBlocks = "refblock_alloc_write_blocks",
        /// A new refcount table is written.
        RefblockAllocWriteTable = "refblock_alloc_write_table",
        /// A new refcount table comes into use.
        RefblockAllocSwitchTable = "refblock_alloc_switch_table",
        /// Clusters are allocated.
        ClusterAlloc = "cluster_alloc",
        /// Space for compressed data is allocated.
        ClusterAllocBytes = "cluster_alloc_bytes",
        /// Clusters are freed.
        ClusterFree = "cluster_free",
        /// Caches are written out.
        FlushToOs = "flush_to_os",
        /// What was written is made durable.
        FlushToDisk = "flush_to_disk",
        /// The first block of an unaligned write is read.
        PwritevRmwHead = "pwritev_rmw_head",
        /// The first block of an unaligned write was read.
        PwritevRmwAfterHead = "pwritev_rmw_after_head",
        /// The last block of an unaligned write is read.
        PwritevRmwTail = "pwritev_rmw_tail",
        /// The last block of an unaligned write was read.
        PwritevRmwAfterTail = "pwritev_rmw_after_tail",
        /// A write reaches the node.
        Pwritev = "pwritev",
        /// A write of zeroes reaches the node.
        PwritevZero = "pwritev_zero",
        /// A write is done.
        PwritevDone = "pwritev_done",
        /// An image is made empty.
        EmptyImagePrepare = "empty_image_prepare",
        /// The entries of an L1 table that shrinks are cleared.
        L1ShrinkWriteTable = "l1_shrink_write_table",
        /// The L2 tables behind the end of a shrinking image are freed.
        L1ShrinkFreeL2Clusters = "l1_shrink_free_l2_clusters",
        /// Data that copy-on-read found is written.
        CorWrite = "cor_write",
        /// A part of new clusters is to read as zeroes, beside data that is written.
        ClusterAllocSpace = "cluster_alloc_space",
        /// No place: true from the beginning.
        None = "none",
    }
}
