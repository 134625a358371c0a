//! What can go wrong in a command of `cargo xtask`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Result of a step.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Error {
    /// The command line makes no sense.
    Usage(String),
    /// A program could not be started.
    Start { command: String, source: io::Error },
    /// A program failed.
    Failed { command: String, status: ExitStatus, said: String },
    /// A file operation failed.
    File { path: PathBuf, source: io::Error },
    /// The machine lacks something that cannot be installed from here.
    Missing { what: String, advice: String },
    /// A result is not what it must be.
    Wrong(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) | Error::Wrong(text) => f.write_str(text),
            Error::Start { command, source } => write!(f, "cannot run `{command}`: {source}"),
            Error::Failed { command, status, said } => {
                write!(f, "`{command}` failed ({status})")?;
                if said.trim().is_empty() { Ok(()) } else { write!(f, ":\n{}", said.trim_end()) }
            }
            Error::File { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Missing { what, advice } => write!(f, "{what} is missing: {advice}"),
        }
    }
}

impl std::error::Error for Error {}

/// Puts the file's name to an I/O error.
pub(crate) trait At<T> {
    /// The same result, with `path` in the error.
    fn at(self, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::File { path: path.into(), source })
    }
}
