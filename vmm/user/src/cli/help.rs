//! Texts.

use std::fmt::Write;

use super::options::SPECS;
use crate::abi::riscv;
use crate::log::ITEMS;

/// How it is used.
pub(super) fn usage() -> String {
    let mut text = String::from(
        "Usage: cairn-user [OPTIONS] PROGRAM [ARGUMENTS]\n\
         Runs a Linux program that was built for another architecture (RISC-V, 64 and 32 bits).\n\
         Called qemu-riscv64 or qemu-riscv32, it runs programs for that one only.\n\n",
    );
    for spec in SPECS {
        let option = format!("-{} {}", spec.name, spec.value);
        let _ = writeln!(text, "  {option:<19} {:<21} {}", spec.variable, spec.about);
    }
    text.push_str(
        "\nThe variables in the second column do the same. Options may begin with two dashes.\n",
    );
    text
}

/// The version. The reference's is that of its release, which programs compare.
pub(super) fn version() -> String {
    format!("cairn-user version {}\n", env!("CARGO_PKG_VERSION"))
}

/// What `-cpu` takes.
pub(super) fn cpus() -> String {
    let mut text = String::from("Available CPUs:\n");
    for (name, about) in riscv::MODELS {
        let _ = writeln!(text, "  {name:<8} {about}");
    }
    let names: Vec<String> = cairn_riscv::Extensions::all()
        .iter_names()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    let _ = writeln!(
        text,
        "\nEach may be followed by extensions: ,NAME=on|off, with one of\n  {}",
        names.join(" ")
    );
    text
}

/// What `-d` takes.
pub(super) fn log_items() -> String {
    let mut text = String::from("Log items (comma separated):\n");
    for (name, _, about) in ITEMS {
        let _ = writeln!(text, "{name:<15} {about}");
    }
    text
}
