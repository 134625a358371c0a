//! Protocols: the leaves of the graph, which reach storage.

pub(crate) mod file;
pub(crate) mod nbd;
pub(crate) mod null;
