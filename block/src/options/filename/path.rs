//! Parts of filenames, and names relative to other names.

use crate::error::{Error, Result};

/// The prefix before a colon, if one stands before the first slash.
pub fn protocol_prefix(filename: &str) -> Option<&str> {
    let at = filename.find([':', '/'])?;
    let (prefix, rest) = filename.split_at(at);
    rest.starts_with(':').then_some(prefix)
}

/// Whether a path begins at the root directory.
pub fn is_absolute(path: &str) -> bool {
    path.starts_with('/')
}

/// `relative` in the directory (or behind the last slash of the URL) of `base`.
pub fn combine(base: &str, relative: &str) -> String {
    if is_absolute(relative) {
        return relative.to_owned();
    }
    let behind_prefix = protocol_prefix(base).map_or(0, |prefix| prefix.len() + 1);
    let behind_slash = base.rfind('/').map_or(0, |at| at + 1);
    let (directory, _) = base.split_at(behind_prefix.max(behind_slash));
    format!("{directory}{relative}")
}

/// The full name of the backing file that the image `overlay` calls `stored`.
///
/// Fails where a relative name has nothing to be relative to: the overlay has no name of its own.
pub fn resolve_backing(stored: &str, overlay: &str) -> Result<String> {
    if stored.is_empty() || is_absolute(stored) || protocol_prefix(stored).is_some() {
        return Ok(stored.to_owned());
    }
    if overlay.is_empty() || overlay.starts_with("json:") {
        let what = format!(
            "the backing file '{stored}' is named relative to the image, but the image has no path; \
             set the backing file in the options"
        );
        return Err(Error::unsupported(overlay, what));
    }
    Ok(combine(overlay, stored))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_end_before_the_first_slash() {
        for (filename, prefix) in [
            ("nbd://host/x", Some("nbd")),
            ("x:y", Some("x")),
            (":y", Some("")),
            (" json:{}", Some(" json")),
            ("./x:y", None),
            ("/dev/disk/by-path/a:b", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(protocol_prefix(filename), prefix, "{filename}");
        }
    }

    /// Names stored in overlays and the actual paths that `qemu-img info` 10.0.2 showed.
    #[test]
    fn backing_names_as_the_reference_resolves_them() {
        for (overlay, stored, full) in [
            ("sub/o.qcow2", "rel", "sub/rel"),
            ("sub/o.qcow2", "../rel", "sub/../rel"),
            ("sub/o.qcow2", "/abs", "/abs"),
            ("o.qcow2", "rel", "rel"),
            ("o.qcow2", "sub/rel", "sub/rel"),
            ("./x:o.qcow2", "rel", "./rel"),
            ("sub/o.qcow2", "nbd://h/e", "nbd://h/e"),
            ("sub/o.qcow2", "nbd:h:1", "nbd:h:1"),
            ("sub/o.qcow2", "a/b:c", "sub/a/b:c"),
            ("sub/o.qcow2", "./a:b", "sub/./a:b"),
            ("sub/o.qcow2", "json:{}", "json:{}"),
            ("/tmp/opt/sub/o.qcow2", "rel", "/tmp/opt/sub/rel"),
            ("///tmp/opt/sub/o.qcow2", "rel", "///tmp/opt/sub/rel"),
            ("ssh://host/dir/o.qcow2", "rel", "ssh://host/dir/rel"),
            ("fat:o", "rel", "fat:rel"),
            ("json:{}", "/abs", "/abs"),
        ] {
            assert_eq!(resolve_backing(stored, overlay).unwrap(), full, "{overlay} {stored}");
        }
        assert!(resolve_backing("rel", "json:{}").is_err());
        assert!(resolve_backing("rel", "").is_err());
    }

    proptest! {
        #[test]
        fn any_names_are_handled(overlay in any::<String>(), stored in any::<String>()) {
            let _ = resolve_backing(&stored, &overlay);
        }
    }
}
