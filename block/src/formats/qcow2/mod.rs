//! The qcow2 image format, versions 2 and 3 (specification: QEMU's `docs/interop/qcow2`).
//!
//! From the disk up: [`header`], [`entry`], [`refcount`] and their neighbours know the format;
//! [`l1`], [`l2`], [`refblocks`] and [`alloc`] hold tables in memory; [`image`] with [`tables`],
//! [`clusters`] and [`writeback`] reads, changes and writes them in a crash-safe order; [`read`],
//! [`mod@write`], [`remap`] and [`pack`] are the guest's requests.

mod alloc;
pub mod amend;
mod bitmap;
mod bitmap_change;
mod bitmap_data;
mod bitmap_track;
mod check;
mod clusters;
mod compact;
mod compress;
pub mod create;
pub mod create_options;
mod crypt;
mod driver;
pub(crate) mod entry;
mod epoch;
mod expand;
pub(crate) mod extension;
pub(crate) mod feature;
pub(crate) mod geometry;
pub(crate) mod header;
mod image;
mod info;
mod l1;
mod l2;
mod map;
mod measure;
mod options;
mod overlap;
mod pack;
mod pending;
mod read;
mod refblocks;
pub(crate) mod refcount;
mod references;
mod remap;
mod resize;
mod snapshot;
mod snapshot_change;
mod status;
mod table_io;
mod tables;
mod update;
mod write;
mod writeback;

use std::sync::Arc;

pub(crate) use driver::QCOW2;
use image::Image;

/// A driver instance: an open image.
pub(crate) struct Qcow2 {
    image: Arc<Image>,
}
