//! The disassembler: the pattern files at run time.

use std::sync::LazyLock;

use cairn_decodetree::runtime::Decoded;
use cairn_decodetree::{Pattern, Source, Unit, Widths, compile};

use crate::Xlen;
use crate::cpu::GLOBALS;

/// The compiled pattern files, with the decoders `decode32` and `decode16`.
pub fn patterns() -> &'static Unit {
    static UNIT: LazyLock<Unit> = LazyLock::new(|| {
        let sources = [
            Source::new(
                "insn32.decode",
                include_str!("../decode/insn32.decode"),
                "decode32",
                Widths::fixed(32),
            ),
            Source::new(
                "insn16.decode",
                include_str!("../decode/insn16.decode"),
                "decode16",
                Widths::fixed(16),
            ),
        ];
        compile(&sources).expect("the build script has compiled the same files")
    });
    &UNIT
}

/// The instruction at `pc` that `word` begins with, as assembler text, and its length in bytes.
///
/// Compressed instructions are shown as what they expand to. Unknown ones become `.half` or `.word`.
pub fn disassemble(word: u32, pc: u64, xlen: Xlen) -> (String, u64) {
    let unit = patterns();
    let (name, len, bits) = if word & 3 == 3 {
        ("decode32", 4, u64::from(word))
    } else {
        ("decode16", 2, u64::from(word & 0xffff))
    };
    let decoded = unit.decoder(name).map(|decoder| {
        decoder.decode_with(bits, decoder.widths().max(), |pattern| is_for(pattern.name(), xlen))
    });
    let text = decoded.and_then(Decoded::pattern).and_then(|pattern| text(unit, pattern, bits, pc));
    let unknown = || format!("{} {bits:#x}", if len == 4 { ".word" } else { ".half" });
    (text.unwrap_or_else(unknown), len)
}

/// Whether registers of this width have the instruction, of those whose encodings mean something else else.
fn is_for(name: &str, xlen: Xlen) -> bool {
    match name {
        "ld" | "sd" | "ld_c" | "addiw_c" | "zext_h_64" | "rev8_64" => xlen == Xlen::X64,
        "zext_h_32" | "rev8_32" => xlen == Xlen::X32,
        _ => true,
    }
}

fn functions(name: &str, value: Option<i64>) -> Option<i64> {
    let value = value?;
    Some(match name {
        "times_2" => value * 2,
        "times_4" => value * 4,
        "times_8" => value * 8,
        "times_16" => value * 16,
        "times_4096" => value * 4096,
        "compressed" => value + 8,
        _ => return None,
    })
}

fn text(unit: &Unit, pattern: &Pattern, bits: u64, pc: u64) -> Option<String> {
    if pattern.name() == "illegal" {
        return None;
    }
    let arguments = unit.arguments(pattern, bits, &functions)?;
    let value = |name: &str| {
        let found = arguments.iter().find(|(argument, _)| *argument == name);
        found.map_or(0, |(_, value)| *value)
    };
    let mnemonic = mnemonic(pattern.name());
    let is_float = |name: &str| float_operand(pattern.name(), name);
    let register = |name: &str| {
        let index = usize::try_from(value(name)).unwrap_or(0);
        GLOBALS[index % 32 + if is_float(name) { 32 } else { 0 }].name
    };
    let target = pc.wrapping_add_signed(value("imm"));
    let list =
        |names: &[&str]| names.iter().map(|name| register(name)).collect::<Vec<_>>().join(",");
    let memory = || format!("{}({})", value("imm"), register("rs1"));
    let loads = pattern.name() == "jalr"
        || matches!(pattern.name().as_bytes(), [b'l', ..] | [b'f', b'l', _])
            && !pattern.name().starts_with("lui");
    let set = unit.args_of(pattern)?.name.as_str();
    let operands = match set {
        "empty" => return Some(mnemonic),
        "r" => list(&["rd", "rs1", "rs2"]),
        "r2" => list(&["rd", "rs1"]),
        "i" if loads => format!("{},{}", register("rd"), memory()),
        "i" => format!("{},{}", list(&["rd", "rs1"]), value("imm")),
        "s" => format!("{},{}", register("rs2"), memory()),
        "b" => format!("{},{target:#x}", list(&["rs1", "rs2"])),
        "j" => format!("{},{target:#x}", register("rd")),
        "u" => format!("{},{:#x}", register("rd"), value("imm") >> 12 & 0xf_ffff),
        "sh" => format!("{},{}", list(&["rd", "rs1"]), value("shamt")),
        "amo" => {
            let order = ["", ".rl", ".aq", ".aqrl"];
            let index = usize::try_from(value("aq") << 1 | value("rl")).unwrap_or(0);
            let place = format!("({})", register("rs1"));
            let value = if mnemonic.starts_with("lr") {
                String::new()
            } else {
                format!("{},", register("rs2"))
            };
            return Some(format!("{mnemonic}{} {},{value}{place}", order[index], register("rd")));
        }
        "csr" => {
            let operand = match pattern.name() {
                "csrrwi" | "csrrsi" | "csrrci" => value("rs1").to_string(),
                _ => register("rs1").to_owned(),
            };
            format!("{},{:#x},{operand}", register("rd"), value("csr"))
        }
        "fr" => format!("{}{}", list(&["rd", "rs1", "rs2"]), rounding(value("rm"))),
        "fr2" => format!("{}{}", list(&["rd", "rs1"]), rounding(value("rm"))),
        "fr4" => format!("{}{}", list(&["rd", "rs1", "rs2", "rs3"]), rounding(value("rm"))),
        "cbo" => format!("({})", register("rs1")),
        _ => return None,
    };
    Some(format!("{mnemonic} {operands}"))
}

/// The assembler's name of a pattern.
fn mnemonic(pattern: &str) -> String {
    let base = pattern.trim_end_matches("_c").trim_end_matches("_32").trim_end_matches("_64");
    base.replace('_', ".")
}

/// The rounding mode as an operand; none for the dynamic one.
fn rounding(rm: i64) -> &'static str {
    match rm {
        0 => ",rne",
        1 => ",rtz",
        2 => ",rdn",
        3 => ",rup",
        4 => ",rmm",
        7 => "",
        _ => ",reserved",
    }
}

/// Whether an argument is a floating-point register.
fn float_operand(pattern: &str, argument: &str) -> bool {
    let Some(rest) = pattern.strip_prefix('f').filter(|rest| !rest.starts_with("ence")) else {
        return false;
    };
    let to_integer = ["mv_x", "cvt_w", "cvt_l", "class", "le_", "lt_", "eq_"];
    let from_integer = rest.starts_with("mv_") && rest.ends_with("_x")
        || rest.starts_with("cvt_")
            && ["_w", "_wu", "_l", "_lu"].iter().any(|end| rest.ends_with(end));
    let memory = matches!(rest, "lw" | "ld" | "lh" | "sw" | "sd" | "sh");
    match argument {
        "rd" => !to_integer.iter().any(|start| rest.starts_with(start)),
        "rs1" => !memory && !from_integer,
        _ => true,
    }
}
