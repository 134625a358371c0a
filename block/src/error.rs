//! The error type of the block layer.
//!
//! An [`Error`] says what was being done, on which node, and why it failed. It is made where the
//! failure happens and printed once, by the program on top.

use std::fmt;
use std::io;

use crate::graph::Rule;
use crate::options::OptionError;

/// Result of a block layer operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a request was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Querying the allocation status.
    BlockStatus,
    /// Copying a range inside the kernel.
    CopyRange,
    /// Creating an image.
    Create,
    /// Discarding data.
    Discard,
    /// Making earlier writes durable.
    Flush,
    /// Opening the node.
    Open,
    /// Reading data.
    Read,
    /// Changing the size.
    Resize,
    /// Writing data.
    Write,
    /// Writing zeroes.
    WriteZeroes,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::BlockStatus => "cannot query allocation",
            Op::CopyRange => "cannot copy range",
            Op::Create => "cannot create",
            Op::Discard => "cannot discard",
            Op::Flush => "cannot flush",
            Op::Open => "cannot open",
            Op::Read => "cannot read",
            Op::Resize => "cannot resize",
            Op::Write => "cannot write",
            Op::WriteZeroes => "cannot write zeroes",
        })
    }
}

/// Why a block layer operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A chain of backing files that leads back to itself.
    #[error(
        "backing file '{file}' of '{node}' leads back to an image that is already in the chain"
    )]
    BackingLoop {
        /// The overlay.
        node: String,
        /// The backing file it names.
        file: String,
    },
    /// TLS credentials that are missing or cannot be used.
    #[error("TLS credentials '{id}' {problem}")]
    Credentials {
        /// ID of the object.
        id: String,
        /// What is wrong, as a clause that follows the name.
        problem: String,
    },
    /// The image's metadata contradicts itself or the format.
    #[error("image '{node}' is damaged: {detail}")]
    Corrupt {
        /// Node or file name.
        node: String,
        /// What is wrong, with the value found.
        detail: String,
    },
    /// Metadata beyond the limits of this program. A repair can remove what is too much.
    #[error("image '{node}' has too much metadata: {detail}")]
    Excess {
        /// Node or file name.
        node: String,
        /// What is too large, with the value found.
        detail: String,
        /// What a repair removes.
        excess: String,
    },
    /// A name (of a node, driver, snapshot …) that is taken or malformed.
    #[error("{what} '{name}' {problem}")]
    Name {
        /// Kind of thing the name is for.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The operating system refused an operation.
    #[error("{op} '{node}'{}: {}", AtOffset(*.offset), OsText(.source))]
    Os {
        /// The operation.
        op: Op,
        /// Node or file name.
        node: String,
        /// Offset in bytes, where there is one.
        offset: Option<u64>,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process holds a conflicting lock.
    #[error("{message}")]
    Locked {
        /// Which lock, on which file, and who holds it.
        message: String,
    },
    /// A request beyond the end of the node.
    #[error("{op} '{node}': bytes {offset} to {} lie beyond its end at {size}", offset + len)]
    OutOfRange {
        /// The operation.
        op: Op,
        /// Node or file name.
        node: String,
        /// First byte of the request.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the node in bytes.
        size: u64,
    },
    /// An option that is unknown, malformed or in conflict with another.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Two users of a node exclude each other.
    #[error("{message}")]
    Permission {
        /// Who needs what, and who does not share it.
        message: String,
    },
    /// A write to something opened read-only.
    #[error("'{node}' is read-only")]
    ReadOnly {
        /// Node or file name.
        node: String,
    },
    /// No key slot of an encrypted image opens with the passphrase that was given.
    #[error("the passphrase does not open '{node}'")]
    Passphrase {
        /// Node or file name.
        node: String,
    },
    /// The graph's policy forbids what an image asks for.
    #[error("'{node}' is refused: {what}; {rule}")]
    Refused {
        /// Node or file name.
        node: String,
        /// What it asks for, and why it does not get that, as a full clause.
        what: String,
        /// What decides.
        rule: Rule,
    },
    /// A secret that is missing or cannot be used.
    #[error("secret '{id}' {problem}")]
    Secret {
        /// ID of the secret.
        id: String,
        /// What is wrong, as a clause that follows the name. Never the secret's content.
        problem: String,
    },
    /// A server that refuses, is lost, or does not keep to its protocol.
    #[error("the server of '{node}' {problem}")]
    Server {
        /// Node or file name.
        node: String,
        /// What it did, as a clause that follows its name.
        problem: String,
        /// The error number that stands for it.
        errno: i32,
    },
    /// TLS could not be established with a peer.
    #[error("TLS with {peer} failed: {problem}")]
    Tls {
        /// Who the peer is, as far as is known.
        peer: String,
        /// Why it failed.
        problem: String,
    },
    /// Something that the driver, or the image's format, cannot do.
    #[error("'{node}': {what}")]
    Unsupported {
        /// Node, driver or file name.
        node: String,
        /// What is not supported, as a full clause.
        what: String,
    },
    /// A failure with its place in the graph: what was being done when `source` happened.
    #[error("{what}: {source}")]
    Context {
        /// What was being done, on which file.
        what: String,
        /// Why it failed.
        source: Box<Error>,
    },
}

struct AtOffset(Option<u64>);

impl fmt::Display for AtOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " at offset {offset}"),
            None => Ok(()),
        }
    }
}

/// The text of an OS error without Rust's "(os error N)".
struct OsText<'a>(&'a io::Error);

impl fmt::Display for OsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

impl Error {
    /// An OS error of `op` on `node`.
    pub fn os(op: Op, node: impl Into<String>, offset: Option<u64>, source: io::Error) -> Error {
        Error::Os { op, node: node.into(), offset, source }
    }

    /// Damaged metadata in `node`.
    pub fn corrupt(node: impl Into<String>, detail: impl Into<String>) -> Error {
        Error::Corrupt { node: node.into(), detail: detail.into() }
    }

    /// Something `node` cannot do.
    pub fn unsupported(node: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Unsupported { node: node.into(), what: what.into() }
    }

    /// Something that `rule` of the graph's policy forbids to `node`.
    pub fn refused(node: impl Into<String>, rule: Rule, what: impl Into<String>) -> Error {
        Error::Refused { node: node.into(), what: what.into(), rule }
    }

    /// Adds what was being done.
    pub fn context(self, what: impl Into<String>) -> Error {
        Error::Context { what: what.into(), source: Box::new(self) }
    }

    /// The POSIX error number that stands for this error towards protocols and old interfaces.
    pub fn errno(&self) -> i32 {
        match self {
            Error::BackingLoop { .. }
            | Error::Credentials { .. }
            | Error::Name { .. }
            | Error::Option(_)
            | Error::Secret { .. } => libc::EINVAL,
            Error::Corrupt { .. } | Error::OutOfRange { .. } => libc::EIO,
            Error::Excess { .. } => libc::EFBIG,
            Error::Os { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Error::Locked { .. } => libc::EAGAIN,
            Error::Passphrase { .. } | Error::Permission { .. } | Error::Refused { .. } => {
                libc::EPERM
            }
            Error::ReadOnly { .. } => libc::EACCES,
            Error::Server { errno, .. } => *errno,
            Error::Tls { .. } => libc::EPROTO,
            Error::Unsupported { .. } => libc::ENOTSUP,
            Error::Context { source, .. } => source.errno(),
        }
    }

    /// What a repair would remove, where that is the way to use the image again.
    pub fn excess(&self) -> Option<&str> {
        match self {
            Error::Excess { excess, .. } => Some(excess),
            Error::Context { source, .. } => source.excess(),
            _ => None,
        }
    }

    /// Whether the driver simply does not offer the operation.
    pub fn is_unsupported(&self) -> bool {
        self.errno() == libc::ENOTSUP
    }
}
