//! Options: values, their text syntaxes and their typed descriptions.
//!
//! Everything a user says about a node or an image becomes a [`Dict`]: from comma lists ([`list`]),
//! strict key=value text ([`keyval`]), JSON ([`json`]) or a filename. Drivers declare their options
//! with [`options!`](crate::options!) and read them from the `Dict` typed; see [`describe`].

pub mod cache;
pub mod describe;
mod error;
pub mod filename;
pub mod help;
pub mod json;
pub mod keyval;
pub mod list;
mod node;
mod number;
pub mod size;
pub mod tree;
mod types;
mod validate;
mod value;

pub use cache::CacheMode;
pub use describe::{
    OptionDesc, OptionKind, OptionType, deprecations, reject_leftovers, take_option,
};
pub use error::OptionError;
pub use keyval::{parse_json_or_keyval, parse_keyval};
pub use list::{escape_commas, join_lists, parse_list, wants_help};
pub use node::{DetectZeroes, Discard, NodeOptions};
pub use size::{NumberError, format_size, parse_i64, parse_size, parse_u64};
pub use tree::{expand, flatten};
pub use types::{ChildRef, NodeName, Size};
pub use validate::validate;
pub use value::{Dict, Value};
