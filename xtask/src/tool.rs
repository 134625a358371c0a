//! Cargo's additional tools, built from their registry source when the machine has none.

use std::path::PathBuf;

use cairn_tests::tool::find_in_path;

use crate::error::{Error, Result};
use crate::shell;

/// Tools that can be installed here, with the version to take.
const TOOLS: [(&str, &str); 2] = [("cargo-deny", "0.20.2"), ("cargo-nextest", "0.9.151")];

/// `cargo xtask tool NAME`: prints the path of the tool.
pub(crate) fn run(args: Vec<String>) -> Result<()> {
    let [name] = args.as_slice() else {
        return Err(Error::Usage("`tool` takes one name".to_owned()));
    };
    println!("{}", ensure(name)?.display());
    Ok(())
}

/// The path of `name`, which is installed below the target folder unless `$PATH` has it.
///
/// Built without optimisation: these tools wait for other programs, and this way they are ready in two or
/// three minutes on two cores.
pub(crate) fn ensure(name: &str) -> Result<PathBuf> {
    let Some((name, version)) = TOOLS.iter().find(|(known, _)| *known == name) else {
        return Err(Error::Usage(format!("'{name}' is not a tool this project uses")));
    };
    if let Some(path) = find_in_path(name) {
        return Ok(path);
    }
    let place = shell::target().join("tools");
    let path = place.join("bin").join(name);
    if !path.is_file() {
        let mut install = shell::cargo();
        install
            .args(["install", "--locked", "--quiet", "--version", version, name, "--root"])
            .arg(&place)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env_remove("CARGO_TARGET_DIR");
        shell::show(&mut install)?;
    }
    Ok(path)
}
