//! The two names of the program and what depends on them.
//!
//! Started through a link called `qemu-img` the program speaks under that name, and reports the
//! reference release in a form that version parsers accept.

use std::ffi::OsStr;
use std::path::Path;

/// The release whose interface is kept.
const REFERENCE_VERSION: &str = "10.0.2";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The name under which the program was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Our own name.
    CairnImg,
    /// The reference's name.
    QemuImg,
}

impl Program {
    /// Decides from `argv[0]`.
    pub fn from_argv0(argv0: Option<&OsStr>) -> Program {
        match argv0.and_then(|arg| Path::new(arg).file_name()) {
            Some(name) if name == "qemu-img" => Program::QemuImg,
            _ => Program::CairnImg,
        }
    }

    /// The name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Program::CairnImg => "cairn-img",
            Program::QemuImg => "qemu-img",
        }
    }

    /// What `--version` prints behind the name.
    pub fn version(self) -> String {
        match self {
            Program::CairnImg => format!("version {VERSION}"),
            Program::QemuImg => format!("version {REFERENCE_VERSION} (Cairn {VERSION})"),
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
            assert_eq!(Program::from_argv0(Some(OsStr::new(argv0))).name(), name);
        }
        assert_eq!(Program::from_argv0(None).name(), "cairn-img");
    }

    #[test]
    fn version_has_the_shape_that_consumers_parse() {
        let text = format!("{} {}", Program::QemuImg.name(), Program::QemuImg.version());
        assert!(text.starts_with("qemu-img version 10.0.2 "), "{text}");
    }
}
