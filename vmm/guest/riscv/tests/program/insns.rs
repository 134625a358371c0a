//! Which random instructions are run.

use cairn_decodetree::random::Insn;
use cairn_decodetree::runtime::Functions;
use cairn_riscv::patterns;

/// Whether instructions of this name are tested: those that go on behind themselves, and exist on RV64.
pub(crate) fn included(decoder: &str, name: &str) -> bool {
    let elsewhere = decoder == "decode16" && matches!(name, "flw" | "fsw");
    // Those that run by the leave of privileged software only.
    let privileged = matches!(name, "cbo_inval" | "cbo_clean" | "cbo_flush");
    !elsewhere
        && !privileged
        && !matches!(
            name,
            "jal"
                | "jalr"
                | "beq"
                | "bne"
                | "blt"
                | "bge"
                | "bltu"
                | "bgeu"
                | "ecall"
                | "ebreak"
                | "illegal"
                | "zext_h_32"
                | "rev8_32"
        )
}

/// The functions that fields of the compressed instructions apply.
pub(crate) struct Fields;

impl Functions for Fields {
    fn call(&self, name: &str, value: Option<i64>) -> Option<i64> {
        let value = value?;
        Some(if name == "compressed" { value + 8 } else { value })
    }
}

/// Keeps the two registers that the program needs, lets memory be reached through two others only, and leaves out what
/// is reserved.
pub(crate) fn allowed(insn: &Insn<'_>) -> bool {
    let unit = patterns();
    let arguments = unit.arguments(insn.pattern, insn.word, &Fields).unwrap();
    let set = unit.args_of(insn.pattern).unwrap().name.as_str();
    let name = insn.pattern.name();
    // The generator does not know of the patterns that were left out, which stand before others.
    let decoder = if insn.word & 3 == 3 { "decode32" } else { "decode16" };
    let first = unit.decoder(decoder).unwrap().decode(insn.word).pattern().unwrap();
    if first.name() != name {
        return false;
    }
    let memory = matches!(set, "s" | "amo" | "cbo")
        || matches!(
            name,
            "lb" | "lh" | "lw" | "ld" | "ld_c" | "lbu" | "lhu" | "lwu" | "flw" | "fld" | "flh"
        );
    arguments.iter().all(|(argument, value)| match *argument {
        "rd" | "rs2" if name == "amocas_q" => *value < 30 && value % 2 == 0,
        "rd" if matches!(name, "addiw_c" | "ld_c") => (1..30).contains(value),
        "rs1" if memory => matches!(value, 2 | 10),
        "rd" | "rs1" | "rs2" | "rs3" => *value < 30,
        "rm" => !matches!(value, 5 | 6),
        "csr" => matches!(value, 1..=3),
        _ => true,
    })
}
