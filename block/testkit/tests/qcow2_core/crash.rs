//! Power cuts at every moment.

use cairn_block::Result;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::Backend;
use cairn_testkit::{
    Memory, Model, Plan, Profile, Recorder, Reopen, Volatile, Workload, run, stock,
};
use futures_util::future::LocalBoxFuture;

use crate::image::{KINDS, Kind, create, open, stock_check};

struct Crashing<'k> {
    machine: Recorder,
    disk: Volatile,
    kind: &'k Kind,
}

impl Reopen for Crashing<'_> {
    fn open(&self) -> LocalBoxFuture<'_, Result<Backend>> {
        Box::pin(open(self.disk.clone(), self.kind.runtime, false))
    }

    fn discard_bares(&self) -> bool {
        true
    }

    fn position(&self) -> usize {
        self.machine.position()
    }
}

#[test]
fn every_power_cut_leaves_what_was_flushed_and_at_most_leaks() {
    if stock::version().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lazy = Kind { options: "lazy_refcounts=on", ..KINDS[0] };
    let mut states = 0;
    block_on(&EngineConfig::default(), async {
        for kind in KINDS.iter().chain([&lazy]) {
            for seed in 0..2 {
                let what = format!("{} seed {seed}", kind.options);
                let profile = Profile {
                    compressed: kind.compressed,
                    ..Profile::new(kind.cluster * 60, kind.cluster, 50)
                };
                let machine = Recorder::new(seed);
                let disk = machine.add(create(dir.path(), kind.options, &[], profile.size));
                let image = Crashing { machine: machine.clone(), disk, kind };
                let workload = Workload::generate(seed, &profile);
                let run = run(&image, &workload, Model::new(profile.size)).await;
                let run = run.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                let log = machine.log();
                for state in log.states(&Plan { seed, subsets: 10, torn: 1 }) {
                    let what = format!("{what} {}", state.id);
                    let known = run.known(state.position);
                    let memory = Memory::new(state.disks[0].clone());
                    let backend = open(memory, &[], true).await.unwrap();
                    let wrong = run.model.verify(&backend, known).await;
                    let wrong = wrong.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert!(wrong.is_empty(), "{what}: {}\n{:?}", wrong[0], state.events);
                    // With lazy refcounts the reference repairs the image when it opens it.
                    if states % 37 == 0 && kind.options != lazy.options {
                        stock_check(dir.path(), &state.disks[0], true, &what);
                    }
                    states += 1;
                }
            }
        }
    })
    .unwrap();
    assert!(states > 1000, "{states} states are too few to mean anything");
}
