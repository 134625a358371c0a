//! Image locks: how processes agree who may use a file how.
//!
//! The protocol is the reference's, so that both exclude each other. For each permission *i* that a
//! process uses it holds a shared lock on byte 100 + *i* of the file, and for each that it does not
//! share with others one on byte 200 + *i*. Locks are taken first and then tested against those of
//! others, so of two processes that start at the same time at most one wins. Byte 100 + 4 and
//! 200 + 4 belong to a permission that is no longer used.

use std::io;

use super::holder;
use super::options::Locking;
use crate::driver::Perm;
use crate::engine::{File, sys};
use crate::error::{Error, Op, Result};

/// First byte of the locks for permissions in use.
const USED: u64 = 100;
/// First byte of the locks for permissions not shared.
const UNSHARED: u64 = 200;

/// Permissions in the order of their bytes, with the names that programs look for in messages.
const PERMISSIONS: [(Perm, &str); 4] = [
    (Perm::CONSISTENT_READ, "consistent read"),
    (Perm::WRITE, "write"),
    (Perm::WRITE_UNCHANGED, "write unchanged"),
    (Perm::RESIZE, "resize"),
];

/// Permissions used, and permissions not shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    used: Perm,
    unshared: Perm,
}

impl Claim {
    const NONE: Claim = Claim { used: Perm::empty(), unshared: Perm::empty() };

    fn bytes(self) -> impl Iterator<Item = u64> {
        let used =
            (USED..).zip(PERMISSIONS).filter(move |(_, (perm, _))| self.used.contains(*perm));
        let unshared =
            (UNSHARED..).zip(PERMISSIONS).filter(move |(_, (p, _))| self.unshared.contains(*p));
        used.chain(unshared).map(|(byte, _)| byte)
    }

    /// What `self` has and `other` has not.
    fn without(self, other: Claim) -> Claim {
        Claim { used: self.used - other.used, unshared: self.unshared - other.unshared }
    }
}

/// The locks that one open file holds.
pub(super) struct ImageLock {
    /// Locks belong to this open file description, also when data goes through another one.
    file: File,
    path: String,
    held: Claim,
}

impl ImageLock {
    /// Prepares to lock `file`. `None` if no locks are wanted, or the system has none and they are
    /// not insisted on.
    pub(super) fn new(file: &File, path: &str, locking: Locking) -> Result<Option<ImageLock>> {
        if locking == Locking::Off {
            return Ok(None);
        }
        match sys::is_byte_locked(file, USED) {
            Err(e) if locking == Locking::Auto && is_unsupported(&e) => Ok(None),
            Err(e) => Err(Error::os(Op::Open, path, None, e)
                .context("image locks are not available here; locking=off does without")),
            Ok(_) => {
                Ok(Some(ImageLock { file: file.clone(), path: path.to_owned(), held: Claim::NONE }))
            }
        }
    }

    /// Changes the locks to those for `used` and `shared`, and returns what they were before, in the
    /// same form. On failure they stay as they were.
    pub(super) fn set(&mut self, used: Perm, shared: Perm) -> Result<(Perm, Perm)> {
        let old = self.held;
        let new = Claim { used, unshared: Perm::all() - shared };
        if let Err(error) = self.take(new.without(old)).and_then(|()| self.check(new)) {
            self.give_back(new.without(old));
            return Err(error);
        }
        self.give_back(old.without(new));
        self.held = new;
        Ok((old.used, Perm::all() - old.unshared))
    }

    fn take(&self, claim: Claim) -> Result<()> {
        claim.bytes().try_for_each(|byte| {
            sys::lock_byte(&self.file, byte).map_err(|e| {
                Error::os(Op::Open, &self.path, None, e).context("cannot lock the image")
            })
        })
    }

    /// Locks that cannot be given back are only too strict, and end with the file.
    fn give_back(&self, claim: Claim) {
        claim.bytes().for_each(|byte| {
            let _ = sys::unlock_byte(&self.file, byte);
        });
    }

    /// Tests whether others exclude what `claim` uses, or use what it excludes.
    fn check(&self, claim: Claim) -> Result<()> {
        let against = |first: u64, perms: Perm, what: &str, how: &str| -> Result<()> {
            for (i, (perm, name)) in (0..).zip(PERMISSIONS) {
                let locked = perms.contains(perm)
                    && sys::is_byte_locked(&self.file, first + i)
                        .map_err(|e| Error::os(Op::Open, &self.path, None, e))?;
                if locked {
                    let lock = format!("{what}\"{name}\" lock");
                    return Err(Error::Locked { message: self.conflict(first + i, &lock, how) });
                }
            }
            Ok(())
        };
        against(UNSHARED, claim.used, "", "does not share this")?;
        against(USED, claim.unshared, "shared ", "needs this itself")
    }

    fn conflict(&self, byte: u64, lock: &str, how: &str) -> String {
        let who = holder::of_lock(&self.file, byte)
            .unwrap_or_else(|| "another process, perhaps on another host".to_owned());
        format!(
            "Failed to get {lock}\n'{}' is in use by {who}, which {how}; \
             -U (force-share=on) reads it regardless",
            self.path
        )
    }
}

impl Drop for ImageLock {
    fn drop(&mut self) {
        self.give_back(self.held);
    }
}

fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}
