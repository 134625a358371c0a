//! `cargo xtask test`: installs what the tests need, builds, and runs all of them.

use crate::error::Result;
use crate::{apt, python, shell, tool};

/// Runs the tests; unknown arguments go to the test runner.
pub(crate) fn run(args: Vec<String>) -> Result<()> {
    let mut full = false;
    let mut install = true;
    let rest: Vec<String> = args
        .into_iter()
        .filter(|arg| match arg.as_str() {
            "--full" => {
                full = true;
                false
            }
            "--no-install" => {
                install = false;
                false
            }
            _ => true,
        })
        .collect();

    if install {
        apt::ensure(&[
            apt::CRYPTSETUP,
            apt::E2FSPROGS,
            apt::GDB,
            apt::GNUTLS,
            apt::LIBNBD,
            apt::NBDKIT,
            apt::RESCUE_ISO,
            apt::RISCV_COMPILER,
        ])?;
        apt::ensure_stock(&[apt::STOCK_TOOLS, apt::STOCK_USER])?;
        python::ensure()?;
    }
    let nextest = tool::ensure("cargo-nextest")?;
    shell::show(shell::cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    let mut tests = shell::cargo_with(&nextest);
    tests.args(["nextest", "run", "--locked", "--workspace"]).args(&rest);
    if full {
        // Disks of gigabytes want optimised tools, and more time than a test may take otherwise.
        let image_tool = shell::build_release()?;
        tests.args(["--profile", "full"]).env("CAIRN_TEST_FULL", "1").env("CAIRN_IMG", image_tool);
    }
    shell::show(&mut tests)?;
    if rest.is_empty() {
        // The test runner leaves out the examples in the documentation of the code.
        shell::show(shell::cargo().args(["test", "--locked", "--workspace", "--doc", "--quiet"]))?;
    }
    Ok(())
}
