//! Files as the guest names them: the sysroot comes first, and some files of `/proc` are the guest's own.

mod own;

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) use own::{View, view};

/// The folder that has the guest's libraries, laid over the root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sysroot(Option<PathBuf>);

impl Sysroot {
    /// Files are looked for in `folder` first. Without one, or if it is not there, names mean what they say.
    pub(crate) fn new(folder: Option<&OsStr>) -> Sysroot {
        let folder = folder.map(PathBuf::from).filter(|folder| folder.is_dir());
        Sysroot(folder.and_then(|folder| std::path::absolute(folder).ok()))
    }

    /// Where `path` is looked up: in the sysroot if it is absolute and there, links inside included, else as it is.
    pub(crate) fn resolve(&self, path: &CStr) -> CString {
        let bytes = path.to_bytes();
        let (Some(root), true) = (&self.0, bytes.starts_with(b"/")) else { return path.into() };
        let inside = inside(root, Path::new(OsStr::from_bytes(bytes)));
        let found = inside.filter(|path| path.symlink_metadata().is_ok());
        found
            .and_then(|path| CString::new(path.into_os_string().into_encoded_bytes()).ok())
            .unwrap_or_else(|| path.into())
    }
}

/// How many links are followed before it is given up (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

/// `path` below `root`. Absolute links on the way lead to places below `root`, too; the last name is left as it
/// is, unless it is an absolute link: the caller decides whether it is followed.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut links = 0;
    let mut rest: Vec<_> =
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
    let mut at = root.to_owned();
    while let Some(name) = rest.pop() {
        match name.as_bytes() {
            b"/" => root.clone_into(&mut at),
            b"." => {}
            b".." if at == root => {}
            b".." => {
                at.pop();
            }
            _ => {
                at.push(&name);
                let Ok(target) = at.read_link() else { continue };
                // Whatever follows a relative link as the last name finds the same as we would.
                if rest.is_empty() && target.is_relative() {
                    continue;
                }
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                at.pop();
                rest.extend(target.components().rev().map(|part| part.as_os_str().to_owned()));
            }
        }
    }
    Some(at)
}

/// The path of an open file, as the kernel shows it.
pub(crate) fn path_of(file: BorrowedFd<'_>) -> String {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_in_a_sysroot_stay_in_it() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir_all(path("usr/lib")).unwrap();
        std::fs::write(path("usr/lib/libx.so.1"), "").unwrap();
        symlink("usr/lib", path("lib")).unwrap();
        symlink("/usr/lib/libx.so.1", path("usr/lib/absolute.so")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let sysroot = Sysroot::new(Some(root.path().as_os_str()));
        let resolve = |name: &str| {
            let name = CString::new(name).unwrap();
            PathBuf::from(OsStr::from_bytes(sysroot.resolve(&name).as_bytes()))
        };
        assert_eq!(resolve("/lib/libx.so.1"), path("usr/lib/libx.so.1"));
        assert_eq!(resolve("/lib/absolute.so"), path("usr/lib/libx.so.1"));
        assert_eq!(resolve("/../usr/./lib"), path("usr/lib"));
        assert_eq!(resolve("/nowhere"), Path::new("/nowhere"));
        assert_eq!(resolve("usr/lib"), Path::new("usr/lib"));
        assert_eq!(resolve("/loop/x"), Path::new("/loop/x"));
    }
}
