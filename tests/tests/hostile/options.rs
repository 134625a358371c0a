//! Command lines made to harm: option texts come from other programs and from image headers.

use crate::limits::run;

#[track_caller]
fn refused(args: &[&str]) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (outcome, complaints) = run(dir.path(), args);
    let shown: String = args.join(" ").chars().take(60).collect();
    assert!(complaints.is_empty(), "{shown}: {}", complaints.join(", "));
    assert!(outcome.code() != Some(0), "{shown} was accepted");
}

#[test]
fn json_nested_deeper_than_any_stack() {
    for open in ["[", r#"{"a":"#] {
        let nested = open.repeat(100_000 / open.len());
        refused(&["info", &format!("json:{nested}")]);
        refused(&["info", &format!(r#"json:{{"driver":{nested}"#)]);
    }
}

#[test]
fn dotted_keys_nested_deeper_than_any_stack() {
    let nested = "file.".repeat(20_000);
    refused(&["info", "--image-opts", &format!("{nested}driver=null-co")]);
    refused(&["info", "--image-opts", &format!("driver=raw,{nested}filename=x")]);
}

#[test]
fn lists_with_indexes_out_of_range() {
    for index in ["4294967295", "18446744073709551615", "99999999999999999999999"] {
        refused(&[
            "info",
            "--image-opts",
            &format!("driver=raw,file.driver=file,file.x.{index}=1"),
        ]);
    }
}

#[test]
fn thousands_of_options() {
    let many = (0..8000).map(|n| format!("k{n}={n}")).collect::<Vec<_>>().join(",");
    refused(&["info", "--image-opts", &format!("driver=raw,{many}")]);
    refused(&["create", "-f", "qcow2", "-o", &many, "disk", "1M"]);
}

#[test]
fn sizes_out_of_range() {
    for size in
        ["8E", "16E", "9223372036854775808", "18446744073709551616", "1e999", "-1", "nan", "0x", ""]
    {
        refused(&["create", "-f", "qcow2", "disk", size]);
        refused(&["create", "-f", "raw", "disk", size]);
    }
}

#[test]
fn numbers_out_of_range() {
    for value in ["0", "1", "511", "513", "4M", "18446744073709551615", "-1", "x"] {
        refused(&["create", "-f", "qcow2", "-o", &format!("cluster_size={value}"), "disk", "1M"]);
    }
    for value in ["0", "3", "128", "-1", "4294967297", "x"] {
        refused(&["create", "-f", "qcow2", "-o", &format!("refcount_bits={value}"), "disk", "1M"]);
    }
}

#[test]
fn text_that_is_not_unicode() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let odd = OsStr::from_bytes(b"name-\xff\xfe.qcow2");
    let ours = cairn_tests::tool::Tool::ours();
    for args in [
        vec![
            OsStr::new("create"),
            OsStr::new("-q"),
            OsStr::new("-f"),
            OsStr::new("qcow2"),
            odd,
            OsStr::new("1M"),
        ],
        vec![OsStr::new("info"), OsStr::new("--output=json"), odd],
    ] {
        let outcome = ours.run_with(dir.path(), &args, crate::limits::SERVICE);
        assert!(!outcome.signalled() && outcome.code() != Some(101), "{}", outcome.err());
    }
}
