//! `snapshot`, `commit` and `rebase` on qcow2 images, side by side with the reference.

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;

/// `top.qcow2` over `mid.qcow2` over `base.qcow2`, each with data of its own, and what it shows as
/// `want.raw`.
fn chain() -> Scratch {
    let scratch = Scratch::new();
    scratch.sparse("base.raw", 6 * MIB, &[(0, 1 << 20), (4 * MIB, 100_000)]);
    scratch.sparse("mid.raw", 6 * MIB, &[(0, 300_000), (4 * MIB, 100_000), (5 * MIB, 4096)]);
    scratch.sparse("want.raw", 8 * MIB, &[(0, 300_000), (5 * MIB, 4096), (7 * MIB + 512, 512)]);
    scratch.ok(&["convert", "-O", "qcow2", "base.raw", "base.qcow2"]);
    for (from, below, name) in
        [("mid.raw", "base.qcow2", "mid.qcow2"), ("want.raw", "mid.qcow2", "top.qcow2")]
    {
        scratch.ok(&["convert", "-O", "qcow2", "-B", below, "-F", "qcow2", from, name]);
    }
    scratch.ok(&["create", "-q", "-f", "qcow2", "-b", "top.qcow2", "-F", "qcow2", "leaf.qcow2"]);
    scratch
}

fn shows(scratch: &Scratch, image: &str, raw: &str) {
    scratch.ok(&["check", "-q", image]);
    scratch.ok(&["compare", "-q", "-f", "qcow2", "-F", "raw", image, raw]);
}

#[test]
fn a_commit_moves_the_data_down_and_empties_the_overlay() {
    let scratch = chain();
    assert_eq!(scratch.ok(&["commit", "top.qcow2"]), "Image committed.\n");
    for image in ["mid.qcow2", "top.qcow2"] {
        shows(&scratch, image, "want.raw");
    }
    assert!(!scratch.ok(&["map", "top.qcow2"]).contains("top.qcow2"));
    scratch.same(&["map", "--output=json", "top.qcow2"]);
}

#[test]
fn a_commit_to_a_base_further_down_keeps_the_overlay() {
    let scratch = chain();
    let before = scratch.content("top.qcow2");
    scratch.ok(&["commit", "-q", "-b", "base.qcow2", "top.qcow2"]);
    shows(&scratch, "base.qcow2", "want.raw");
    assert!(scratch.content("top.qcow2") == before);
    let line = scratch.fails(1, &["commit", "-b", "none.qcow2", "top.qcow2"]);
    assert!(line.contains("'none.qcow2' is not in the backing chain"), "{line}");
    let line = scratch.fails(1, &["commit", "base.qcow2"]);
    assert!(line.contains("no backing file"), "{line}");
    // A relative name starts from the overlay.
    std::fs::create_dir(scratch.path("dir")).expect("a directory");
    for name in ["base.qcow2", "mid.qcow2", "top.qcow2"] {
        std::fs::rename(scratch.path(name), scratch.path("dir").join(name)).expect("moved");
    }
    scratch.fails(1, &["commit", "-b", "dir/mid.qcow2", "dir/top.qcow2"]);
    scratch.ok(&["commit", "-q", "-b", "mid.qcow2", "dir/top.qcow2"]);
    let full = scratch.path("dir/base.qcow2").display().to_string();
    scratch.ok(&["commit", "-q", "-b", &full, "dir/top.qcow2"]);
}

#[test]
fn a_commit_takes_the_options_of_the_base_from_the_user() {
    let scratch = Scratch::new();
    scratch.sparse("want.raw", 4 * MIB, &[(0, 1 << 20), (3 * MIB, 70_000)]);
    let objects = ["--object", "secret,id=s0,data=zero", "--object", "secret,id=s1,data=one"];
    let encrypted = |key: &str| format!("encrypt.format=luks,encrypt.iter-time=10,{key}");
    let create = [&["create", "-q", "-f", "qcow2"], &objects[..]].concat();
    let (base, top) = (encrypted("encrypt.key-secret=s0"), encrypted("encrypt.key-secret=s1"));
    scratch.ok(&[&create[..], &["-o", &base, "base.qcow2", "4M"]].concat());
    let backing = ["-b", "base.qcow2", "-F", "qcow2", "-u", "top.qcow2", "4M"];
    scratch.ok(&[&create[..], &["-o", &top], &backing[..]].concat());
    let base = "driver=qcow2,file.filename=base.qcow2,encrypt.key-secret=s0";
    let top = "driver=qcow2,file.filename=top.qcow2,encrypt.key-secret=s1,\
        backing.encrypt.key-secret=s0";
    let convert = [&["convert", "-n"], &objects[..], &["--target-image-opts", "want.raw", top]];
    scratch.ok(&convert.concat());
    let commit = [&["commit"], &objects[..], &["--image-opts", top]].concat();
    assert_eq!(scratch.ok(&commit), "Image committed.\n");
    let compare =
        [&["compare", "-q"], &objects[..], &["--image-opts", base, "file.filename=want.raw"]];
    scratch.ok(&compare.concat());
    // Who describes an image by options cannot open it by its name.
    scratch.same(&[&["info"], &objects[..], &["--image-opts", base]].concat());
}

#[test]
fn a_copy_of_a_snapshot_is_as_large_as_the_image_is_now() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 2 * MIB, &[(0, 2 << 20)]);
    scratch.ok(&["convert", "-O", "qcow2", "a.raw", "a.qcow2"]);
    scratch.ok(&["snapshot", "-c", "s", "a.qcow2"]);
    for size in ["4M", "1M"] {
        scratch.ok(&["resize", "-q", "--shrink", "a.qcow2", size]);
        scratch.ok(&["convert", "-l", "s", "-O", "raw", "a.qcow2", "ours.raw"]);
        let words = ["convert", "-l", "s", "-O", "raw", "a.qcow2", "stock.raw"];
        let stock = std::process::Command::new("qemu-img")
            .args(words)
            .current_dir(scratch.path(""))
            .status();
        assert!(stock.expect("the reference's tools").success());
        assert!(scratch.content("ours.raw") == scratch.content("stock.raw"), "{size}");
        scratch.same(&["measure", "-l", "s", "-O", "raw", "a.qcow2"]);
    }
}

#[test]
fn a_rebased_image_shows_the_same() {
    let scratch = chain();
    scratch.sparse("other.raw", 9 * MIB, &[(MIB / 2, 2 << 20), (6 * MIB, 3 << 20)]);
    scratch.ok(&["convert", "-O", "qcow2", "other.raw", "other.qcow2"]);
    for backing in ["base.qcow2", "other.qcow2", "mid.qcow2"] {
        assert_eq!(scratch.ok(&["rebase", "-b", backing, "-F", "qcow2", "top.qcow2"]), "");
        shows(&scratch, "top.qcow2", "want.raw");
        scratch.same(&["info", "top.qcow2"]);
    }
    scratch.ok(&["rebase", "-c", "-b", "", "top.qcow2"]);
    assert!(!scratch.ok(&["info", "top.qcow2"]).contains("backing"));
    shows(&scratch, "top.qcow2", "want.raw");
    shows(&scratch, "leaf.qcow2", "want.raw");
}

#[test]
fn a_rebase_stores_no_data_for_what_lies_behind_the_old_backing_file() {
    let scratch = Scratch::new();
    scratch.sparse("base.raw", 500_000, &[(0, 500_000)]);
    scratch.sparse("other.raw", 600_064, &[(0, 1), (0, 600_064)]);
    let create = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", "-b", "base.raw"];
    scratch.ok(&[&create[..], &["-F", "raw", "top.qcow2", "600064"]].concat());
    scratch.ok(&["rebase", "-b", "other.raw", "-F", "raw", "top.qcow2"]);
    let map = scratch.ok(&["map", "--output=json", "top.qcow2"]);
    let behind = "{ \"start\": 507904, \"length\": 92160, \"depth\": 0, \"present\": true, \"zero\": \
                  true, \"data\": false,";
    assert!(map.contains(behind), "{map}");
    scratch.ok(&["check", "-q", "top.qcow2"]);
}

#[test]
fn an_unsafe_rebase_changes_the_name_only() {
    let scratch = chain();
    scratch.ok(&["rebase", "-u", "-b", "gone.qcow2", "-F", "qcow2", "top.qcow2"]);
    assert!(scratch.ok(&["info", "top.qcow2"]).contains("backing file: gone.qcow2\n"));
    scratch.fails(1, &["rebase", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"]);
    scratch.ok(&["rebase", "-u", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2"]);
    shows(&scratch, "top.qcow2", "want.raw");
    for args in [&["rebase", "top.qcow2"][..], &["rebase", "-b", "base.qcow2", "top.qcow2"]] {
        scratch.fails(1, args);
    }
}

#[test]
fn snapshots_are_listed_copied_and_applied_like_the_reference_does() {
    let scratch = chain();
    assert_eq!(scratch.ok(&["snapshot", "-l", "top.qcow2"]), "");
    scratch.ok(&["snapshot", "-c", "first", "top.qcow2"]);
    scratch.ok(&["rebase", "-b", "", "top.qcow2"]);
    scratch.ok(&["snapshot", "-c", "a name with spaces", "top.qcow2"]);
    scratch.same(&["snapshot", "-l", "top.qcow2"]);
    scratch.same(&["info", "--output=json", "top.qcow2"]);
    for key in ["2", "a name with spaces", "snapshot.id=2", "snapshot.name=first,snapshot.id=1"] {
        scratch.ok(&["convert", "-l", key, "-O", "raw", "top.qcow2", "copy.raw"]);
        if key != "snapshot.name=first,snapshot.id=1" {
            scratch.ok(&["compare", "-q", "-f", "raw", "-F", "raw", "copy.raw", "want.raw"]);
        }
    }
    scratch.ok(&["snapshot", "-a", "a name with spaces", "top.qcow2"]);
    shows(&scratch, "top.qcow2", "want.raw");
    scratch.ok(&["snapshot", "-d", "first", "top.qcow2"]);
    scratch.same(&["check", "top.qcow2"]);
    scratch.same(&["snapshot", "-l", "top.qcow2"]);
    for args in [
        &["snapshot", "-a", "first", "top.qcow2"][..],
        &["snapshot", "-d", "first", "top.qcow2"],
        &["convert", "-l", "first", "-O", "raw", "top.qcow2", "copy.raw"],
        &["convert", "-l", "snapshot.uuid=1", "-O", "raw", "top.qcow2", "copy.raw"],
        &["snapshot", "-l", "-c", "x", "top.qcow2"],
        &["snapshot", "-c", "x", "-f", "raw", "base.raw"],
    ] {
        scratch.fails(1, args);
    }
}

#[test]
fn bitmaps_record_changes_merge_and_go_along() {
    let scratch = chain();
    for args in [
        &["--add", "top.qcow2", "daily"][..],
        &["--add", "--disable", "-g", "4k", "top.qcow2", "sum"],
        &["--add", "-g", "1M", "base.qcow2", "other"],
    ] {
        assert_eq!(scratch.ok(&[&["bitmap"][..], args].concat()), "");
    }
    scratch.same(&["info", "--output=json", "top.qcow2"]);
    // Everything that is allocated is written, and so recorded.
    scratch.ok(&["convert", "-n", "-O", "qcow2", "want.raw", "top.qcow2"]);
    scratch.ok(&["bitmap", "--merge", "daily", "--clear", "--merge", "daily", "top.qcow2", "sum"]);
    scratch.ok(&["resize", "-q", "top.qcow2", "9M"]);
    scratch.same(&["info", "--output=json", "top.qcow2"]);
    scratch.same(&["check", "top.qcow2"]);
    scratch.same(&["measure", "-O", "qcow2", "top.qcow2"]);
    scratch.ok(&["convert", "--bitmaps", "-O", "qcow2", "top.qcow2", "copy.qcow2"]);
    scratch.same(&["info", "copy.qcow2"]);
    scratch.same(&["check", "copy.qcow2"]);
    for args in [
        &["--add", "top.qcow2", "daily"][..],
        &["--remove", "top.qcow2", "none"],
        &["--add", "-g", "1000", "top.qcow2", "x"],
        &["--clear", "-g", "4k", "top.qcow2", "sum"],
        &["--merge", "none", "top.qcow2", "sum"],
        &["--merge", "other", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "sum"],
        &["--add", "-f", "raw", "base.raw", "x"],
        &["top.qcow2", "sum"],
    ] {
        scratch.fails(1, &[&["bitmap"][..], args].concat());
    }
    scratch.ok(&["bitmap", "--remove-all", "top.qcow2"]);
    assert!(!scratch.ok(&["info", "top.qcow2"]).contains("bitmaps"));
    scratch.same(&["check", "top.qcow2"]);
}

#[test]
fn amended_images_show_the_same() {
    let scratch = chain();
    for options in [
        "lazy_refcounts=on",
        "refcount_bits=64",
        "refcount_bits=1,lazy_refcounts=off",
        "compat=0.10,refcount_bits=16",
        "compat=1.1,refcount_bits=32",
    ] {
        assert_eq!(scratch.ok(&["amend", "-o", options, "top.qcow2"]), "", "{options}");
        shows(&scratch, "top.qcow2", "want.raw");
        scratch.same(&["check", "top.qcow2"]);
        scratch.same(&["info", "--output=json", "top.qcow2"]);
    }
    scratch.ok(&["amend", "-o", "size=12M", "top.qcow2"]);
    scratch.same(&["info", "top.qcow2"]);
    for options in
        ["compat=0.10", "refcount_bits=3", "data_file=x", "data_file_raw=on", "colour=red"]
    {
        scratch.fails(1, &["amend", "-o", options, "top.qcow2"]);
    }
    for (options, hint) in [
        ("cluster_size=4k", "This option is only supported for image creation"),
        ("backing_file=other.qcow2", "You can use 'qemu-img rebase' instead."),
    ] {
        let output = scratch.run(&["amend", "-o", options, "top.qcow2"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), errors.lines().nth(1)),
            (Some(1), Some(hint)),
            "{errors}"
        );
    }
    scratch.fails(1, &["amend", "-f", "raw", "-o", "size=1M", "base.raw"]);
    assert!(scratch.ok(&["amend", "-f", "qcow2", "-o", "help"]).starts_with("Amend options"));
}

#[test]
fn key_slots_of_encrypted_qcow2_images_are_amended() {
    let scratch = Scratch::new();
    let objects = ["--object", "secret,id=s0,data=zero", "--object", "secret,id=s1,data=one"];
    let run = |command: &str, args: &[&str]| {
        scratch.run(&[&[command], &objects[..], args].concat()).status.code()
    };
    let create = "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10";
    assert_eq!(run("create", &["-q", "-f", "qcow2", "-o", create, "a.qcow2", "4M"]), Some(0));
    let image = |key: &str| format!("driver=qcow2,file.filename=a.qcow2,encrypt.key-secret={key}");
    let amend = |key: &str, options: &str| {
        run("amend", &["--image-opts", &image(key), "-o", &format!("encrypt.{options}")])
    };
    // Which of the two passphrases open the image for the reference.
    let opens = || {
        ["s0", "s1"].map(|key| {
            let mut stock = std::process::Command::new("qemu-io");
            stock.args(objects).args(["-c", "read 0 4k", "--image-opts", &image(key)]);
            let output = stock.current_dir(scratch.path("")).output();
            output.expect("the reference's tools").status.success()
        })
    };
    assert_eq!(opens(), [true, false]);
    assert_eq!(amend("s0", "state=active,encrypt.new-secret=s1,encrypt.iter-time=10"), Some(0));
    assert_eq!(opens(), [true, true]);
    assert_eq!(amend("s1", "state=inactive,encrypt.old-secret=s0"), Some(0));
    assert_eq!(opens(), [false, true]);
    // The last passphrase stays.
    assert_eq!(amend("s1", "state=inactive,encrypt.old-secret=s1"), Some(1));
    assert_eq!(opens(), [false, true]);
}
