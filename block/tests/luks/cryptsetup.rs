//! cryptsetup, the Linux tool for LUKS: it opens our volumes and we open its.
//!
//! Whether the payload agrees is asked of the reference's tools, since cryptsetup itself needs the
//! kernel's device mapper for that, which tests have no right to.

use std::path::Path;
use std::process::{Command, Output};

use cairn_block::IoBufMut;

use super::support::{create, expect, graph, open, run};

/// Where Debian puts it, which is not in everybody's search path.
const PROGRAM: &str = "/sbin/cryptsetup";
/// What cryptsetup answers to a passphrase that no slot knows.
const NO_KEY: i32 = 2;

/// Runs cryptsetup in `dir`, where `pass`, `second` and `third` hold the passphrases of the secrets.
fn cryptsetup(dir: &Path, words: &str) -> Output {
    for (name, passphrase) in [("pass", "letmein"), ("second", "opensesame"), ("third", "?")] {
        std::fs::write(dir.join(name), passphrase).expect("writable");
    }
    let mut command = Command::new(PROGRAM);
    command.args(words.split(' ')).current_dir(dir).env("LC_ALL", "C");
    command.output().expect("cryptsetup, which `cargo xtask test` installs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The same, which must succeed. Returns what it printed.
fn done(dir: &Path, words: &str) -> String {
    let output = cryptsetup(dir, words);
    assert!(output.status.success(), "{words}: {}", errors(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A field of `luksDump`.
fn field<'d>(dump: &'d str, name: &str) -> &'d str {
    let value = dump.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name}: {dump}")).trim()
}

/// Creation options of volumes whose ciphers, modes, generators and hashes are all that there are.
fn volumes() -> Vec<String> {
    let mut volumes = Vec::new();
    let sizes = |family: &str, sizes: &[u32]| -> Vec<String> {
        sizes.iter().map(|size| format!("{family}-{size}")).collect()
    };
    let long = [128, 192, 256];
    let ciphers = [
        sizes("aes", &long),
        sizes("serpent", &long),
        sizes("twofish", &long),
        sizes("cast5", &[128]),
    ];
    for cipher in ciphers.concat().into_iter().chain(["sm4".to_owned()]) {
        for mode in ["xts", "cbc", "ctr", "ecb"] {
            volumes.push(format!("cipher-alg={cipher},cipher-mode={mode}"));
        }
    }
    for hash in ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "sm3"] {
        volumes.push(format!("cipher-alg=aes-256,hash-alg={hash}"));
        for cipher in ["aes-128", "aes-192", "aes-256"] {
            let essiv = format!("cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg={hash}");
            volumes.push(format!("cipher-alg={cipher},{essiv}"));
        }
    }
    volumes.push("cipher-alg=aes-256,ivgen-alg=plain".to_owned());
    volumes
}

#[test]
fn our_volumes_open_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ours");
    let (mut opened, mut unknown) = (Vec::new(), Vec::new());
    for list in volumes() {
        let value = |name: &str| {
            let words = list.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            words.map(str::to_owned)
        };
        // Not every cipher goes with every mode, nor every hash with the length of every key.
        if create("luks", &path, &format!("size=64k,key-secret=s,iter-time=0,{list}")).is_err() {
            continue;
        }
        let dump = cryptsetup(dir.path(), "luksDump ours");
        if !dump.status.success() {
            assert!(errors(&dump).contains("not supported"), "{list}: {}", errors(&dump));
            unknown.push(format!("{list}: {}", errors(&dump).trim()));
            continue;
        }
        let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
        let cipher = value("cipher-alg").expect("given");
        assert_eq!(field(&dump, "Cipher name"), cipher.split('-').next().expect("a name"));
        let ivgen = match (value("ivgen-alg"), value("ivgen-hash-alg")) {
            (Some(ivgen), Some(hash)) => format!("{ivgen}:{hash}"),
            (ivgen, _) => ivgen.unwrap_or("plain64".to_owned()),
        };
        let mode = format!("{}-{ivgen}", value("cipher-mode").unwrap_or("xts".to_owned()));
        assert_eq!(field(&dump, "Cipher mode"), mode, "{list}");
        assert_eq!(field(&dump, "Hash spec"), value("hash-alg").unwrap_or("sha256".to_owned()));
        assert_eq!(field(&dump, "Key Slot 0"), "ENABLED");
        let test = "open --type luks1 --test-passphrase ours --key-file";
        let right = cryptsetup(dir.path(), &format!("{test} pass"));
        match right.status.code() {
            Some(0) => {
                let wrong = cryptsetup(dir.path(), &format!("{test} second"));
                assert_eq!(wrong.status.code(), Some(NO_KEY), "{list}: {}", errors(&wrong));
                opened.push(list);
            }
            Some(NO_KEY) => panic!("{list}: {}", errors(&right)),
            // Neither the library that it uses nor the kernel has that cipher or hash.
            _ => unknown.push(format!("{list}: {}", errors(&right).trim())),
        }
    }
    println!("{} volumes open, {} are not known: {unknown:#?}", opened.len(), unknown.len());
    for needed in [
        "cipher-alg=aes-256,cipher-mode=xts",
        "cipher-alg=aes-128,cipher-mode=xts",
        "cipher-alg=aes-256,hash-alg=sha1",
        "cipher-alg=aes-256,hash-alg=sha512",
    ] {
        assert!(opened.iter().any(|list| list == needed), "{needed}: {unknown:#?}");
    }
}

/// What we read of the volume that `image` describes, which must be what the reference reads.
fn same_payload(dir: &Path, image: &str) -> Vec<u8> {
    let ours = run(async {
        let image = open(&graph(), image).await?;
        let len = usize::try_from(image.size()).expect("small");
        let data = image.read(0, IoBufMut::new(len)).await?;
        image.close().await?;
        Ok::<_, cairn_block::Error>(data.to_vec())
    });
    let ours = ours.unwrap_or_else(|error| panic!("{image}: {error}"));
    expect(dir, &["qemu-img", "convert", "-O", "raw", "--image-opts", image, "stock.raw"]);
    let stock = std::fs::read(dir.join("stock.raw")).expect("there");
    assert!(ours == stock, "{image}: another payload");
    ours
}

fn image(dir: &Path, file: &str, header: Option<&str>) -> String {
    let name = |child: &str, file: &str| {
        format!(",{child}.driver=file,{child}.filename={}", dir.join(file).display())
    };
    let header = header.map_or(String::new(), |header| name("header", header));
    format!("driver=luks,key-secret=s{}{header}", name("file", file))
}

/// Makes a file of noise.
fn noise(dir: &Path, name: &str, len: usize) {
    let bytes: Vec<u8> = (0..len).map(|at| (at * at / 7 % 251).to_le_bytes()[0]).collect();
    std::fs::write(dir.join(name), bytes).expect("writable");
}

const FORMAT: &str =
    "luksFormat --batch-mode --type luks1 --pbkdf-force-iterations 1000 --key-file pass";

#[test]
fn its_volumes_open_here() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut made = 0;
    for options in [
        "--cipher aes-xts-plain64 --key-size 512 --hash sha256",
        "--cipher aes-xts-plain64 --key-size 256 --hash sha1",
        "--cipher aes-xts-plain --key-size 512 --hash sha512",
        "--cipher aes-cbc-essiv:sha256 --key-size 256 --hash ripemd160",
        "--cipher aes-cbc-plain64 --key-size 128 --hash sha384",
        "--cipher serpent-xts-plain64 --key-size 512 --hash sha256",
        "--cipher twofish-cbc-essiv:sha256 --key-size 256 --hash sha256",
        "--cipher aes-xts-plain64 --key-size 512 --hash sha256 --key-slot 5",
        "--cipher aes-xts-plain64 --key-size 512 --hash sha256 --align-payload 8192",
    ] {
        noise(dir.path(), "theirs", 6 << 20);
        let format = cryptsetup(dir.path(), &format!("{FORMAT} {options} theirs"));
        if !format.status.success() {
            assert!(!options.contains("aes-xts"), "{options}: {}", errors(&format));
            println!("not known: {options}: {}", errors(&format).trim());
            continue;
        }
        assert!(!same_payload(dir.path(), &image(dir.path(), "theirs", None)).is_empty());
        made += 1;
    }
    assert!(made >= 5, "{made} volumes");
}

#[test]
fn passphrases_that_it_adds_and_takes_away_count_here() {
    let dir = tempfile::tempdir().expect("a directory");
    noise(dir.path(), "theirs", 4 << 20);
    let name = image(dir.path(), "theirs", None);
    let opens = |id: &str| {
        let name = name.replace("key-secret=s", &format!("key-secret={id}"));
        run(async { open(&graph(), &name).await?.close().await }).is_ok()
    };
    done(dir.path(), &format!("{FORMAT} theirs"));
    let quick = "--batch-mode --pbkdf-force-iterations 1000 --key-file pass";
    done(dir.path(), &format!("luksAddKey {quick} --key-slot 6 theirs second"));
    done(dir.path(), &format!("luksAddKey {quick} --key-slot 2 theirs third"));
    assert!(opens("s") && opens("new") && opens("wrong"));
    let before = same_payload(dir.path(), &name);
    done(dir.path(), "luksKillSlot --batch-mode --key-file pass theirs 2");
    assert!(opens("s") && opens("new") && !opens("wrong"));
    done(dir.path(), "luksRemoveKey --batch-mode theirs pass");
    assert!(!opens("s") && opens("new"));
    let name = name.replace("key-secret=s", "key-secret=new");
    let after = run(async {
        let image = open(&graph(), &name).await?;
        let data = image.read(0, IoBufMut::new(before.len())).await?;
        image.close().await?;
        Ok::<_, cairn_block::Error>(data.to_vec())
    });
    assert!(after.expect("opens") == before, "another payload");
}

#[test]
fn key_slots_that_we_change_count_there() {
    use super::amend::{ADD, amended};
    use super::support::Kind;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ours");
    let opens = |file: &str| {
        let words = format!("open --type luks1 --test-passphrase ours --key-file {file}");
        cryptsetup(dir.path(), &words).status.code()
    };
    create("luks", &path, "size=64k,key-secret=s,iter-time=0").expect("created");
    let one = cairn_testkit::Disk::load(&path).expect("readable");
    let two = amended(Kind::Luks, &one, "s", &[(ADD, false)]);
    two.store(&path).expect("writable");
    assert_eq!((opens("pass"), opens("second")), (Some(0), Some(0)));
    let replaced = amended(Kind::Luks, &one, "s", &[(&format!("{ADD},keyslot=0"), true)]);
    replaced.store(&path).expect("writable");
    assert_eq!((opens("pass"), opens("second")), (Some(NO_KEY), Some(0)));
    let dump = done(dir.path(), "luksDump ours");
    assert_eq!((field(&dump, "Key Slot 0"), field(&dump, "Key Slot 1")), ("ENABLED", "DISABLED"));
    let erased = amended(Kind::Luks, &two, "s", &[("state=inactive,old-secret=s", false)]);
    erased.store(&path).expect("writable");
    assert_eq!((opens("pass"), opens("second")), (Some(NO_KEY), Some(0)));
}

#[test]
fn detached_headers_go_both_ways() {
    let dir = tempfile::tempdir().expect("a directory");
    noise(dir.path(), "payload", 1 << 20);
    done(dir.path(), &format!("{FORMAT} --header header payload"));
    let theirs = image(dir.path(), "payload", Some("header"));
    assert_eq!(same_payload(dir.path(), &theirs).len(), 1 << 20);

    let header = dir.path().join("ours");
    create("luks", &header, "size=0,key-secret=s,iter-time=0,detached-header=on").expect("created");
    let test = "open --type luks1 --test-passphrase --header ours --key-file pass payload";
    done(dir.path(), test);
    let ours = image(dir.path(), "payload", Some("ours"));
    assert_eq!(same_payload(dir.path(), &ours).len(), 1 << 20);
}

#[test]
fn volumes_of_version_2_are_refused_in_clear_words() {
    let dir = tempfile::tempdir().expect("a directory");
    noise(dir.path(), "theirs", 20 << 20);
    let format =
        "luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    done(dir.path(), &format!("{format} --key-file pass theirs"));
    let opened = run(async { open(&graph(), &image(dir.path(), "theirs", None)).await.map(drop) });
    let error = opened.expect_err("not supported").to_string();
    assert!(error.contains("LUKS version 2 is not supported"), "{error}");
}
