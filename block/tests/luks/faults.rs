//! I/O errors at every request of what makes images and changes their key slots: each is reported,
//! a passphrase that opened the image, or the one that replaces it, still does, and once the disk works
//! again the change succeeds.

use std::time::Duration;

use cairn_block::driver::{Driver, Perm};
use cairn_block::{Error, Result};
use cairn_testkit::{Announce, Disk, Fault, Faults, Faulty, Memory, Watchdog};

use super::amend::{ADD, amend, amended};
use super::support::{Kind, is_sound, over, run};

/// Longest time that one run may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A change of key slots.
struct Change {
    list: &'static str,
    force: bool,
    /// Two passphrases open the image before, `s` and `new`, not only the former.
    has_two: bool,
    /// One of these opens the image whatever happens.
    always: &'static [&'static str],
    /// What opens the image afterwards.
    after: &'static [&'static str],
    /// What does not.
    gone: &'static [&'static str],
}

const CHANGES: [Change; 7] = [
    Change {
        list: ADD,
        force: false,
        has_two: false,
        always: &["s"],
        after: &["s", "new"],
        gone: &["wrong"],
    },
    Change {
        list: "state=inactive,keyslot=1",
        force: false,
        has_two: true,
        always: &["s"],
        after: &["s"],
        gone: &["new"],
    },
    Change {
        list: "state=inactive,old-secret=new",
        force: false,
        has_two: true,
        always: &["s"],
        after: &["s"],
        gone: &["new"],
    },
    Change {
        list: "state=inactive,keyslot=0",
        force: false,
        has_two: true,
        always: &["new"],
        after: &["new"],
        gone: &["s"],
    },
    Change {
        list: "state=active,new-secret=new,keyslot=0,iter-time=0",
        force: true,
        has_two: false,
        always: &["s", "new"],
        after: &["new"],
        gone: &["s"],
    },
    Change {
        list: "state=active,new-secret=wrong,keyslot=1,iter-time=0",
        force: true,
        has_two: true,
        always: &["s"],
        after: &["s", "wrong"],
        gone: &["new"],
    },
    Change {
        list: "state=inactive,keyslot=0",
        force: true,
        has_two: false,
        always: &[],
        after: &[],
        gone: &["s"],
    },
];

impl Change {
    /// Makes the change with a fault. Where the image is still open when the disk works again, it must
    /// still have its content, and take the change.
    fn attempt(&self, kind: Kind, disk: impl Driver, fault: Fault, faults: &Faults) -> Result<()> {
        let (graph, _user) = over(disk, Perm::empty());
        run(async {
            let image = kind.open(&graph, "s").await?;
            let done = kind.amend(&image, self.list, self.force).await;
            if done.is_err() && !fault.until_close {
                faults.disarm();
                assert!(is_sound(&image).await.expect("the disk works"), "other content");
                let mut again = kind.amend(&image, self.list, true).await;
                if matches!(again, Err(Error::Passphrase { .. })) && self.after.contains(&"new") {
                    // What opened the image is gone already; the one that replaces it opens it.
                    let list = format!("{},old-secret=new", self.list);
                    again = kind.amend(&image, &list, true).await;
                }
                assert!(self.is_done(again), "not while the image stays open");
            }
            done.and(image.close().await)
        })
    }

    /// Whether another attempt did its work, or found it done.
    fn is_done(&self, outcome: Result<()>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(Error::Passphrase { .. }) => self.list.contains("old-secret"),
            Err(error) => panic!("{}: {error}", self.list),
        }
    }

    /// Makes the change once more, with whatever opens the image.
    fn repeat(&self, kind: Kind, memory: &Memory) {
        let opener = ["s", "new"].into_iter().find(|id| kind.opens(&memory.disk(), id).is_ok());
        let Some(opener) = opener else {
            assert!(self.always.is_empty());
            return;
        };
        assert!(self.is_done(amend(kind, memory.clone(), opener, self.list, true)));
    }

    fn at_every_index(&self, kind: Kind, image: &Disk, watchdog: &Watchdog) {
        for fault in Fault::ALL {
            for index in 0.. {
                let name = format!("{kind:?} {}, {fault:?} at request {index}", self.list);
                watchdog.step(&name);
                let _announce = Announce(name);
                let faults = Faults::default();
                let memory = Memory::new(image.clone());
                let disk = Faulty::new(Box::new(memory.clone()), faults.clone());
                faults.arm(fault.rule(index));
                let outcome = self.attempt(kind, disk, fault, &faults);
                faults.disarm();
                let fired = faults.fired_kinds();
                assert!(outcome.is_err() || !fired.must_be_reported(), "{fired:?} is not reported");
                if let Err(error) = &outcome {
                    assert!(!fired.is_empty(), "failed without a fault: {error}");
                }
                let opens = |id: &&str| kind.opens(&memory.disk(), id).is_ok_and(|sound| sound);
                assert!(
                    self.always.is_empty() || self.always.iter().any(opens),
                    "nothing opens it"
                );
                if outcome.is_err() {
                    self.repeat(kind, &memory);
                }
                assert!(self.after.iter().all(opens), "not done");
                for id in self.gone {
                    let error = kind.opens(&memory.disk(), id).expect_err("taken away");
                    assert!(matches!(error, Error::Passphrase { .. }), "{id}: {error}");
                }
                if fired.is_empty() {
                    break;
                }
            }
        }
    }
}

fn changes(kind: Kind) {
    let watchdog = Watchdog::start(PATIENCE);
    let one = kind.sample();
    let two = amended(kind, &one, "s", &[(ADD, false)]);
    for change in CHANGES {
        change.at_every_index(kind, if change.has_two { &two } else { &one }, &watchdog);
    }
}

#[test]
fn key_slots_of_luks() {
    changes(Kind::Luks);
}

#[test]
fn key_slots_of_qcow2() {
    changes(Kind::Qcow2);
}

#[test]
fn a_new_image_is_complete_or_none() {
    let watchdog = Watchdog::start(PATIENCE);
    for kind in Kind::ALL {
        for fault in Fault::ALL {
            for index in 0.. {
                let name = format!("{kind:?}, {fault:?} at request {index}");
                watchdog.step(&name);
                let _announce = Announce(name);
                let faults = Faults::default();
                // What another image left behind.
                let memory = Memory::new(kind.sample());
                let disk = || Faulty::new(Box::new(memory.clone()), faults.clone());
                faults.arm(fault.rule(index));
                let outcome = kind.format(disk());
                faults.disarm();
                let fired = faults.fired_kinds();
                assert!(outcome.is_err() || !fired.must_be_reported(), "{fired:?} is not reported");
                if outcome.is_err() {
                    let mut magic = [0; 4];
                    memory.disk().read(0, &mut magic);
                    if magic == kind.magic() {
                        kind.opens(&memory.disk(), "s").expect("the old or the new image");
                    }
                    kind.format(disk()).expect("the disk works again");
                }
                assert!(!kind.opens(&memory.disk(), "s").expect("a new image"), "the old content");
                if fired.is_empty() {
                    break;
                }
            }
        }
    }
}
