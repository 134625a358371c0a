//! Random requests against a model.

use cairn_block::Result;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::Backend;
use cairn_testkit::{Memory, Model, Profile, Reopen, Workload, run, stock};
use futures_util::future::LocalBoxFuture;

use crate::image::{KINDS, Kind, create, open, stock_check};

struct Plain<'k> {
    disk: Memory,
    kind: &'k Kind,
}

impl Reopen for Plain<'_> {
    fn open(&self) -> LocalBoxFuture<'_, Result<Backend>> {
        Box::pin(open(self.disk.clone(), self.kind.runtime, false))
    }

    fn discard_bares(&self) -> bool {
        true
    }
}

#[test]
fn any_workload_reads_back_and_satisfies_the_reference() {
    if stock::version().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    block_on(&EngineConfig::default(), async {
        for kind in KINDS {
            for seed in 0..8 {
                let what = format!("{} seed {seed}", kind.options);
                let profile = Profile {
                    align: if seed % 2 == 0 { 512 } else { 1 },
                    compressed: kind.compressed,
                    max_clusters: if seed % 4 == 3 { 20 } else { 3 },
                    ..Profile::new(kind.cluster * 150 + 512, kind.cluster, 150)
                };
                let disk = Memory::new(create(dir.path(), kind.options, &[], profile.size));
                let image = Plain { disk: disk.clone(), kind };
                let workload = Workload::generate(seed, &profile);
                let run = run(&image, &workload, Model::new(profile.size)).await;
                let run = run.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                let backend = open(disk.clone(), &[], true).await.unwrap();
                let wrong = run.model.verify(&backend, run.model.all_done()).await.unwrap();
                assert!(wrong.is_empty(), "{what}: {}", wrong[0]);
                stock_check(dir.path(), &disk.disk(), false, &what);
            }
        }
    })
    .unwrap();
}
