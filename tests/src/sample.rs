//! Sample disks with a real file system, made from the files of the running system.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Trees that files are taken from, in this order, until the budget is used.
const TREES: [&str; 5] = ["/usr/bin", "/usr/lib", "/usr/share", "/usr/include", "/var/lib"];
const UUID: &str = "6361726e-0000-4000-8000-73616d706c65";
const BLOCK: u64 = 4096;

/// A sample disk to make.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Bytes of files to put into it at most.
    pub files: u64,
}

impl Disk {
    /// The disk below `dir`, made on first use; processes that ask at the same time wait for one of them.
    pub fn cached(self, dir: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("sample-{}-mib.raw", self.size >> 20));
        let lock = File::create(path.with_extension("lock"))?;
        lock.lock()?;
        if !path.exists() {
            self.make(&path)?;
        }
        Ok(path)
    }

    /// 6 GiB with about 4 GiB of files.
    pub const FULL: Self = Self { size: 6 << 30, files: 4 << 30 };
    /// 512 MiB with about 340 MiB of files.
    pub const QUICK: Self = Self { size: 512 << 20, files: 340 << 20 };
    /// 256 MiB with about 120 MiB of files.
    pub const SMALL: Self = Self { size: 256 << 20, files: 120 << 20 };

    /// Makes the disk as a sparse ext4 image at `path`, staging its files beside it.
    ///
    /// Needs `mke2fs` 1.43 or newer (`-d`). The recipe is fixed: the same system gives the same file system.
    pub fn make(self, path: &Path) -> io::Result<()> {
        let stage = path.with_extension("stage");
        remove_tree(&stage)?;
        let mut copied = Staged { budget: self.files, files: 0 };
        for tree in TREES.map(Path::new).into_iter().filter(|tree| tree.is_dir()) {
            let target = stage.join(tree.strip_prefix("/").unwrap_or(tree));
            copied.tree(tree, &target)?;
        }
        let unfinished = path.with_extension("part");
        File::create(&unfinished)?.set_len(self.size)?;
        let inodes = copied.files + copied.files / 8 + 64;
        let made = Command::new(mke2fs())
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-U", UUID])
            .args(["-E", &format!("hash_seed={UUID},root_owner=0:0"), "-N", &inodes.to_string()])
            .arg("-d")
            .arg(&stage)
            .arg(&unfinished)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()?;
        remove_tree(&stage)?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(io::Error::other(format!("mke2fs failed: {said}")));
        }
        fs::rename(unfinished, path)
    }
}

/// `mke2fs` lies in the administrator's folder, which is not in everyone's `$PATH`.
fn mke2fs() -> PathBuf {
    crate::tool::find_in_path("mke2fs").unwrap_or_else(|| PathBuf::from("/sbin/mke2fs"))
}

struct Staged {
    budget: u64,
    files: u64,
}

impl Staged {
    /// Copies folders, links and files below `from`, in name order, while the budget lasts.
    fn tree(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        let mut entries: Vec<DirEntry> = fs::read_dir(from)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(DirEntry::file_name);
        for entry in entries {
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() && self.budget > 0 {
                self.tree(&source, &target)?;
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
            } else if kind.is_file() {
                self.file(&source, &target)?;
            }
            self.files += 1;
        }
        Ok(())
    }

    /// Copies one file if it still fits and may be read.
    fn file(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let size = fs::metadata(source)?.len().next_multiple_of(BLOCK);
        if size > self.budget {
            return Ok(());
        }
        match fs::copy(source, target) {
            Ok(_) => self.budget -= size,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
