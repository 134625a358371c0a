//! The ways in which a request fails, for tests that fail every request of an operation in turn.

use crate::faulty::{IoKinds, Rule};

/// How a request fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The error number.
    pub errno: i32,
    /// It and all later requests fail.
    pub sticky: bool,
    /// It is done in part.
    pub torn: bool,
    /// The image is closed before the disk works again.
    pub until_close: bool,
}

impl Fault {
    /// All ways that tests go through.
    pub const ALL: [Fault; 5] = [
        Fault { errno: libc::EIO, sticky: false, torn: false, until_close: false },
        Fault { errno: libc::ENOSPC, sticky: false, torn: true, until_close: false },
        Fault { errno: libc::EIO, sticky: true, torn: true, until_close: false },
        Fault { errno: libc::ENOSPC, sticky: true, torn: false, until_close: true },
        Fault { errno: libc::EIO, sticky: true, torn: false, until_close: true },
    ];

    /// The rule that fails the request with this index, whatever its kind.
    pub fn rule(self, index: u64) -> Rule {
        let Fault { errno, sticky, torn, .. } = self;
        Rule { kinds: IoKinds::all(), index, errno, sticky, torn }
    }
}

/// Says which run it was when a test panics.
pub struct Announce(pub String);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}", self.0);
        }
    }
}
