//! Makes the decoders from the pattern files.

use cairn_decodetree::codegen::Options;
use cairn_decodetree::{Build, BuildError, Widths};

fn main() -> Result<(), BuildError> {
    Build::new()
        .file("decode/insn32.decode", "decode32", Widths::fixed(32))
        .file("decode/insn16.decode", "decode16", Widths::fixed(16))
        .options(Options { visibility: "pub(crate)".to_owned(), ..Options::default() })
        .write("decode.rs")
}
