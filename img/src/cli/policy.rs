//! What images may ask for: the options that bound it, which all commands of both programs have.

use std::ffi::OsString;
use std::path::PathBuf;

use cairn_block::graph::{Bounds, Place, Policy, References};
use clap::Args;

use super::args::{number, size};
use crate::error::{Error, Result};

/// The environment variable that switches `--untrusted` on.
const VARIABLE: &str = "CAIRN_UNTRUSTED";
const HEADING: &str = "Untrusted images";

/// Bounds on what images may ask for.
#[derive(Args, Debug)]
pub struct PolicyArgs {
    /// Trust no image: no references to other files, no guessing of formats, and limits on cost;
    /// CAIRN_UNTRUSTED=1 in the environment does the same
    #[arg(long, global = true, help_heading = HEADING)]
    untrusted: bool,
    /// Files that images may refer to: any, none, same-dir, or those below a directory; may be
    /// repeated (default: any, with --untrusted none)
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "any|none|same-dir|DIR",
        value_hint = clap::ValueHint::DirPath
    )]
    allow_refs: Vec<OsString>,
    /// Largest virtual disk (with --untrusted: 8T)
    #[arg(long, global = true, help_heading = HEADING, value_name = "SIZE")]
    max_virtual_size: Option<String>,
    /// Most data that an image may yield, as a multiple of its own length (with --untrusted: 1100)
    #[arg(long, global = true, help_heading = HEADING, value_name = "N")]
    max_expansion: Option<String>,
    /// Most images in a chain of backing files (default: 200, with --untrusted 32)
    #[arg(long, global = true, help_heading = HEADING, value_name = "N")]
    max_chain_depth: Option<String>,
    /// Most internal snapshots of an image (with --untrusted: 256)
    #[arg(long, global = true, help_heading = HEADING, value_name = "N")]
    max_snapshots: Option<String>,
    /// Most iterations in one place of a LUKS header (default: 50000000, with --untrusted 10000000)
    #[arg(long, global = true, help_heading = HEADING, value_name = "N")]
    max_luks_iterations: Option<String>,
}

impl PolicyArgs {
    /// The policy that the options, and the environment, ask for.
    pub fn policy(&self) -> Result<Policy> {
        let variable = std::env::var_os(VARIABLE);
        let is_on = variable.is_some_and(|value| !value.is_empty() && value != "0");
        self.policy_with(self.untrusted || is_on)
    }

    /// The policy that images are judged by, whether or not they are held to it.
    pub(super) fn strict_policy(&self) -> Result<Policy> {
        self.policy_with(true)
    }

    fn policy_with(&self, untrusted: bool) -> Result<Policy> {
        let base = if untrusted { Policy::untrusted() } else { Policy::default() };
        let references = match self.allow_refs.as_slice() {
            [] => base.references,
            given => references(given)?,
        };
        let given = base.bounds;
        let depth = given.chain_depth.map(|depth| depth as u64);
        let depth = bound("the chain depth", self.max_chain_depth.as_deref(), 1, depth)?;
        let size_text = self.max_virtual_size.as_deref();
        let virtual_size = size_text.map(|text| size("the virtual size", text)).transpose()?;
        Ok(Policy {
            explicit_format: base.explicit_format,
            references,
            bounds: Bounds {
                virtual_size: virtual_size.or(given.virtual_size),
                expansion: bound(
                    "the expansion",
                    self.max_expansion.as_deref(),
                    1,
                    given.expansion,
                )?,
                chain_depth: depth.map(|depth| usize::try_from(depth).unwrap_or(usize::MAX)),
                snapshots: bound(
                    "the number of snapshots",
                    self.max_snapshots.as_deref(),
                    0,
                    given.snapshots,
                )?,
                luks_iterations: bound(
                    "the number of iterations",
                    self.max_luks_iterations.as_deref(),
                    1,
                    given.luks_iterations,
                )?,
            },
        })
    }
}

/// Reads a bound of at least `least`, or gives the default.
fn bound(what: &str, text: Option<&str>, least: u64, default: Option<u64>) -> Result<Option<u64>> {
    match text {
        Some(text) => number(what, text, least, i64::MAX as u64).map(Some),
        None => Ok(default),
    }
}

/// Reads where files may be that images refer to.
fn references(texts: &[OsString]) -> Result<References> {
    let word = |word: &str| texts.iter().any(|text| text == word);
    if (word("any") || word("none")) && texts.len() > 1 {
        return Err(Error::Usage(
            "--allow-refs=any and --allow-refs=none cannot be combined with other values"
                .to_owned(),
        ));
    }
    if word("any") {
        return Ok(References::Any);
    }
    if word("none") {
        return Ok(References::None);
    }
    let places = texts.iter().map(|text| {
        if text == "same-dir" {
            return Ok(Place::SameDirectory);
        }
        let directory = PathBuf::from(text);
        if directory.is_dir() {
            Ok(Place::Below(directory))
        } else {
            Err(Error::Usage(format!(
                "--allow-refs: '{}' is no directory; give any, none, same-dir or a directory",
                directory.display()
            )))
        }
    });
    places.collect::<Result<Vec<Place>>>().map(References::Places)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        policy: PolicyArgs,
    }

    fn policy(args: &[&str], untrusted: bool) -> Result<Policy> {
        let args = std::iter::once("x").chain(args.iter().copied());
        Cli::try_parse_from(args).expect("arguments").policy.policy_with(untrusted)
    }

    #[test]
    fn nothing_is_bounded_unless_asked_for() {
        assert_eq!(policy(&[], false).expect("valid"), Policy::default());
        assert_eq!(policy(&[], true).expect("valid"), Policy::untrusted());
    }

    #[test]
    fn options_override_the_defaults_one_by_one() {
        let args = ["--max-virtual-size=1T", "--max-snapshots=0", "--allow-refs=same-dir"];
        let policy = policy(&args, true).expect("valid");
        let bounds = Bounds {
            virtual_size: Some(1 << 40),
            snapshots: Some(0),
            ..Policy::untrusted().bounds
        };
        assert_eq!(policy.bounds, bounds);
        assert_eq!(policy.references, References::Places(vec![Place::SameDirectory]));
        assert!(policy.explicit_format);
    }

    #[test]
    fn mistakes_are_named() {
        for (args, words) in [
            (&["--allow-refs=any", "--allow-refs=same-dir"][..], "combined"),
            (&["--allow-refs=/no/such/place"], "'/no/such/place'"),
            (&["--max-expansion=0"], "'0'"),
            (&["--max-chain-depth=x"], "'x'"),
            (&["--max-virtual-size=1x"], "'1x'"),
        ] {
            let error = policy(args, false).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
