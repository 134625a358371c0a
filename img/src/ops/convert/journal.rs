//! How far a conversion has come, kept in a file so that another run can go on.
//!
//! The journal lies beside the unfinished target. It says what is being converted, from which files in
//! which state, and up to which offset the target has everything durably. It is replaced as a whole, so
//! that a power cut leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_block::graph::Node;
use cairn_block::options::{Dict, Value, json};
use parking_lot::Mutex;

use super::source::Sources;
use crate::error::{Error, Result};

/// Time between two records.
const INTERVAL: Duration = Duration::from_secs(2);
/// Version of the journal's form.
const VERSION: u64 = 1;
/// Longest journal that is read, in bytes.
const MAX_LENGTH: u64 = 16 << 20;

/// What a conversion is one of: two runs with the same description give the same target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Description(Dict);

impl Description {
    /// The conversion that `request` describes, of `sources` as they are now.
    pub(super) fn new(request: String, sources: &Sources) -> Result<Description> {
        let mut files = Vec::new();
        for backend in sources.backends() {
            list_files(&backend.node(), &mut files)?;
        }
        let mut dict = Dict::new();
        dict.insert("version", VERSION);
        dict.insert("request", request);
        dict.insert("size", sources.size());
        dict.insert("sources", files);
        Ok(Description(dict))
    }
}

/// The files that `node` reads, each with what changes when it is changed.
fn list_files(node: &Arc<Node>, files: &mut Vec<Dict>) -> Result<()> {
    let children = node.children();
    for edge in &children {
        list_files(&edge.node(), files)?;
    }
    if !children.is_empty() {
        return Ok(());
    }
    let name = node.base_filename().unwrap_or_default();
    // The times of a device do not tell when its content was changed.
    let found = fs::canonicalize(&name).and_then(|path| Ok((fs::metadata(&path)?, path)));
    let Some((meta, path)) = found.ok().filter(|(meta, _)| meta.is_file()) else {
        return Err(Error::Usage(format!(
            "--resume cannot tell whether '{}' stays unchanged: it is no local file",
            node.label()
        )));
    };
    let mut file = Dict::new();
    file.insert("file", path.to_string_lossy().into_owned());
    file.insert("size", node.size());
    file.insert("device", meta.dev());
    file.insert("inode", meta.ino());
    file.insert("mtime", meta.mtime());
    file.insert("mtime-nsec", meta.mtime_nsec());
    files.push(file);
    Ok(())
}

/// The journal of a conversion under way.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    description: Description,
    /// When it was written last.
    written: Mutex<Instant>,
}

/// What a journal that was found says.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// There is none.
    Nothing,
    /// The conversion had come this far, in bytes.
    Position(u64),
    /// Another conversion, or of other sources; what differs.
    Other(&'static str),
}

impl Journal {
    /// The journal at `path` of the conversion that `description` is about.
    pub(super) fn new(path: PathBuf, description: Description) -> Journal {
        Journal { path, description, written: Mutex::new(Instant::now()) }
    }

    /// What an earlier run has left.
    pub(super) fn find(&self) -> Result<Found> {
        let error = |source| Error::File {
            what: "cannot read the journal",
            path: self.path.clone(),
            source,
        };
        let text = match fs::metadata(&self.path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(source) => return Err(error(source)),
            Ok(meta) if meta.len() > MAX_LENGTH => return Ok(Found::Other("it is no journal")),
            Ok(_) => fs::read_to_string(&self.path).map_err(error)?,
        };
        let Ok(Value::Dict(mut found)) = json::parse(&text) else {
            return Ok(Found::Other("it is no journal"));
        };
        let done = match found.remove("done") {
            Some(Value::Int(done)) => u64::try_from(done).ok(),
            Some(Value::Uint(done)) => Some(done),
            _ => None,
        };
        let Some(done) = done else { return Ok(Found::Other("it is no journal")) };
        let own = &self.description.0;
        let same = |key: &str| found.get(key) == own.get(key);
        Ok(if !same("version") {
            Found::Other("it is of another version")
        } else if !same("request") {
            Found::Other("the conversion had other options")
        } else if !same("sources") || !same("size") {
            Found::Other("the source has changed since")
        } else {
            Found::Position(done)
        })
    }

    /// Whether enough time has passed for another record.
    pub(super) fn is_due(&self) -> bool {
        self.written.lock().elapsed() >= INTERVAL
    }

    /// Records that the target has everything before `done` durably.
    pub(super) fn store(&self, done: u64) -> Result<()> {
        let mut dict = self.description.0.clone();
        dict.insert("done", done);
        let text = json::pretty(&Value::Dict(dict));
        replace(&self.path, text.as_bytes()).map_err(|source| Error::File {
            what: "cannot write the journal",
            path: self.path.clone(),
            source,
        })?;
        *self.written.lock() = Instant::now();
        Ok(())
    }

    /// Removes the journal of a conversion that is complete, or that is to begin anew.
    pub(super) fn remove(&self) -> Result<()> {
        // A run that was cut off while it recorded something has left its successor, too.
        for path in [&self.path, &successor(&self.path)] {
            match fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    let what = "cannot remove the journal";
                    return Err(Error::File { what, path: path.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The name of what is to replace the file at `path`.
fn successor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Replaces the file at `path` durably.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = successor(path);
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(request: &str, mtime: u64) -> Description {
        let file = Dict::from([("file", Value::from("a.raw")), ("mtime", mtime.into())]);
        Description(Dict::from([
            ("version", Value::from(VERSION)),
            ("request", request.into()),
            ("size", 4096u64.into()),
            ("sources", vec![file].into()),
        ]))
    }

    #[test]
    fn only_the_same_conversion_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let journal = |request, mtime| Journal::new(path.clone(), description(request, mtime));
        assert_eq!(journal("x", 1).find().expect("readable"), Found::Nothing);
        journal("x", 1).store(1234).expect("writable");
        journal("x", 1).store(4096).expect("writable");
        assert_eq!(journal("x", 1).find().expect("readable"), Found::Position(4096));
        assert!(matches!(journal("y", 1).find().expect("readable"), Found::Other(_)));
        assert_eq!(
            journal("x", 2).find().expect("readable"),
            Found::Other("the source has changed since")
        );
        fs::write(&path, "{\"done\": -1}").expect("writable");
        assert!(matches!(journal("x", 1).find().expect("readable"), Found::Other(_)));
        journal("x", 1).remove().expect("removable");
        journal("x", 1).remove().expect("nothing to do");
        assert_eq!(journal("x", 1).find().expect("readable"), Found::Nothing);
    }
}
