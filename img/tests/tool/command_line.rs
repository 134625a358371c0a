//! The command line: forms of options, mistakes, help and texts for packagers.

use crate::scratch::Scratch;

#[test]
fn options_may_follow_operands_be_repeated_and_be_abbreviated() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 1 << 20, &[(4096, 4096)]);
    let plain = scratch.ok(&["info", "--output", "json", "-f", "raw", "a.raw"]);
    for args in [
        &["info", "a.raw", "--output=json", "-f", "raw"][..],
        &["info", "a.raw", "--out", "json", "--form", "raw"],
        &["info", "-f", "qcow2", "-Ufraw", "--output", "human", "a.raw", "--output", "json"],
        &["-T", "some*", "info", "-U", "a.raw", "--output=json", "-fraw"],
    ] {
        assert_eq!(scratch.ok(args), plain, "{args:?}");
    }
    scratch.ok(&["create", "-o", "size=1M", "-q", "n.raw", "-o", "preallocation=off"]);
    assert_eq!(std::fs::metadata(scratch.path("n.raw")).expect("there").len(), 1 << 20);
}

#[test]
fn sizes_with_a_sign_are_operands() {
    let scratch = Scratch::new();
    scratch.ok(&["create", "-q", "a.raw", "4M"]);
    let size = || std::fs::metadata(scratch.path("a.raw")).expect("there").len();
    assert_eq!(scratch.ok(&["resize", "-f", "raw", "a.raw", "+1M"]), "Image resized.\n");
    assert_eq!(size(), 5 << 20);
    scratch.fails(1, &["resize", "-f", "raw", "a.raw", "-1M"]);
    assert_eq!(scratch.ok(&["resize", "a.raw", "-1M", "--shrink", "-f", "raw", "-q"]), "");
    assert_eq!(size(), 4 << 20);
}

#[test]
fn numbers_may_have_blanks_in_front() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 1 << 20, &[(0, 4096)]);
    scratch.ok(&["convert", "-m", " 2", "-f", "raw", "a.raw", "b.raw"]);
    assert_eq!(scratch.content("a.raw"), scratch.content("b.raw"));
}

#[test]
fn mistakes_get_one_line_and_status_1() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 1 << 20, &[]);
    for (args, words) in [
        (&[][..], "no command"),
        (&["frobnicate"], "commands are amend, bench, "),
        (&["info"], "<FILE>; see 'qemu-img info --help'"),
        (&["info", "a.raw", "b.raw"], "'b.raw'"),
        (&["info", "-Z", "a.raw"], "'-Z'"),
        (&["info", "--outptu=json", "a.raw"], "'--output'"),
        (&["info", "--output=xml", "a.raw"], "human, json"),
        (&["info", "-f"], "needs a value"),
        (&["info", "-f", "raw", "--image-opts", "a.raw"], "together"),
        (&["info", "-f", "nope", "a.raw"], "nope"),
        (&["info", "nope.raw"], "'nope.raw': No such file or directory"),
        (&["info", "--object", "iothread,id=io0", "a.raw"], "'iothread'"),
        (&["create", "x.raw"], "size"),
        (&["create", "x.raw", "1e3"], "'1e3'"),
        (&["create", "x.raw", "1M", "-o", "size=2M"], "twice"),
        (&["create", "x.raw", "1M", "-o", "colour=red"], "'colour'"),
        (&["create", "x.raw", "1M", "-o", "preallocate=off"], "did you mean 'preallocation'"),
        (&["create", "x.raw", "1M", "-o", "size=1,"], "comma"),
        (&["create", "-f", "nope", "x.raw", "1M"], "'nope'"),
        (&["create", "-b", "a.raw", "-F", "raw", "x.raw"], "backing file"),
        (&["convert", "a.raw"], "at least one source"),
        (&["convert", "-m", "17", "a.raw", "x.raw"], "from 1 to 16"),
        (&["convert", "-S", "100", "a.raw", "x.raw"], "multiple of 512"),
        (&["convert", "-c", "a.raw", "x.raw"], "compression"),
        (&["convert", "-C", "-S", "4k", "a.raw", "x.raw"], "-S"),
        (&["convert", "-t", "fast", "a.raw", "x.raw"], "'fast'"),
        (&["convert", "--target-is-zero", "a.raw", "x.raw"], "--no-create"),
        (&["convert", "--target-image-opts", "a.raw", "driver=raw"], "needs -n"),
        (&["convert", "-n", "a.raw", "x.raw"], "No such file"),
        (&["convert", "-l", "snap", "a.raw", "x.raw"], "'snap'"),
        (&["convert", "--bitmaps", "a.raw", "x.raw"], "bitmaps"),
        (&["convert", "a.raw", "no/such/dir.raw"], "No such file"),
        (&["dd", "if=a.raw", "of=x.raw", "frob=1"], "'frob=1'"),
        (&["map", "-s", "-1", "a.raw"], "'-1'"),
        (&["measure"], "--size"),
        (&["measure", "-O", "nope", "a.raw"], "'nope'"),
        (&["resize", "-f", "raw", "a.raw", "0"], "above 0"),
        (&["resize", "-f", "raw", "a.raw", "1k"], "--shrink"),
        (&["bench", "--pattern", "1", "a.raw"], "--write"),
        (&["bench", "-w", "--flush-interval", "2", "-d", "4", "-f", "raw", "a.raw"], "interval"),
    ] {
        let line = scratch.fails(1, args);
        assert!(line.contains(words), "{args:?}: {line}");
    }
    assert_eq!(scratch.names(), ["a.raw"], "failed commands leave nothing behind");
}

#[test]
fn help_is_asked_for_in_many_ways() {
    let scratch = Scratch::new();
    let help = scratch.ok(&["--help"]);
    assert_eq!(scratch.ok(&["-h"]), help);
    assert!(help.contains("Supported image formats:\n\n "), "{help}");
    // How libguestfs finds out about -U.
    assert!(help.lines().any(|line| line.contains("info") && line.contains("-U")), "{help}");
    for command in
        ["bench", "check", "compare", "convert", "create", "dd", "info", "map", "measure", "resize"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let page = scratch.ok(&[command, "--help"]);
        assert!(page.contains(&format!("Usage: qemu-img {command}")), "{page}");
        assert!(page.contains("Example"), "{page}");
        assert!(!page.contains("cairn-img"), "{page}");
    }
}

#[test]
fn writers_are_warned_when_raw_was_only_a_guess() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 1 << 20, &[]);
    for (args, warns) in [
        (&["resize", "a.raw", "2M"][..], true),
        (&["bench", "-w", "-c", "1", "a.raw"], true),
        (&["resize", "--image-opts", "file.filename=a.raw", "3M"], true),
        (&["resize", "-f", "raw", "a.raw", "4M"], false),
        (&["bench", "-c", "1", "a.raw"], false),
        (&["info", "a.raw"], false),
        (&["convert", "a.raw", "b.raw"], false),
        (&["convert", "-n", "a.raw", "b.raw"], false),
    ] {
        let output = scratch.run(args);
        let errors = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{args:?}: {errors}");
        assert_eq!(
            errors.starts_with("WARNING: ") && errors.lines().count() == 3,
            warns,
            "{args:?}"
        );
        assert_eq!(errors.is_empty(), !warns, "{args:?}: {errors}");
    }
}

#[test]
fn both_names_have_a_version() {
    let scratch = Scratch::new();
    let version = scratch.ok(&["--version"]);
    assert!(version.starts_with("qemu-img version 10.0.2 (Cairn "), "{version}");
    let ours = std::process::Command::new(env!("CARGO_BIN_EXE_cairn-img"))
        .arg("-V")
        .output()
        .expect("the tool runs");
    let version = String::from_utf8(ours.stdout).expect("UTF-8");
    assert_eq!(version, format!("cairn-img version {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn packagers_get_completions_and_manual_pages() {
    let scratch = Scratch::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = scratch.ok(&["--completions", shell]);
        assert!(script.contains("target-is-zero"), "{shell}");
    }
    assert!(scratch.ok(&["--man"]).contains(".TH"));
    assert!(scratch.ok(&["--man", "convert"]).contains("target"));
    scratch.fails(1, &["--man", "frobnicate"]);
}

#[test]
fn a_closed_pipe_is_an_error_not_a_crash() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 1 << 20, &[]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output = scratch.command(&["info", "a.raw"]).stdout(full).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("No space left on device"), "{errors}");
}
