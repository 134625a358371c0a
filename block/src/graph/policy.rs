//! What images may ask for: names of other files, and cost.
//!
//! An image can name files (its backing file, its data file) and can describe far more work than its
//! own size suggests. A [`Policy`] bounds both. It belongs to the graph and is applied where nodes
//! are opened, so that it holds for every image of a chain, whoever opens it. What the user names in
//! options or as a file name is the user's own word and is not bounded.
//!
//! The check of a name and the opening of the file are two steps: whoever can change the allowed
//! directories meanwhile is trusted.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::node::Node;
use super::status::{backing_of, content_above};
use crate::driver::{Role, Status};
use crate::error::{Error, Result};
use crate::options::filename::protocol_prefix;

/// Files that images may refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum References {
    /// Any file, and whatever `json:` names and protocols reach.
    #[default]
    Any,
    /// None.
    None,
    /// Plain files in these places, symbolic links followed.
    Places(Vec<Place>),
}

/// A place for files that images may refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The directory that the image itself is in, without those below it.
    SameDirectory,
    /// This directory and those below it.
    Below(PathBuf),
}

/// Bounds on what images may ask for; `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Size of a virtual disk in bytes.
    pub virtual_size: Option<u64>,
    /// Bytes of data that an image yields for each byte that it is long.
    pub expansion: Option<u64>,
    /// Images in a chain of backing files.
    pub chain_depth: Option<usize>,
    /// Internal snapshots of an image.
    pub snapshots: Option<u64>,
    /// Iterations of the key derivation of one place of a LUKS header.
    pub luks_iterations: Option<u64>,
}

/// What images may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Formats must be given, not guessed from content that a stranger chose.
    pub explicit_format: bool,
    /// Files that images may refer to.
    pub references: References,
    /// Bounds on cost.
    pub bounds: Bounds,
}

/// What a policy can forbid. Programs name their options after these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// [`Bounds::chain_depth`].
    ChainDepth,
    /// [`Bounds::expansion`].
    Expansion,
    /// [`Policy::explicit_format`].
    Format,
    /// [`Bounds::luks_iterations`].
    LuksIterations,
    /// [`Policy::references`].
    References,
    /// [`Bounds::snapshots`].
    Snapshots,
    /// [`Bounds::virtual_size`].
    VirtualSize,
}

impl Rule {
    /// The option that decides on it.
    pub fn option(self) -> &'static str {
        match self {
            Rule::ChainDepth => "max-chain-depth",
            Rule::Expansion => "max-expansion",
            Rule::Format => "format",
            Rule::LuksIterations => "max-luks-iterations",
            Rule::References => "allow-refs",
            Rule::Snapshots => "max-snapshots",
            Rule::VirtualSize => "max-virtual-size",
        }
    }
}

impl fmt::Display for Rule {
    /// What can be done about a refusal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Format => write!(f, "give it with --{}", self.option()),
            Rule::References => write!(f, "--{} can allow it", self.option()),
            _ => write!(f, "--{} can raise the limit", self.option()),
        }
    }
}

impl Policy {
    /// The policy for images of strangers: no references, formats given, and bounds that ordinary
    /// images stay far below.
    pub fn untrusted() -> Policy {
        Policy {
            explicit_format: true,
            references: References::None,
            bounds: Bounds {
                virtual_size: Some(8 << 40),
                // Deflate yields at most 1032 bytes for each of its own.
                expansion: Some(1100),
                chain_depth: Some(32),
                snapshots: Some(256),
                luks_iterations: Some(10_000_000),
            },
        }
    }

    /// Fails unless `image` may refer to `file` as its `what`. `file` is the name with the directory of
    /// the image applied.
    pub fn check_reference(&self, image: &str, what: &str, file: &str) -> Result<()> {
        let places = match &self.references {
            References::Any => return Ok(()),
            References::None => &[][..],
            References::Places(places) => places,
        };
        let refuse = |problem: String| {
            let what = format!("its {what} is '{file}', {problem}");
            Err(Error::refused(image, Rule::References, what))
        };
        if places.is_empty() {
            return refuse("and it may not refer to other files".to_owned());
        }
        let path = match protocol_prefix(file) {
            None => file,
            Some("file") => file.get("file:".len()..).unwrap_or_default(),
            Some(prefix) => {
                return refuse(format!("and names with '{prefix}:' are not allowed in images"));
            }
        };
        if places.iter().any(|place| place.has(image, Path::new(path))) {
            return Ok(());
        }
        refuse("which is no plain file in an allowed directory".to_owned())
    }

    /// Fails if `found` is more than `bound` allows; `what` is a clause that says what was found.
    pub(crate) fn check_bound(
        bound: Option<u64>,
        found: u64,
        image: &str,
        rule: Rule,
        what: impl FnOnce() -> String,
    ) -> Result<()> {
        match bound {
            Some(bound) if found > bound => {
                let what = format!("{}, of which at most {bound} are allowed", what());
                Err(Error::refused(image, rule, what))
            }
            _ => Ok(()),
        }
    }

    /// Fails if `node` yields more data than its length allows.
    pub(super) async fn check_expansion(&self, node: &Arc<Node>) -> Result<()> {
        let Some(factor) = self.bounds.expansion else { return Ok(()) };
        let stored = stored_length(node);
        let most = stored.saturating_mul(factor);
        if data_bytes(node, most).await? <= most {
            return Ok(());
        }
        let what = format!("its {stored} bytes yield more than {factor} times as much data");
        Err(Error::refused(node.label(), Rule::Expansion, what))
    }
}

impl Place {
    /// Whether the plain file at `path`, to which `image` refers, is here.
    fn has(&self, image: &str, path: &Path) -> bool {
        let Ok(real) = fs::canonicalize(path) else { return false };
        if !fs::metadata(&real).is_ok_and(|meta| meta.is_file()) {
            return false;
        }
        match self {
            Place::SameDirectory => {
                let image = Path::new(image.strip_prefix("file:").unwrap_or(image));
                fs::canonicalize(image).is_ok_and(|image| image.parent() == real.parent())
            }
            Place::Below(directory) => {
                fs::canonicalize(directory).is_ok_and(|directory| real.starts_with(directory))
            }
        }
    }
}

/// Bytes of the files that an image consists of.
pub fn stored_length(node: &Node) -> u64 {
    let children = node.children();
    let own = children.iter().filter(|edge| !edge.role().contains(Role::COW));
    own.fold(0u64, |sum, edge| sum.saturating_add(edge.node().size()))
}

/// Bytes of data that the top layer of `node` yields. Counting ends when there are more than `most`.
pub async fn data_bytes(node: &Arc<Node>, most: u64) -> Result<u64> {
    let backing = backing_of(node);
    let size = node.size();
    // Less data than would matter needs no look at it.
    if size <= most {
        return Ok(0);
    }
    let (mut at, mut data) = (0, 0u64);
    while at < size && data <= most {
        let found = content_above(node, backing.as_ref(), at, size - at).await?;
        let len = found.extent.len.max(1);
        if found.extent.status.contains(Status::DATA) && !found.extent.status.contains(Status::ZERO)
        {
            data = data.saturating_add(len);
        }
        at = at.saturating_add(len);
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(references: References, image: &Path, file: &str) -> bool {
        let policy = Policy { references, ..Policy::default() };
        policy.check_reference(image.to_str().expect("UTF-8"), "backing file", file).is_ok()
    }

    #[test]
    fn references_stay_in_their_places() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(dir.path()).expect("a directory");
        fs::create_dir(root.join("sub")).expect("a directory");
        for name in ["image", "near", "sub/deep", "secret"] {
            fs::write(root.join(name), "x").expect("a file");
        }
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).expect("a link");
        let image = root.join("image");
        let file = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
        let same = || References::Places(vec![Place::SameDirectory]);
        let below = |name: &str| References::Places(vec![Place::Below(root.join(name))]);
        assert!(allows(References::Any, &image, "json:{}"));
        assert!(!allows(References::None, &image, &file("near")));
        assert!(!allows(References::Places(Vec::new()), &image, &file("near")));
        assert!(allows(same(), &image, &file("near")));
        assert!(allows(same(), &image, &format!("file:{}", file("near"))));
        for name in ["sub/deep", "link", "sub", "absent", "sub/../../etc/passwd"] {
            assert!(!allows(same(), &image, &file(name)), "{name}");
        }
        for name in ["/etc/passwd", "/dev/null", "json:{\"driver\":\"null-co\"}", "nbd://host/x"] {
            assert!(!allows(same(), &image, name), "{name}");
            assert!(!allows(below("."), &image, name), "{name}");
        }
        assert!(allows(below("sub"), &image, &file("sub/deep")));
        assert!(allows(below("."), &image, &file("sub/../near")));
        assert!(!allows(below("sub"), &image, &file("sub/../near")));
        assert!(!allows(below("."), &image, &file("link")), "a link that leads out");
    }

    #[test]
    fn refusals_name_the_option_that_decides() {
        let error = Policy::untrusted()
            .check_reference("x.qcow2", "backing file", "/etc/passwd")
            .expect_err("refused")
            .to_string();
        for part in ["'x.qcow2'", "'/etc/passwd'", "--allow-refs"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
