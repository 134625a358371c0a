//! Compiling pattern files in a build script.

use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use crate::codegen::{self, Options};
use crate::diagnostic::Errors;
use crate::source::{Source, Widths};

/// Reads pattern files, and writes the decoder to Cargo's output directory.
///
/// ```no_run
/// // build.rs
/// use cairn_decodetree::{Build, BuildError, Widths};
///
/// fn main() -> Result<(), BuildError> {
///     Build::new()
///         .file("src/insn32.decode", "decode32", Widths::fixed(32))
///         .file("src/insn16.decode", "decode16", Widths::fixed(16))
///         .write("decode.rs")
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Build {
    files: Vec<(PathBuf, String, Widths)>,
    options: Options,
}

impl Build {
    /// Nothing to compile yet.
    pub fn new() -> Build {
        Build::default()
    }

    /// Adds the pattern file at `path`, which becomes the function `decoder`.
    pub fn file(mut self, path: impl Into<PathBuf>, decoder: &str, widths: Widths) -> Build {
        self.files.push((path.into(), decoder.to_owned(), widths));
        self
    }

    /// Sets the options of the generated code.
    pub fn options(mut self, options: Options) -> Build {
        self.options = options;
        self
    }

    /// Compiles the files and writes `$OUT_DIR/name`, telling Cargo to run again when a file changes.
    pub fn write(self, name: &str) -> Result<(), BuildError> {
        let out = env::var_os("OUT_DIR").ok_or(BuildError::NoOutDir)?;
        for (path, _, _) in &self.files {
            println!("cargo::rerun-if-changed={}", path.display());
        }
        self.write_to(&Path::new(&out).join(name))
    }

    /// Compiles the files and writes the decoder to `path`.
    pub fn write_to(self, path: &Path) -> Result<(), BuildError> {
        let mut sources = Vec::with_capacity(self.files.len());
        for (path, decoder, widths) in self.files {
            match fs::read_to_string(&path) {
                Ok(text) => {
                    sources.push(Source::new(path.display().to_string(), text, decoder, widths));
                }
                Err(error) => return Err(BuildError::Io(path, error)),
            }
        }
        let unit = crate::compile(&sources).map_err(BuildError::Patterns)?;
        let code = codegen::rust(&unit, &self.options);
        fs::write(path, code).map_err(|error| BuildError::Io(path.to_owned(), error))
    }
}

/// Why a build script could not make a decoder.
pub enum BuildError {
    /// `OUT_DIR` is not set: this is not a build script.
    NoOutDir,
    /// A file could not be read or written.
    Io(PathBuf, io::Error),
    /// The pattern files have errors.
    Patterns(Errors),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::NoOutDir => f.write_str("OUT_DIR is not set; run this from a build script"),
            BuildError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            BuildError::Patterns(errors) => errors.fmt(f),
        }
    }
}

// Debug shows the same text, because a build script that returns an error from `main` prints Debug.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Patterns(errors) => fmt::Debug::fmt(errors, f),
            _ => fmt::Display::fmt(self, f),
        }
    }
}

impl std::error::Error for BuildError {}
