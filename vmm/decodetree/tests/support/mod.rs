//! The pattern files under `tests/cases`, compiled, and the means to compare and renew what they expect.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::path::{Path, PathBuf};

use cairn_decodetree::codegen::Options;
use cairn_decodetree::{Errors, Source, Unit, Widths, compile};

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

pub(crate) fn source(name: &str, decoder: &str, widths: Widths) -> Source {
    let text = std::fs::read_to_string(path(name)).unwrap();
    Source::new(name, text, decoder, widths)
}

pub(crate) fn riscv() -> Unit {
    compile(&[
        source("insn32.decode", "decode32", Widths::fixed(32)),
        source("insn16.decode", "decode16", Widths::fixed(16)),
    ])
    .unwrap()
}

pub(crate) fn variable() -> Unit {
    compile(&[source("variable.decode", "decode", Widths::variable(8, 32))]).unwrap()
}

pub(crate) fn groups() -> Unit {
    compile(&[source("groups.decode", "decode", Widths::fixed(16))]).unwrap()
}

/// Options of the code kept beside the pattern files.
pub(crate) fn options() -> Options {
    Options { visibility: "pub(crate)".to_owned(), ..Options::default() }
}

pub(crate) fn errors(name: &str, widths: Widths) -> Errors {
    compile(&[source(name, "decode", widths)]).unwrap_err()
}

/// Compares `actual` with the file `name`, or writes the file if the variable `BLESS` is set.
pub(crate) fn expect(name: &str, actual: &str) {
    let path = path(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{name} is out of date (BLESS=1 renews it); now:\n{actual}");
}
