//! Making the files that new images are written to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::driver::{DriverInfo, Perm};
use crate::error::{Error, Result};
use crate::graph::{Backend, Graph, NodeFlags, OpenOptions};
use crate::options::Dict;
use crate::options::filename::{locate, protocol_for_path};

/// What creating needs of the files it writes.
pub(super) const USED: Perm = Perm::CONSISTENT_READ.union(Perm::WRITE).union(Perm::RESIZE);

/// A file that creating made, and removes again if it fails.
pub(super) struct Created {
    /// Local path of a file that was not there before.
    path: Option<PathBuf>,
}

impl Created {
    /// Creates the file `filename` of `protocol`, with what `options` say to the protocol.
    pub(super) async fn new(
        graph: &Arc<Graph>,
        protocol: &'static DriverInfo,
        filename: &str,
        options: Dict,
    ) -> Result<Created> {
        let create = protocol
            .create
            .ok_or_else(|| Error::unsupported(filename, "this protocol cannot create files"))?;
        let path = local_path(protocol, filename).filter(|path| !path.exists());
        let created = Created { path };
        match create(graph, filename, options).await {
            Ok(()) => Ok(created),
            Err(error) => {
                created.remove();
                Err(error)
            }
        }
    }

    /// Removes the file again, if it was not there before.
    pub(super) fn remove(self) {
        if let Some(path) = self.path {
            // The failure that led here is the one to report.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn local_path(protocol: &DriverInfo, filename: &str) -> Option<PathBuf> {
    let path = filename.strip_prefix("file:").unwrap_or(filename);
    (protocol.name == "file").then(|| Path::new(path).to_owned())
}

/// Opens a file to be written. A `path` is never taken for anything else.
pub(super) async fn open_file(graph: &Arc<Graph>, name: FileName<'_>) -> Result<Backend> {
    let flags = NodeFlags { unmap: true, ..NodeFlags::default() };
    let what = match name {
        FileName::Any(name) => {
            let driver = locate(name, None)?.driver.name;
            OpenOptions::file(name, Some(driver), flags)
        }
        FileName::Path(path) => {
            let mut options = Dict::default();
            options.insert("driver", protocol_for_path(path)?.name);
            options.insert("filename", path);
            OpenOptions { filename: None, options, flags }
        }
    };
    let node = graph.open(what).await?;
    Backend::new(graph, node, "create", USED, Perm::all())
}

/// How a file is named.
pub(super) enum FileName<'n> {
    /// By a name that may begin with a protocol.
    Any(&'n str),
    /// By a path, as a data file.
    Path(&'n str),
}
