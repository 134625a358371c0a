//! Cairn's block layer: one graph of image formats, filters and protocols.
//!
//! Programs open a [`graph::Node`] by name or options and use it through a [`graph::Backend`];
//! each node is one instance of a [`driver::Driver`]. I/O runs on [`engine`] threads.

pub mod authz;
pub mod buf;
pub mod crypto;
pub mod dirty_bitmap;
pub mod driver;
pub mod engine;
pub mod error;
pub mod event;
pub mod filters;
pub mod formats;
pub mod graph;
pub mod num;
pub mod object;
pub mod options;
mod parallel;
pub mod protocols;
pub mod secret;
pub mod snapshot;
pub mod tls;

pub use buf::{IoBuf, IoBufMut};
pub use error::{Error, Op, Result};

/// Runs the examples of the page on the block layer.
#[cfg(doctest)]
#[doc = include_str!("../../docs/block-layer.md")]
struct BlockLayerPage;
