//! The entry for build scripts.

mod support;

use cairn_decodetree::{Build, Widths};

#[test]
fn a_build_script_writes_the_decoder_or_shows_the_errors() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("decode.rs");
    let variable = support::path("variable.decode");
    let file = |path| {
        Build::new().options(support::options()).file(path, "decode", Widths::variable(8, 32))
    };
    file(variable).write_to(&out).unwrap();
    let code = std::fs::read_to_string(&out).unwrap();
    let expected = std::fs::read_to_string(support::path("variable.rs")).unwrap();
    let body = |text: &str| text.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(body(&code), body(&expected));

    // A build script that returns the error shows its Debug form.
    let error = file(support::path("err_length.decode")).write_to(&out).unwrap_err();
    assert!(format!("{error:?}").contains("err_length.decode:2:1"), "{error:?}");
    let error = file(dir.path().join("missing.decode")).write_to(&out).unwrap_err();
    assert!(format!("{error:?}").contains("missing.decode: "), "{error:?}");
    assert!(error.to_string().contains("missing.decode: "));
}
