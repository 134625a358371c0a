//! Images that are made, and images that are repaired.

use cairn_block::driver::Repair;
use cairn_testkit::qcow2::{Damage, Layout, boxed, damage};
use cairn_testkit::{Disk, Reopen, Run, Workload, run};

use crate::survey::{Demand, Image, KIB, Survey, on_io_thread};

#[test]
fn create() {
    let layouts = [
        Layout::new("create", &[], 64 * KIB, 24),
        Layout::new("create_metadata", &[("preallocation", "metadata")], 4 * KIB, 1024),
        Layout { data_file: true, ..Layout::new("create_data_file", &[], 64 * KIB, 24) },
        Layout { encrypted: true, ..Layout::new("create_encrypted", &[], 64 * KIB, 24) },
    ];
    for layout in layouts {
        on_io_thread(async {
            let image = Image::new(layout, 0xc4, vec![Disk::new(0); layout.files()]);
            layout.create(boxed(&image.disks)).await.unwrap();
            let done = image.position();
            let model = layout.model();
            let demand = |at| if at < done { Demand::Unfinished } else { Demand::Clean };
            let survey = Survey {
                name: layout.name,
                layout,
                log: image.machine.log(),
                model: &model,
                known: &|_| model.all_done(),
                demand: &demand,
                snapshots: &[],
                recorded: None,
            };
            survey.judge(0xc4, 100).await;
        });
    }
}

/// A used image whose refcounts were then spoilt.
async fn damaged(layout: Layout, what: Damage) -> (Vec<Disk>, Run) {
    let image = Image::new(layout, 1, layout.blank().await.unwrap());
    let workload = Workload::generate(0xda, &layout.profile(40));
    let run = run(&image, &workload, layout.model()).await.unwrap();
    let mut disks = image.machine.disks();
    damage(&mut disks[0], layout.cluster, what);
    (disks, run)
}

#[test]
fn repair() {
    let layout = Layout::new("repair", &[], 4 * KIB, 200);
    for (name, what, repair) in [
        ("repair_leaks", Damage::Leaks, Repair::LEAKS),
        ("repair_partial_leaks", Damage::PartialLeaks, Repair::LEAKS),
        ("repair_errors", Damage::Errors, Repair::LEAKS | Repair::ERRORS),
    ] {
        // Flags that are still to be corrected are errors, though harmless ones.
        let errors = what != Damage::Leaks;
        on_io_thread(async {
            let (disks, run) = damaged(layout, what).await;
            let image = Image::new(layout, 0x9e, disks);
            let open = image.open().await.unwrap();
            let report = open.node().driver().check(repair).await.unwrap();
            assert!(report.leaks_fixed > 0 && (report.corruptions_fixed > 0) == errors);
            open.close().await.unwrap();
            let done = image.position();
            let demand = |at| if errors && at < done { Demand::Repairable } else { Demand::Clean };
            let survey = Survey {
                name,
                layout,
                log: image.machine.log(),
                model: &run.model,
                known: &|_| run.model.all_done(),
                demand: &demand,
                snapshots: &[],
                recorded: None,
            };
            survey.judge(0x9e, 40).await;
        });
    }
}
