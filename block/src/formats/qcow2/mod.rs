//! The qcow2 image format, versions 2 and 3.

pub(crate) mod entry;
pub(crate) mod extension;
pub(crate) mod feature;
pub(crate) mod geometry;
pub(crate) mod header;
pub(crate) mod refcount;
