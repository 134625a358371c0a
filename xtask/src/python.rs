//! Installs the Python packages that tests need into a folder of their own.

use std::fs;
use std::process::Command;

use crate::apt;
use crate::error::{At, Result};
use crate::shell;

/// What is installed, each with its version.
const PACKAGES: [&str; 2] = ["oslo.utils==10.2.0", "ovirt-imageio==2.5.1"];

/// Installs the packages into `python` in the build folder, unless that was done before.
pub(crate) fn ensure() -> Result<()> {
    let folder = shell::target().join("python");
    // Written last, so that an installation that broke off is done again.
    let installed = folder.join("installed.txt");
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    // One of the packages has a part in C.
    apt::ensure(&[apt::PIP, apt::PYTHON_HEADERS])?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--disable-pip-version-check"]);
    shell::show(pip.arg("--target").arg(&folder).args(PACKAGES))?;
    fs::write(&installed, wanted).at(installed)
}
