//! Filenames: from a name to the driver and options it stands for, and back.
//!
//! A name may be a path, begin with the prefix of a protocol (`nbd://…`, `file:…`), or be the
//! pseudo-protocol `json:{…}` that describes a whole node. The rules are those of the reference,
//! because names are stored in images.

mod compose;
mod parse;
mod path;

pub use compose::{ChildIdentity, NodeIdentity, identify};
pub use parse::{Location, locate, parse_json, protocol_for_path, strip_prefix};
pub use path::{combine, is_absolute, protocol_prefix, resolve_backing};
