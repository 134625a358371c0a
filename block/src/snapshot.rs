//! Internal snapshots as users name and describe them.

use std::fmt;

use crate::driver::SnapshotInfo;
use crate::error::Error;

/// Which snapshot of an image is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotKey {
    /// The one with this ID, else the first one with this name.
    IdOrName(String),
    /// The first one that has all that is given.
    Exact {
        /// Its ID.
        id: Option<String>,
        /// Its name.
        name: Option<String>,
    },
}

impl SnapshotKey {
    /// Position in `snapshots` of the one that is meant.
    pub fn find(&self, snapshots: &[SnapshotInfo]) -> Option<usize> {
        match self {
            SnapshotKey::IdOrName(text) => snapshots
                .iter()
                .position(|s| s.id == *text)
                .or_else(|| snapshots.iter().position(|s| s.name == *text)),
            SnapshotKey::Exact { id, name } => snapshots.iter().position(|s| {
                id.as_ref().is_none_or(|id| s.id == *id)
                    && name.as_ref().is_none_or(|name| s.name == *name)
            }),
        }
    }

    /// The failure to find it.
    pub fn not_found(&self) -> Error {
        Error::Name { what: "snapshot", name: self.to_string(), problem: "does not exist" }
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotKey::IdOrName(text) => f.write_str(text),
            SnapshotKey::Exact { id, name } => {
                let parts: Vec<&str> =
                    [id.as_deref(), name.as_deref()].into_iter().flatten().collect();
                f.write_str(&parts.join("/"))
            }
        }
    }
}

/// A snapshot to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Name given by the user; need not be unique.
    pub name: String,
    /// Seconds since 1970.
    pub date_sec: u32,
    /// Nanoseconds of the date.
    pub date_nsec: u32,
    /// Guest clock in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Bytes of machine state, which was saved before.
    pub vm_state_size: u64,
    /// Guest instruction count.
    pub icount: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<SnapshotInfo> {
        [("1", "2"), ("2", "b"), ("3", "b")]
            .map(|(id, name)| SnapshotInfo {
                id: id.to_owned(),
                name: name.to_owned(),
                ..SnapshotInfo::default()
            })
            .to_vec()
    }

    #[test]
    fn ids_come_before_names() {
        let find = |text: &str| SnapshotKey::IdOrName(text.to_owned()).find(&list());
        assert_eq!((find("2"), find("b"), find("c")), (Some(1), Some(1), None));
    }

    #[test]
    fn all_that_is_given_must_agree() {
        let find = |id: Option<&str>, name: Option<&str>| {
            let text = |s: &str| s.to_owned();
            SnapshotKey::Exact { id: id.map(text), name: name.map(text) }.find(&list())
        };
        assert_eq!(find(Some("3"), Some("b")), Some(2));
        assert_eq!(find(Some("1"), Some("b")), None);
        assert_eq!(find(None, Some("b")), Some(1));
    }
}
