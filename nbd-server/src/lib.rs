//! An NBD server.
//!
//! A [`Server`] offers the [`Export`]s of an [`Exports`] registry to the clients of a [`Listener`]. It
//! speaks the fixed newstyle handshake with all options, and simple, structured and extended replies
//! (protocol document, `doc/proto.md` of the NetworkBlockDevice project; extensions as in the
//! reference's `docs/interop/nbd`). [`tool`] is the program around it.

mod client;
mod error;
mod export;
mod handshake;
mod listen;
mod notices;
mod server;
mod session;
mod stream;
pub mod tool;
mod transmission;

pub use error::{Error, Result};
pub use export::{Export, ExportOptions, Exports};
pub use listen::{Address, Listener};
pub use notices::Notices;
pub use server::{Server, ServerOptions};
pub use stream::{BoxStream, Stream};
