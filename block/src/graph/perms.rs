//! Permissions: what each user of a node does, and what it lets others do.

use crate::driver::{Perm, Role};

/// Permissions on a child that follow from its role alone.
///
/// * A filter passes its parents' permissions on.
/// * A format needs consistent reads, writes its file whenever it is writable, and shares only what
///   cannot disturb its metadata.
/// * A backing file is read only, and may change only where the parents do not mind.
pub fn default_child_perms(role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
    let unchanged = Perm::CONSISTENT_READ | Perm::WRITE_UNCHANGED;
    if role.contains(Role::FILTERED) {
        return (perm, shared);
    }
    if role.contains(Role::COW) {
        let shared = if shared.contains(Perm::WRITE) {
            unchanged | Perm::WRITE | Perm::RESIZE
        } else {
            unchanged
        };
        return (Perm::CONSISTENT_READ, shared);
    }
    let mut child = perm;
    if role.contains(Role::METADATA) {
        child |= Perm::CONSISTENT_READ;
        if !read_only {
            // Metadata changes, and the file grows, even while guests write nothing.
            child |= Perm::WRITE | Perm::RESIZE;
        }
        let keep = if read_only { unchanged | Perm::WRITE | Perm::RESIZE } else { unchanged };
        return (child, if read_only { shared & keep } else { keep & shared });
    }
    // A pure data child: metadata elsewhere says which bytes are used, so its size is ours.
    if perm.contains(Perm::WRITE) {
        child |= Perm::RESIZE;
    }
    (child | (perm & Perm::CONSISTENT_READ), shared)
}
