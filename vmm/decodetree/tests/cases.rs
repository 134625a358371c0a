//! Pattern files and what they give: generated code and error messages, kept beside them.

mod support;

use cairn_decodetree::{Widths, codegen};

#[test]
fn generated_code_is_as_expected() {
    let options = support::options();
    support::expect("riscv.rs", &codegen::rust(&support::riscv(), &options));
    support::expect("variable.rs", &codegen::rust(&support::variable(), &options));
    support::expect("groups.rs", &codegen::rust(&support::groups(), &options));
}

#[test]
fn visibility_and_trait_name_can_be_chosen() {
    let options = codegen::Options {
        visibility: "pub(super)".to_owned(),
        trait_name: "Translate".to_owned(),
    };
    let code = codegen::rust(&support::variable(), &options);
    assert!(code.contains("pub(super) trait Translate {"));
    assert!(code.contains("pub(super) fn decode<D: Translate + ?Sized>("));
    assert!(!code.contains("pub struct") && !code.contains("Decode"));
}

#[test]
fn every_wrong_line_is_reported_at_its_place() {
    let fixed = Widths::fixed(8);
    for (name, widths) in [
        ("err_syntax", fixed),
        ("err_names", fixed),
        ("err_bits", fixed),
        ("err_overlap", fixed),
        ("err_order", Widths::variable(8, 16)),
        ("err_length", Widths::variable(8, 16)),
    ] {
        let errors = support::errors(&format!("{name}.decode"), widths);
        support::expect(&format!("{name}.txt"), &format!("{errors}\n"));
    }
}
