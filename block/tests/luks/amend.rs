//! Key slots come and go, under the rules that keep data reachable and through power cuts.

use cairn_block::Result;
use cairn_block::driver::{Driver, Perm};
use cairn_testkit::{Disk, Faults, Faulty, Memory, Plan, Recorder};

use super::support::{Kind, over, run};

/// Changes key slots of the image on `disk`, opened with the secret `id`.
pub(crate) fn amend(
    kind: Kind,
    disk: impl Driver,
    id: &str,
    list: &str,
    force: bool,
) -> Result<()> {
    let (graph, _user) = over(disk, Perm::empty());
    run(async {
        let image = kind.open(&graph, id).await?;
        let done = kind.amend(&image, list, force).await;
        done.and(image.close().await)
    })
}

/// The image after changes that must succeed.
pub(crate) fn amended(kind: Kind, disk: &Disk, id: &str, lists: &[(&str, bool)]) -> Disk {
    let memory = Memory::new(disk.clone());
    for (list, force) in lists {
        amend(kind, memory.clone(), id, list, *force)
            .unwrap_or_else(|error| panic!("{list}: {error}"));
    }
    memory.disk()
}

/// Adds a passphrase.
pub(crate) const ADD: &str = "state=active,new-secret=new,iter-time=0";

#[test]
fn passphrases_are_added_and_taken_away() {
    for kind in Kind::ALL {
        let opens = |disk: &Disk, id: &str| kind.opens(disk, id).is_ok_and(|sound| sound);
        let image = kind.sample();
        assert!(!opens(&image, "new"));
        let both = amended(kind, &image, "s", &[(ADD, false)]);
        assert!(opens(&both, "s") && opens(&both, "new"));
        let new_only = amended(kind, &both, "new", &[("state=inactive,old-secret=s", false)]);
        assert!(!opens(&new_only, "s") && opens(&new_only, "new"));
        let by_number = amended(kind, &both, "s", &[("state=inactive,keyslot=1", false)]);
        assert!(!opens(&by_number, "new") && opens(&by_number, "s"));
        let replaced = amended(kind, &image, "s", &[(&format!("{ADD},keyslot=0"), true)]);
        assert!(!opens(&replaced, "s") && opens(&replaced, "new"));
        // The slot that was spare while the other one changed is spare again.
        let again = amended(kind, &replaced, "new", &[(&format!("{ADD},keyslot=1"), false)]);
        assert!(opens(&again, "new"));
    }
}

#[test]
fn a_slot_that_cannot_be_read_does_not_hide_the_others() {
    let image = amended(Kind::Luks, &Kind::Luks.sample(), "s", &[(ADD, false)]);
    let faults = Faults::default();
    // Where the key material of the first slot is.
    faults.unreadable(4096..8192);
    let disk = || Faulty::new(Box::new(Memory::new(image.clone())), faults.clone());
    let with = |id: &str| {
        let (graph, _user) = over(disk(), Perm::empty());
        run(async { Kind::Luks.open(&graph, id).await?.close().await })
    };
    with("new").expect("the second slot opens it");
    let error = with("s").expect_err("its slot is unreadable").to_string();
    assert!(error.contains("cannot read"), "{error}");
}

#[test]
fn what_would_lose_data_is_refused() {
    let image = Memory::new(Kind::Luks.sample());
    for (list, hint) in [
        ("state=inactive,keyslot=0", "all data"),
        ("state=inactive,old-secret=s", "all data"),
        ("state=inactive,keyslot=3", "not in use"),
        ("state=inactive,old-secret=new", "passphrase"),
        ("state=inactive", "keyslot"),
        ("state=inactive,keyslot=0,new-secret=new", "state=active"),
        ("state=active,keyslot=0,new-secret=new", "in use"),
        ("state=active,keyslot=8,new-secret=new", "0 and 7"),
        ("state=active", "new-secret"),
        ("new-secret=new", "'state' is required"),
        ("state=active,new-secret=nobody", "does not exist"),
    ] {
        let refused = amend(Kind::Luks, image.clone(), "s", list, false);
        let error = refused.expect_err(list).to_string();
        assert!(error.contains(hint), "{list}: {error}");
    }
}

#[test]
fn all_slots_can_be_used() {
    let full = amended(Kind::Luks, &Kind::Luks.sample(), "s", &[(ADD, false); 7]);
    let refused = amend(Kind::Luks, Memory::new(full.clone()), "s", ADD, false);
    let error = refused.expect_err("no slot is left").to_string();
    assert!(error.contains("all key slots"), "{error}");
    let replaced = amended(Kind::Luks, &full, "s", &[(&format!("{ADD},keyslot=0"), true)]);
    assert!(Kind::Luks.opens(&replaced, "s").is_err());
    assert!(Kind::Luks.opens(&replaced, "new").expect("no spare slot is needed"));
}

const PLAN: Plan = Plan { seed: 3, subsets: 6, torn: 2 };

#[test]
fn a_power_cut_leaves_a_passphrase_that_opens_the_image() {
    for kind in Kind::ALL {
        let one = kind.sample();
        let two = amended(kind, &one, "s", &[(ADD, false)]);
        for (image, list, force, openers) in [
            (&two, ADD, false, &["s"][..]),
            (&two, "state=active,new-secret=wrong,keyslot=6,iter-time=0", false, &["s"]),
            (&two, "state=active,new-secret=wrong,keyslot=1,iter-time=0", true, &["s"]),
            (&two, "state=inactive,keyslot=1", false, &["s"]),
            (&two, "state=inactive,old-secret=s", false, &["new"]),
            (&one, "state=active,new-secret=new,keyslot=0,iter-time=0", true, &["s", "new"]),
        ] {
            let machine = Recorder::new(1);
            amend(kind, machine.add(image.clone()), "s", list, force)
                .unwrap_or_else(|error| panic!("{list}: {error}"));
            for state in machine.log().states(&PLAN) {
                let opens = |id: &&str| kind.opens(&state.disks[0], id).is_ok_and(|sound| sound);
                assert!(openers.iter().any(opens), "{kind:?} {list} {}", state.id);
            }
        }
    }
}

#[test]
fn a_new_image_is_none_before_it_is_complete() {
    for kind in Kind::ALL {
        let machine = Recorder::new(1);
        let mut old = Disk::new(1 << 20);
        old.write(0, &vec![0xaa; 1 << 20]);
        kind.format(machine.add(old)).expect("formatted");
        let mut complete = 0;
        for state in machine.log().states(&PLAN) {
            let mut magic = [0; 4];
            state.disks[0].read(0, &mut magic);
            if magic == kind.magic() {
                let opened = kind.opens(&state.disks[0], "s");
                opened.unwrap_or_else(|error| panic!("{kind:?} {}: {error}", state.id));
                complete += 1;
            }
        }
        assert!(complete > 0);
    }
}
