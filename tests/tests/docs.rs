//! Runs the examples of the user documentation: every command of a `console` block must succeed and print
//! what the page shows. `[..]` in a shown line stands for any text, a line `...` for any lines.

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_tests::process::{Limits, capture};
use cairn_tests::tool::Tool;

#[test]
fn cairn_img() {
    run_page("docs/cairn-img.md");
}

#[test]
fn cairn_io() {
    run_page("docs/cairn-io.md");
}

#[test]
fn cairn_nbd() {
    run_page("docs/cairn-nbd.md");
}

#[test]
fn cairn_user() {
    run_page("docs/cairn-user.md");
}

#[test]
fn gdbstub() {
    run_page("docs/gdbstub.md");
}

#[test]
fn luks() {
    run_page("docs/luks.md");
}

#[test]
fn nbd_client() {
    run_page("docs/nbd-client.md");
}

#[test]
fn untrusted_images() {
    run_page("docs/untrusted-images.md");
}

/// A command of a page with the output that the page shows for it.
#[derive(Debug, Default, PartialEq)]
struct Example {
    line: usize,
    command: String,
    output: Vec<String>,
}

#[track_caller]
fn run_page(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tree's top folder");
    let text = fs::read_to_string(root.join(page)).expect("the page");
    let examples = examples(&text);
    assert!(!examples.is_empty(), "{page} has no examples");

    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let programs = dir.path().join("bin");
    fs::create_dir(&programs).expect("a folder");
    let tool = Tool::ours();
    for name in ["cairn-img", "cairn-io", "cairn-nbd", "cairn-user"] {
        let built = tool.path().with_file_name(name);
        std::os::unix::fs::symlink(built, programs.join(name)).expect("a link");
    }
    let work = dir.path().join("work");
    fs::create_dir(&work).expect("a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    for example in examples {
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", &example.command])
            .current_dir(&work)
            .env("PATH", &path);
        let done = capture(&mut shell, Limits::default()).expect("bash runs");
        let place = format!("{page}:{}: {}", example.line, example.command);
        assert_eq!(done.code(), Some(0), "{place}\n{}{}", done.out(), done.err());
        let said = done.out() + &done.err();
        let said: Vec<&str> = said.lines().map(str::trim_end).collect();
        let shown: Vec<&str> = example.output.iter().map(String::as_str).collect();
        assert!(fits(&shown, &said), "{place}\nshown: {shown:#?}\nsaid: {said:#?}");
    }
}

/// The commands of all `console` blocks, in order. They share one folder.
fn examples(text: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push(Example {
                    line: index + 1,
                    command: command.to_owned(),
                    output: Vec::new(),
                }),
                (None, Some(example)) if example.command.ends_with('\\') => {
                    example.command.push('\n');
                    example.command.push_str(line);
                }
                (None, Some(example)) => example.output.push(line.trim_end().to_owned()),
                (None, None) => panic!("line {}: output without a command", index + 1),
            }
        }
    }
    found
}

/// Whether `said` is what `shown` describes.
fn fits(shown: &[&str], said: &[&str]) -> bool {
    match (shown, said) {
        ([], []) => true,
        (["...", rest @ ..], _) => (0..=said.len()).any(|skipped| fits(rest, &said[skipped..])),
        ([first, shown @ ..], [line, said @ ..]) => line_fits(first, line) && fits(shown, said),
        _ => false,
    }
}

fn line_fits(shown: &str, said: &str) -> bool {
    match shown.split_once("[..]") {
        None => shown == said,
        Some((start, rest)) => said.strip_prefix(start).is_some_and(|said| {
            said.char_indices()
                .map(|(at, _)| at)
                .chain([said.len()])
                .any(|at| line_fits(rest, &said[at..]))
        }),
    }
}

#[test]
fn commands_and_output_are_told_apart() {
    let text = "text\n```console\n$ one \\\n  two\nout\n$ three\n```\n```sh\n$ not run\n```\n";
    let expected = [
        Example { line: 3, command: "one \\\n  two".into(), output: vec!["out".into()] },
        Example { line: 6, command: "three".into(), output: Vec::new() },
    ];
    assert_eq!(examples(text), expected);
}

#[test]
fn shown_output_may_leave_things_out() {
    assert!(fits(&["a", "...", "size: [..] MiB"], &["a", "b", "c", "size: 12 MiB"]));
    assert!(fits(&["..."], &[]));
    assert!(!fits(&["a"], &["a", "b"]));
    assert!(!fits(&["size: [..] MiB"], &["size: 12 KiB"]));
}
