//! What can be wrong with a message.

/// Result of decoding or encoding.
pub type Result<T, E = WireError> = std::result::Result<T, E>;

/// Why a message cannot be decoded or encoded. `what` names the part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A value that the protocol does not allow there.
    #[error("{what} {problem}")]
    Invalid {
        /// The part.
        what: &'static str,
        /// What is wrong, as a clause that follows the name.
        problem: String,
    },
    /// The peer does not speak the protocol, or is out of step.
    #[error("{what} begins with {found:#x}, which is no NBD magic number")]
    Magic {
        /// The message.
        what: &'static str,
        /// What is in place of the magic number.
        found: u64,
    },
    /// Text that is not UTF-8, or has a NUL in it.
    #[error("{what} is not valid text")]
    Text {
        /// The part.
        what: &'static str,
    },
    /// Longer than the protocol allows.
    #[error("{what} is {len} bytes long; {max} are allowed")]
    TooLong {
        /// The part.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// Most bytes allowed.
        max: u64,
    },
    /// Bytes behind the end of what was described.
    #[error("{what} has {extra} bytes too many")]
    Trailing {
        /// The message.
        what: &'static str,
        /// How many.
        extra: usize,
    },
    /// The message ends before what it describes does.
    #[error("{what} is cut off")]
    Truncated {
        /// The part.
        what: &'static str,
    },
}

impl WireError {
    /// A value that is not allowed.
    pub(crate) fn invalid(what: &'static str, problem: impl Into<String>) -> WireError {
        WireError::Invalid { what, problem: problem.into() }
    }
}
