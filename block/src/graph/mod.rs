//! The block graph: nodes, the edges between them, and the users on top.

mod perms;

pub use perms::default_child_perms;

/// Placeholder.
#[derive(Debug)]
pub struct Edge;
/// Placeholder.
pub struct Graph;
/// Placeholder.
pub struct Backend;
/// Placeholder.
pub struct OpenContext<'g>(std::marker::PhantomData<&'g ()>);
