//! Installs Debian packages that a command needs and that are missing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_tests::tool::{STOCK_VERSION, find_in_path};

use crate::error::{At, Error, Result};
use crate::shell;

/// A package and a file that shows that it is there: a program in `$PATH`, or an absolute path.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) shows: &'static str,
}

/// `mke2fs`, for disks with a file system.
pub(crate) const E2FSPROGS: Package = Package { name: "e2fsprogs", shows: "/sbin/mke2fs" };
/// A bootable CD image, as real input.
pub(crate) const RESCUE_ISO: Package =
    Package { name: "grub-rescue-pc", shows: "/usr/lib/grub-rescue/grub-rescue-cdrom.iso" };
/// The Linux tool for encrypted volumes.
pub(crate) const CRYPTSETUP: Package =
    Package { name: "cryptsetup-bin", shows: "/sbin/cryptsetup" };
/// A C++ compiler, for libFuzzer.
pub(crate) const CPP_COMPILER: Package = Package { name: "g++", shows: "c++" };
/// The installer of Python packages.
pub(crate) const PIP: Package = Package { name: "python3-pip", shows: "pip3" };
/// What Python packages with parts in C are built with.
pub(crate) const PYTHON_HEADERS: Package = Package { name: "python3-dev", shows: "python3-config" };
/// The reference's image tools, in the release that the tests compare with.
pub(crate) const STOCK_TOOLS: Package = Package { name: "qemu-utils", shows: "qemu-img" };
/// The reference's user-mode emulators.
pub(crate) const STOCK_USER: Package = Package { name: "qemu-user", shows: "qemu-riscv64" };
/// A compiler for guest programs.
pub(crate) const RISCV_COMPILER: Package =
    Package { name: "gcc-riscv64-linux-gnu", shows: "riscv64-linux-gnu-gcc" };

/// A load generator, with an engine for NBD.
pub(crate) const FIO: Package = Package { name: "fio", shows: "fio" };
/// `certtool` and `psktool`, which make certificates and keys.
pub(crate) const GNUTLS: Package = Package { name: "gnutls-bin", shows: "certtool" };
/// `nbdinfo` and `nbdcopy`, another client of NBD servers.
pub(crate) const LIBNBD: Package = Package { name: "libnbd-bin", shows: "nbdinfo" };
/// An NBD server with filters that delay, fail and limit requests.
pub(crate) const NBDKIT: Package = Package { name: "nbdkit", shows: "nbdkit" };
/// A debugger of guest programs.
pub(crate) const GDB: Package = Package { name: "gdb-multiarch", shows: "gdb-multiarch" };

/// Installs those of `packages` that are missing.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().filter(|p| !p.installed()).map(|p| p.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    update()?;
    install(&missing, None)
}

/// Installs those of the reference's `packages` that are missing or of another release.
///
/// Debian 12 itself has an older release; the right one is in its backports.
pub(crate) fn ensure_stock(packages: &[Package]) -> Result<()> {
    let right = stock_version().is_some_and(|version| version.contains(STOCK_VERSION));
    if right && packages.iter().all(Package::installed) {
        return Ok(());
    }
    let sources = sources()?;
    let backports = match codename().as_deref() {
        Some("bookworm") => Some("bookworm-backports"),
        _ => None,
    };
    if let Some(suite) = backports.filter(|suite| !sources.iter().any(|text| text.contains(suite)))
    {
        add_suite(&sources, suite)?;
    }
    update()?;
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    install(&names, backports)?;
    let version = stock_version().unwrap_or_default();
    if !version.contains(STOCK_VERSION) {
        eprintln!("xtask: comparing with '{}', not with {STOCK_VERSION}", version.trim());
    }
    Ok(())
}

impl Package {
    fn installed(&self) -> bool {
        if self.shows.starts_with('/') {
            Path::new(self.shows).exists()
        } else {
            find_in_path(self.shows).is_some()
        }
    }
}

/// First line of `qemu-img --version`, if it is installed.
fn stock_version() -> Option<String> {
    let text = shell::read(Command::new("qemu-img").arg("--version")).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The name of this Debian release.
fn codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let line = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}

/// The texts of apt's source lists.
fn sources() -> Result<Vec<String>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    let files = files.into_iter().filter(|file| {
        file.extension().is_some_and(|kind| kind == "list" || kind == "sources") && file.is_file()
    });
    files.map(|file| fs::read_to_string(&file).at(file)).collect()
}

/// Adds `suite` from the mirror that serves this machine's release.
fn add_suite(sources: &[String], suite: &str) -> Result<()> {
    let release = suite.trim_end_matches("-backports");
    let mirror = sources.iter().find_map(|text| mirror(text, release)).ok_or_else(|| {
        let advice = "apt's source lists name none; install qemu-utils from the backports by hand";
        Error::Missing { what: format!("a Debian mirror for {release}"), advice: advice.to_owned() }
    })?;
    let keyring = mirror.keyring.map(|path| format!("Signed-By: {path}\n")).unwrap_or_default();
    let uri = mirror.uri;
    let entry = format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n{keyring}");
    let draft = shell::target().join("backports.sources");
    fs::write(&draft, entry).at(&draft)?;
    let place = format!("/etc/apt/sources.list.d/{suite}.sources");
    shell::show(as_root("install")?.args(["-m", "644"]).arg(&draft).arg(place))
}

/// Where packages of a release come from.
#[derive(Debug, PartialEq)]
struct Mirror {
    uri: String,
    keyring: Option<String>,
}

/// The mirror that a source list, in either of apt's two syntaxes, names for the suite `release` itself.
fn mirror(text: &str, release: &str) -> Option<Mirror> {
    one_line_mirror(text, release).or_else(|| stanza_mirror(text, release))
}

/// `deb [signed-by=KEYRING] URI SUITE COMPONENTS`
fn one_line_mirror(text: &str, release: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?.to_owned();
        let keyring = options.split_whitespace().find_map(|word| word.strip_prefix("signed-by="));
        (words.next()? == release).then(|| Mirror { uri, keyring: keyring.map(str::to_owned) })
    })
}

/// Paragraphs of `Types:`, `URIs:`, `Suites:`, `Signed-By:`.
fn stanza_mirror(text: &str, release: &str) -> Option<Mirror> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            let mut lines = stanza.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        let serves = field("Suites")?.split_whitespace().any(|suite| suite == release);
        let uri = field("URIs")?.split_whitespace().next()?.to_owned();
        let binary = field("Types")?.split_whitespace().any(|kind| kind == "deb");
        let keyring = field("Signed-By").map(str::to_owned);
        (serves && binary).then_some(Mirror { uri, keyring })
    })
}

fn update() -> Result<()> {
    shell::show(as_root("apt-get")?.args(["update", "-qq"]))
}

fn install(packages: &[&str], suite: Option<&str>) -> Result<()> {
    let mut command = as_root("apt-get")?;
    command.args(["install", "-y", "-qq", "--no-install-recommends"]);
    if let Some(suite) = suite {
        command.args(["-t", suite]);
    }
    shell::show(command.args(packages))
}

/// A command that runs as root and asks no questions.
fn as_root(program: &str) -> Result<Command> {
    let quiet = ["DEBIAN_FRONTEND=noninteractive", program];
    let root = fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0);
    let mut command = Command::new(if root { "env" } else { "sudo" });
    if !root {
        if find_in_path("sudo").is_none() {
            return Err(Error::Missing {
                what: "the right to install packages".to_owned(),
                advice: "run this as root, or install sudo".to_owned(),
            });
        }
        command.arg("env");
    }
    command.args(quiet);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::{Mirror, mirror};

    #[test]
    fn a_mirror_is_found_in_both_syntaxes() {
        let lists = [
            "# main\ndeb [arch=amd64 signed-by=/k.gpg] http://a/debian bookworm main contrib\n",
            "Types: deb-src\nURIs: http://b/debian\nSuites: bookworm\n\n\
             Types: deb\nURIs: http://a/debian http://c\nSuites: bookworm bookworm-updates\n\
             Components: main\nSigned-By: /k.gpg\n",
        ];
        for list in lists {
            let expected = Mirror { uri: "http://a/debian".into(), keyring: Some("/k.gpg".into()) };
            assert_eq!(mirror(list, "bookworm"), Some(expected), "{list}");
        }
    }

    #[test]
    fn other_suites_of_the_release_are_not_its_mirror() {
        let lists = [
            "deb http://a/debian-security bookworm-security main",
            "Types: deb\nURIs: http://a\nSuites: bookworm-security\nComponents: main\n",
        ];
        for list in lists {
            assert_eq!(mirror(list, "bookworm"), None, "{list}");
        }
    }
}
