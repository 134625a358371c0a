//! Failures of the tool's operations.

use std::io;
use std::path::PathBuf;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The block layer failed.
    #[error(transparent)]
    Block(#[from] cairn_block::Error),
    /// Something about a file around the image (a temporary name, its final name) failed.
    #[error("{what} '{}': {}", .path.display(), OsText(.source))]
    File {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something that another command does.
    #[error("{source}")]
    Instead {
        /// The command.
        command: &'static str,
        /// What failed.
        source: Box<Error>,
    },
    /// A signal ended the operation.
    #[error("interrupted")]
    Interrupted {
        /// Its number.
        signal: i32,
    },
    /// A failure around a file that does not have its name yet.
    #[error("{}", .source.to_string().replace(.temporary, .filename))]
    Unnamed {
        /// Its name so far.
        temporary: String,
        /// The name it was to get.
        filename: String,
        /// What failed.
        source: Box<Error>,
    },
    /// The user asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// What was written is not what was to be written.
    #[error(
        "'{target}' differs from the source at offset {offset}: it was not written correctly, or one of them was changed meanwhile"
    )]
    Verification {
        /// The target.
        target: String,
        /// First byte that differs.
        offset: u64,
    },
    /// A failure that has an exit status of its own.
    #[error("{source}")]
    WithStatus {
        /// Exit status of the program.
        status: u8,
        /// What failed.
        source: Box<Error>,
    },
    /// The result could not be printed.
    #[error("cannot write the result: {}", OsText(.0))]
    Stdout(#[source] io::Error),
    /// The program could not set itself up (threads, signal handlers).
    #[error("cannot {what}: {}", OsText(.source))]
    Setup {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl From<cairn_block::options::OptionError> for Error {
    fn from(error: cairn_block::options::OptionError) -> Error {
        Error::Block(error.into())
    }
}

/// Result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes the program exit with `status`.
    pub fn with_status(self, status: u8) -> Error {
        Error::WithStatus { status, source: Box::new(self) }
    }

    /// What the user can do about the failure with the program called `program`, as a further line.
    pub fn hint(&self, program: &str) -> Option<String> {
        match self {
            // Scripts know these lines.
            Error::Instead { command, .. } => {
                Some(format!("You can use '{program} {command}' instead."))
            }
            Error::Block(error) => {
                let excess = error.excess()?;
                Some(format!("You can force-remove {excess} with {program} check -r all"))
            }
            Error::Unnamed { source, .. } | Error::WithStatus { source, .. } => {
                source.hint(program)
            }
            _ => None,
        }
    }

    /// The exit status that this failure asks for, if any.
    pub fn exit_status(&self) -> Option<u8> {
        match self {
            Error::WithStatus { status, .. } => Some(*status),
            Error::Unnamed { source, .. } => source.exit_status(),
            // As shells report a program that died of the signal.
            Error::Interrupted { signal } => u8::try_from(128 + signal).ok(),
            _ => None,
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
