//! Failures of the server and of the tool.

use std::io;

use cairn_nbd_wire::{ReplyCode, WireError};

/// Result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The block layer failed.
    #[error(transparent)]
    Block(#[from] cairn_block::Error),
    /// What the image tool's library does failed.
    #[error(transparent)]
    Image(#[from] cairn_img::error::Error),
    /// A peer sent what the protocol does not allow.
    #[error("{0}")]
    Protocol(#[from] WireError),
    /// A server refused an option.
    #[error("the server refuses {option}: {}", Refusal(.code, .message))]
    Refused {
        /// The option.
        option: String,
        /// The reason.
        code: ReplyCode,
        /// The server's words, possibly none.
        message: String,
    },
    /// The system refused something.
    #[error("cannot {what}: {}", OsText(.source))]
    System {
        /// What was being done.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Something that the user has been told already.
    #[error("it failed, as was said")]
    Told,
    /// The user asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// A failure of the system; `what` completes "cannot".
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::System { what, source }
    }
}

impl From<cairn_block::options::OptionError> for Error {
    fn from(error: cairn_block::options::OptionError) -> Error {
        Error::Block(error.into())
    }
}

/// A server's reason, in its own words where it has some.
struct Refusal<'a>(&'a ReplyCode, &'a str);

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            "" => write!(f, "{}", self.0),
            // The text is the peer's: it must not reach terminals as it is.
            text => write!(f, "{} ({})", self.0, text.escape_debug()),
        }
    }
}

/// The text of an OS error without Rust's "(os error N)".
struct OsText<'a>(&'a io::Error);

impl std::fmt::Display for OsText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}
