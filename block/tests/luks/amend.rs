//! Key slots come and go, under the rules that keep data reachable and through power cuts.

use std::sync::Arc;

use cairn_block::Result;
use cairn_block::driver::{Amendment, Perm};
use cairn_block::graph::Graph;
use cairn_testkit::{Disk, Memory, Plan, Recorder};

use super::support::{format, open, opens, options, over, run, sample};

/// Changes key slots of the image on the node `disk`, opened with the secret `id`.
async fn amend(graph: &Arc<Graph>, id: &str, list: &str, force: bool) -> Result<()> {
    let image = open(graph, &format!("driver=luks,file=disk,key-secret={id}")).await?;
    let done = image
        .node()
        .driver()
        .amend(graph, Amendment { force, ..Amendment::new(options(list)) })
        .await;
    done.and(image.close().await)
}

/// The image after changes that must succeed.
fn amended(disk: &Disk, id: &str, lists: &[(&str, bool)]) -> Disk {
    let machine = Recorder::new(1);
    let (graph, _user) = over(machine.add(disk.clone()), Perm::empty());
    for (list, force) in lists {
        run(amend(&graph, id, list, *force)).unwrap_or_else(|error| panic!("{list}: {error}"));
    }
    machine.disks().remove(0)
}

const ADD: &str = "state=active,new-secret=new,iter-time=0";

#[test]
fn passphrases_are_added_and_taken_away() {
    let image = sample();
    assert!(opens(&image, "new").is_err());
    let both = amended(&image, "s", &[(ADD, false)]);
    assert!(opens(&both, "s").expect("old") && opens(&both, "new").expect("new"));
    let new_only = amended(&both, "new", &[("state=inactive,old-secret=s", false)]);
    assert!(opens(&new_only, "s").is_err() && opens(&new_only, "new").expect("new"));
    let by_number = amended(&both, "s", &[("state=inactive,keyslot=1", false)]);
    assert!(opens(&by_number, "new").is_err() && opens(&by_number, "s").expect("old"));
    let replaced = amended(&image, "s", &[(&format!("{ADD},keyslot=0"), true)]);
    assert!(opens(&replaced, "s").is_err() && opens(&replaced, "new").expect("new"));
}

#[test]
fn what_would_lose_data_is_refused() {
    let (graph, _user) = over(Memory::new(sample()), Perm::empty());
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
        let error = run(amend(&graph, "s", list, false)).expect_err(list).to_string();
        assert!(error.contains(hint), "{list}: {error}");
    }
}

#[test]
fn all_slots_can_be_used() {
    let full = amended(&sample(), "s", &[(ADD, false); 7]);
    let (graph, _user) = over(Memory::new(full), Perm::empty());
    let error = run(amend(&graph, "s", ADD, false)).expect_err("no slot is left");
    assert!(error.to_string().contains("all key slots"), "{error}");
}

const PLAN: Plan = Plan { seed: 3, subsets: 6, torn: 2 };

#[test]
fn a_power_cut_leaves_the_old_or_the_new_slot() {
    let image = amended(&sample(), "s", &[(ADD, false)]);
    for (list, force) in [
        (ADD, false),
        ("state=active,new-secret=wrong,keyslot=6,iter-time=0", false),
        ("state=active,new-secret=wrong,keyslot=1,iter-time=0", true),
        ("state=inactive,keyslot=1", false),
    ] {
        let machine = Recorder::new(1);
        let (graph, _user) = over(machine.add(image.clone()), Perm::empty());
        run(amend(&graph, "s", list, force)).unwrap_or_else(|error| panic!("{list}: {error}"));
        for state in machine.log().states(&PLAN) {
            let opened = opens(&state.disks[0], "s");
            assert!(opened.is_ok_and(|sound| sound), "{list} {}", state.id);
        }
    }
}

#[test]
fn a_new_image_is_none_before_it_is_complete() {
    let machine = Recorder::new(1);
    let mut old = Disk::new(1 << 20);
    old.write(0, &vec![0xaa; 1 << 20]);
    format(machine.add(old)).expect("formatted");
    let mut complete = 0;
    for state in machine.log().states(&PLAN) {
        let mut magic = [0; 6];
        state.disks[0].read(0, &mut magic);
        if magic == *b"LUKS\xba\xbe" {
            opens(&state.disks[0], "s").unwrap_or_else(|error| panic!("{}: {error}", state.id));
            complete += 1;
        }
    }
    assert!(complete > 0);
}
