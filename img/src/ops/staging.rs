//! A file that gets its name when it is complete.
//!
//! A new image is written under a temporary name in the directory where it belongs, and renamed when
//! all of it is there. Until then the file that had the name before stays as it was, and a failure,
//! a signal or a crash leaves no half image that looks like a whole one.
//!
//! Only a plain file can be replaced without anyone noticing more than the new content, so the name
//! is written to directly, as the reference does, when it
//! * is not a local path (other protocols), or names a device, pipe or directory;
//! * is a symbolic link to something that does not exist (a link to a file is followed first), or a
//!   link to a file in another directory while the image names a backing file relative to its own;
//! * has further hard links, which would keep the old content;
//! * has an owner, group or extended attributes (access lists, labels) that the new file cannot be
//!   given;
//! * lies in a directory where no file can be made.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Longest file name on common file systems, in bytes.
const NAME_MAX: usize = 255;
/// Attempts to find a temporary name that is not taken.
const ATTEMPTS: u32 = 100;

/// A new file on its way to its name. Dropped before [`Staging::commit`], it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Staging {
    temporary: PathBuf,
    destination: PathBuf,
    /// The file that will be replaced.
    replaced: Option<Metadata>,
    /// The temporary file stays when it does not get its name.
    kept: bool,
    committed: bool,
}

impl Staging {
    /// Stages the local file called `filename`, if it can be staged at all; see the module's text.
    /// `stay` forbids to follow a link into another directory.
    pub(super) fn begin(filename: &str, stay: bool) -> Option<Staging> {
        let destination = local_path(filename)?;
        let (destination, replaced) = Staging::target(destination, stay)?;
        let temporary = free_name(&destination)?;
        // The file is made by the driver; here it only matters whether that can work.
        fs::File::create_new(&temporary).ok()?;
        let staging = Staging { temporary, destination, replaced, kept: false, committed: false };
        staging.owner_fits().then_some(staging)
    }

    /// Stages the local file called `filename` under a name that a later run finds again. Tells whether
    /// an earlier run has left one.
    pub(super) fn begin_lasting(filename: &str) -> Option<(Staging, bool)> {
        let (destination, replaced) = Staging::target(local_path(filename)?, false)?;
        let temporary = lasting_name(&destination, "part")?;
        let is_there = fs::symlink_metadata(&temporary).is_ok();
        if is_there && !fs::symlink_metadata(&temporary).is_ok_and(|meta| meta.is_file()) {
            return None;
        }
        if !is_there {
            fs::File::create_new(&temporary).ok()?;
        }
        let staging =
            Staging { temporary, destination, replaced, kept: is_there, committed: false };
        staging.owner_fits().then_some((staging, is_there))
    }

    /// A file beside the one that is staged by [`Staging::begin_lasting`], with what belongs to it.
    pub(super) fn companion(&self) -> Option<PathBuf> {
        lasting_name(&self.destination, "journal")
    }

    /// Lets the temporary file stay when it does not get its name.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// The file that `destination` stands for, and what is there already.
    fn target(destination: PathBuf, stay: bool) -> Option<(PathBuf, Option<Metadata>)> {
        Some(match fs::symlink_metadata(&destination) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (destination, None),
            Err(_) => return None,
            Ok(_) => {
                let real = fs::canonicalize(&destination).ok()?;
                let metadata = fs::metadata(&real).ok()?;
                if !metadata.is_file() || metadata.nlink() > 1 || has_attributes(&real) {
                    return None;
                }
                if stay && fs::canonicalize(directory(&destination)).ok()? != directory(&real) {
                    return None;
                }
                (real, Some(metadata))
            }
        })
    }

    /// The plain file that creating `filename` would replace, if any. Fails where no file could be
    /// made.
    pub(super) fn destination(filename: &str) -> Result<Option<String>> {
        let Some(path) = local_path(filename) else { return Ok(None) };
        let error = |what, source| Error::File { what, path: path.clone(), source };
        match fs::metadata(&path) {
            Ok(old) if old.is_file() => Ok(path.to_str().map(str::to_owned)),
            Ok(_) => Ok(None),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                match fs::metadata(directory(&path)) {
                    Ok(found) if found.is_dir() => Ok(None),
                    Ok(_) => {
                        let source = io::Error::from(io::ErrorKind::NotADirectory);
                        Err(error("cannot create", source))
                    }
                    Err(source) => Err(error("cannot create", source)),
                }
            }
            Err(source) => Err(error("cannot look at", source)),
        }
    }

    /// The name to create the image under.
    pub(super) fn temporary(&self) -> Option<&str> {
        self.temporary.to_str()
    }

    /// The file that will be replaced, which must not be in use by anyone.
    pub(super) fn replaced(&self) -> Option<&str> {
        self.replaced.as_ref().and(self.destination.to_str())
    }

    /// Gives the finished file its name, and the mode and owner of the file that it replaces.
    pub(super) fn commit(mut self) -> Result<()> {
        if let Some(old) = &self.replaced {
            fs::set_permissions(&self.temporary, old.permissions())
                .map_err(|source| self.error("cannot set the mode of", source))?;
        }
        fs::rename(&self.temporary, &self.destination)
            .map_err(|source| self.error("cannot give its name to", source))?;
        self.committed = true;
        Ok(())
    }

    /// Gives the temporary file the owner of the file that it will replace.
    fn owner_fits(&self) -> bool {
        let Some(old) = &self.replaced else { return true };
        let Ok(new) = fs::metadata(&self.temporary) else { return false };
        (new.uid(), new.gid()) == (old.uid(), old.gid())
            || chown(&self.temporary, Some(old.uid()), Some(old.gid())).is_ok()
    }

    fn error(&self, what: &'static str, source: io::Error) -> Error {
        Error::File { what, path: self.destination.clone(), source }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.committed && !self.kept {
            // There is nobody left to tell; at worst a hidden temporary file stays.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The path that a file name stands for, unless it has another protocol than `file`.
fn local_path(filename: &str) -> Option<PathBuf> {
    if let Some(path) = filename.strip_prefix("file:") {
        return Some(path.into());
    }
    let first = filename.split('/').next().unwrap_or_default();
    (!filename.is_empty() && !first.contains(':')).then(|| filename.into())
}

/// The directory of the file at `path`.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name beside `destination` that is not taken.
fn free_name(destination: &Path) -> Option<PathBuf> {
    let name = destination.file_name()?;
    let id = std::process::id();
    (0..ATTEMPTS)
        .map(|attempt| {
            let suffix = format!(".{id:x}-{attempt}.part");
            let mut hidden = OsString::from(".");
            if name.len() + suffix.len() < NAME_MAX {
                hidden.push(name);
            }
            hidden.push(suffix);
            destination.with_file_name(hidden)
        })
        .find(|path| fs::symlink_metadata(path).is_err())
}

/// The name of a file with this `ending` that goes with `destination`.
fn lasting_name(destination: &Path, ending: &str) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(destination.file_name()?);
    name.push(format!(".resume.{ending}"));
    // Room for a name with something behind it.
    (name.len() + 8 < NAME_MAX).then(|| destination.with_file_name(name))
}

/// Whether a file has extended attributes that a new file would not have by itself.
fn has_attributes(path: &Path) -> bool {
    let mut names = Vec::with_capacity(4096);
    match rustix::fs::listxattr(path, rustix::buffer::spare_capacity(&mut names)) {
        // Labels that the system's policy gives to new files in this place, too.
        Ok(_) => names
            .split(|&byte| byte == 0)
            .any(|name| !name.is_empty() && name != b"security.selinux"),
        Err(rustix::io::Errno::NOTSUP) => false,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Dir {
            Dir(tempfile::tempdir().expect("a temporary directory"))
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).to_str().expect("UTF-8").to_owned()
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.0.path())
                .expect("readable")
                .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn a_new_file_appears_when_it_is_complete() {
        let dir = Dir::new();
        let staging = Staging::begin(&dir.path("new"), false).expect("can be staged");
        fs::write(staging.temporary().expect("UTF-8"), "content").expect("writable");
        assert!(fs::metadata(dir.path("new")).is_err());
        staging.commit().expect("renamed");
        assert_eq!(fs::read(dir.path("new")).expect("there"), b"content");
        assert_eq!(dir.names(), ["new"]);
    }

    #[test]
    fn failure_leaves_the_old_file_and_nothing_else() {
        let dir = Dir::new();
        fs::write(dir.path("disk"), "old").expect("writable");
        let staging = Staging::begin(&dir.path("disk"), false).expect("can be staged");
        fs::write(staging.temporary().expect("UTF-8"), "half").expect("writable");
        drop(staging);
        assert_eq!(fs::read(dir.path("disk")).expect("there"), b"old");
        assert_eq!(dir.names(), ["disk"]);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_links() {
        let dir = Dir::new();
        fs::write(dir.path("disk"), "old").expect("writable");
        fs::set_permissions(dir.path("disk"), Permissions::from_mode(0o640)).expect("own file");
        symlink("disk", dir.path("link")).expect("link");
        let staging = Staging::begin(&dir.path("link"), false).expect("can be staged");
        assert!(staging.replaced().expect("the old file").ends_with("disk"));
        staging.commit().expect("renamed");
        assert_eq!(fs::read(dir.path("disk")).expect("there"), b"");
        let mode = fs::metadata(dir.path("disk")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(fs::symlink_metadata(dir.path("link")).expect("there").is_symlink());
        assert_eq!(dir.names(), ["disk", "link"]);
    }

    #[test]
    fn an_image_that_names_its_neighbours_stays_in_its_directory() {
        let (dir, other) = (Dir::new(), Dir::new());
        fs::write(other.path("disk"), "old").expect("writable");
        symlink(other.path("disk"), dir.path("link")).expect("link");
        assert!(Staging::begin(&dir.path("link"), true).is_none());
        assert!(Staging::begin(&dir.path("link"), false).is_some());
        assert!(Staging::begin(&other.path("disk"), true).is_some());
    }

    #[test]
    fn what_cannot_be_replaced_is_written_in_place() {
        let dir = Dir::new();
        fs::write(dir.path("a"), "old").expect("writable");
        fs::hard_link(dir.path("a"), dir.path("b")).expect("link");
        symlink("nowhere", dir.path("dangling")).expect("link");
        fs::create_dir(dir.path("dir")).expect("directory");
        for name in ["a", "dangling", "dir", "no-such-dir/x"] {
            assert!(Staging::begin(&dir.path(name), false).is_none(), "{name}");
        }
        for name in ["", "/dev/null", "nbd://localhost/x", "rbd:pool/image"] {
            assert!(Staging::begin(name, false).is_none(), "{name}");
        }
        assert_eq!(dir.names(), ["a", "b", "dangling", "dir"]);
    }

    #[test]
    fn long_names_are_staged_too() {
        let dir = Dir::new();
        let name = dir.path(&"x".repeat(255));
        Staging::begin(&name, false).expect("can be staged").commit().expect("renamed");
        assert!(fs::metadata(name).is_ok());
    }
}
