//! The names of the programs and what depends on them.
//!
//! Started through a link called `qemu-img`, `qemu-io` or `qemu-nbd` a program speaks under that name,
//! and reports the reference release in a form that version parsers accept.

use std::ffi::OsStr;
use std::path::Path;

/// The release whose interface is kept.
pub(super) const REFERENCE_VERSION: &str = "10.0.2";
/// Our own version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The name under which a program was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The image tool.
    CairnImg,
    /// The I/O exerciser.
    CairnIo,
    /// The NBD server.
    CairnNbd,
    /// The image tool under the reference's name.
    QemuImg,
    /// The I/O exerciser under the reference's name.
    QemuIo,
    /// The NBD server under the reference's name.
    QemuNbd,
}

impl Program {
    /// The name of this program, which is `own` unless `argv[0]` has the reference's name for it.
    pub fn from_argv0(own: Program, argv0: Option<&OsStr>) -> Program {
        let other = match own {
            Program::CairnImg | Program::QemuImg => Program::QemuImg,
            Program::CairnIo | Program::QemuIo => Program::QemuIo,
            Program::CairnNbd | Program::QemuNbd => Program::QemuNbd,
        };
        match argv0.and_then(|arg| Path::new(arg).file_name()) {
            Some(name) if name == other.name() => other,
            _ => own,
        }
    }

    /// Whether this is one of our own names.
    pub fn is_own(self) -> bool {
        matches!(self, Program::CairnImg | Program::CairnIo | Program::CairnNbd)
    }

    /// The name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Program::CairnImg => "cairn-img",
            Program::CairnIo => "cairn-io",
            Program::CairnNbd => "cairn-nbd",
            Program::QemuImg => "qemu-img",
            Program::QemuIo => "qemu-io",
            Program::QemuNbd => "qemu-nbd",
        }
    }

    /// What `--version` prints behind the name.
    pub fn version(self) -> String {
        if self.is_own() {
            format!("version {VERSION}")
        } else {
            format!("version {REFERENCE_VERSION} (Cairn {VERSION})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_decides_the_name() {
        for (argv0, name) in [
            ("/usr/bin/qemu-img", "qemu-img"),
            ("qemu-img", "qemu-img"),
            ("./cairn-img", "cairn-img"),
            ("something-else", "cairn-img"),
        ] {
            let program = Program::from_argv0(Program::CairnImg, Some(OsStr::new(argv0)));
            assert_eq!(program.name(), name);
        }
        assert_eq!(Program::from_argv0(Program::CairnIo, None).name(), "cairn-io");
        let link = OsStr::new("bin/qemu-io");
        assert_eq!(Program::from_argv0(Program::CairnIo, Some(link)).name(), "qemu-io");
        assert_eq!(Program::from_argv0(Program::CairnImg, Some(link)).name(), "cairn-img");
    }

    #[test]
    fn version_has_the_shape_that_consumers_parse() {
        let text = format!("{} {}", Program::QemuImg.name(), Program::QemuImg.version());
        assert!(text.starts_with("qemu-img version 10.0.2 "), "{text}");
    }
}
