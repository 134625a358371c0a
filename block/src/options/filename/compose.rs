//! From a node back to a filename: a plain name where that describes the node, else `json:{…}`.

use crate::driver::{DriverInfo, DriverKind};
use crate::options::json;
use crate::options::tree::flatten;
use crate::options::value::{Dict, Value};

/// Longest filename of a node in bytes, by the reference's buffer.
const MAX_FILENAME: usize = 4095;

/// What describes a node to someone who wants to open it again.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeIdentity {
    /// A plain name that opens this very node, if there is one.
    pub exact: Option<String>,
    /// Options that open this very node.
    pub options: Dict,
}

impl NodeIdentity {
    /// The name to show and to store: the plain one, else a `json:` name (cut short, with `...` at
    /// the end, where it is too long).
    pub fn filename(&self) -> String {
        if let Some(exact) = &self.exact {
            return exact.clone();
        }
        let mut name = format!("json:{}", json::compact(&Value::Dict(self.options.clone())));
        if name.len() > MAX_FILENAME {
            // JSON text is ASCII, so any place is fit for the cut.
            name.truncate(MAX_FILENAME - 3);
            name.push_str("...");
        }
        name
    }
}

/// A child as it matters to its parent's identity.
#[derive(Clone, Copy, Debug)]
pub struct ChildIdentity<'n> {
    /// Name of the edge: `file`, `backing` …
    pub key: &'n str,
    /// The child's identity.
    pub identity: &'n NodeIdentity,
    /// The child is a protocol.
    pub is_protocol: bool,
    /// The child's name is the parent's name.
    pub is_primary: bool,
}

/// The identity of a node of the driver `info` that was opened with the options `given`.
///
/// `exact` is the plain name that a protocol, or a filter with names of its own, has found for
/// itself; it counts unless strong options say more. Formats take that of their primary child. `children` lists the children,
/// the backing file only if it is not the one that the image names; `no_backing` tells that the
/// image names one and the user has taken it away.
pub fn identify(
    info: &DriverInfo,
    given: &Dict,
    exact: Option<String>,
    children: &[ChildIdentity<'_>],
    no_backing: bool,
) -> NodeIdentity {
    let mut options = Dict::new();
    // The file name is always part of the description, and the plain name says the same.
    for desc in info.options.iter().filter(|desc| desc.strong && desc.name != "filename") {
        if let Some(value) = given.get_path(desc.name) {
            let group = Dict::from([(desc.name, value.clone())]);
            for (key, value) in flatten(group) {
                options.insert(key, value);
            }
        }
    }
    let backing_changed = no_backing || children.iter().any(|child| child.key == "backing");
    let name_suffices = options.is_empty() && !backing_changed;
    options.insert("driver", info.name);
    if let Some(filename) = given.get("filename") {
        options.insert("filename", filename.clone());
    }
    for child in children {
        options.insert(child.key.to_owned(), child.identity.options.clone());
    }
    if no_backing {
        options.insert("backing", Value::Null);
    }
    let exact = match info.kind {
        DriverKind::Protocol | DriverKind::Filter => exact.filter(|_| name_suffices),
        DriverKind::Format => children
            .iter()
            .find(|child| child.is_primary && child.is_protocol && name_suffices)
            .and_then(|child| child.identity.exact.clone()),
    };
    NodeIdentity { exact, options }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, DriverFuture, unsupported};
    use crate::graph::OpenContext;
    use crate::options::{OptionDesc, Size};

    crate::options! {
        /// Strong and weak options.
        struct FormatOptions {
            /// Strong.
            "offset" => offset: Option<Size> [strong],
            /// Strong.
            "size" => size: Option<Size> [strong],
            /// Weak.
            "lazy-refcounts" => lazy_refcounts: Option<bool>,
            /// Strong group.
            "server" => server: Option<Vec<String>> [strong],
        }
    }

    fn open<'a>(_: &'a mut OpenContext<'_>) -> DriverFuture<'a, Box<dyn Driver>> {
        unsupported("test", "a registry entry for names only")
    }

    const fn info(
        name: &'static str,
        kind: DriverKind,
        options: &'static [OptionDesc],
    ) -> DriverInfo {
        DriverInfo {
            name,
            kind,
            open,
            probe: None,
            prefixes: &[],
            parse_filename: None,
            probe_device: None,
            options,
            create_options: &[],
            create: None,
            measure: None,
            supports_backing: false,
        }
    }

    crate::options! {
        /// A protocol's options.
        struct FileOptions {
            /// Name.
            "filename" => filename: String [strong],
        }
    }

    static FILE: DriverInfo = info("file", DriverKind::Protocol, FileOptions::TABLE);
    static RAW: DriverInfo = info("raw", DriverKind::Format, FormatOptions::TABLE);
    static FILTER: DriverInfo = info("throttle", DriverKind::Filter, FormatOptions::TABLE);

    fn file(path: &str) -> NodeIdentity {
        let given = Dict::from([("filename", path), ("locking", "off")]);
        identify(&FILE, &given, Some(path.to_owned()), &[], false)
    }

    fn child<'n>(key: &'n str, identity: &'n NodeIdentity, is_protocol: bool) -> ChildIdentity<'n> {
        ChildIdentity { key, identity, is_protocol, is_primary: key == "file" }
    }

    fn raw(given: Dict, file: &NodeIdentity, is_protocol: bool) -> NodeIdentity {
        identify(&RAW, &given, None, &[child("file", file, is_protocol)], false)
    }

    /// Descriptions and the names that `qemu-img info` 10.0.2 printed for them.
    #[test]
    fn plain_names_where_they_suffice() {
        let file = file("a.raw");
        assert_eq!(file.filename(), "a.raw");
        assert_eq!(raw(Dict::new(), &file, true).filename(), "a.raw");
        assert_eq!(raw(Dict::from([("lazy-refcounts", true)]), &file, true).filename(), "a.raw");
        let mut given = Dict::from([("offset", 512)]);
        given.insert("size", "1k");
        assert_eq!(
            raw(given, &file, true).filename(),
            "json:{\"offset\": 512, \"driver\": \"raw\", \"size\": \"1k\", \
             \"file\": {\"driver\": \"file\", \"filename\": \"a.raw\"}}"
        );
        let inner = raw(Dict::new(), &file, true);
        assert_eq!(
            raw(Dict::new(), &inner, false).filename(),
            "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"raw\", \
             \"file\": {\"driver\": \"file\", \"filename\": \"a.raw\"}}}"
        );
    }

    #[test]
    fn filters_and_changed_backing_files_need_json_names() {
        let file = file("a");
        let filter = identify(&FILTER, &Dict::new(), None, &[child("file", &file, true)], false);
        assert_eq!(filter.exact, None);
        let without = identify(&RAW, &Dict::new(), None, &[child("file", &file, true)], true);
        assert!(without.filename().contains("\"backing\": null"));
        let children = [child("file", &file, true), child("backing", &filter, false)];
        let other = identify(&RAW, &Dict::new(), None, &children, false);
        assert!(other.filename().contains("\"backing\": {\"driver\": \"throttle\""));
    }

    #[test]
    fn groups_are_written_with_dots() {
        let given = Dict::from([("server", vec!["x", "y"])]);
        let name = raw(given, &file("a"), true).filename();
        assert!(name.contains("\"server.0\": \"x\"") && name.contains("\"server.1\": \"y\""));
    }

    #[test]
    fn long_names_are_cut() {
        let mut node = file("a.raw");
        for depth in 0..120 {
            node = raw(Dict::from([("offset", 0)]), &node, depth == 0);
        }
        let name = node.filename();
        assert_eq!(name.len(), 4095);
        assert!(name.ends_with("\"driver\": \"raw\", ..."));
    }
}
