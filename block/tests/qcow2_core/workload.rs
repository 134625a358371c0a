//! Random requests against a model.

use cairn_block::Result;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::Backend;
use cairn_testkit::{
    Effect, Faults, Faulty, IoKinds, Memory, Model, Op, Profile, Reopen, Rng, Rule, Value,
    Workload, effect, perform, run,
};
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

/// Runs a workload in which the I/O request number `index` of the given kind fails once; afterwards
/// the image must close, keep what was written, and have at most leaks.
async fn with_fault(dir: &std::path::Path, kind: &Kind, rule: Rule, seed: u64) -> bool {
    let what = format!("{} {rule:?}", kind.options);
    let profile = Profile {
        compressed: kind.compressed,
        ..Profile::new(kind.cluster * 40, kind.cluster, 40)
    };
    let memory = Memory::new(create(dir, kind.options, &[], profile.size));
    let faults = Faults::default();
    let faulty = Faulty::new(Box::new(memory.clone()), faults.clone());
    let disk = open(faulty, kind.runtime, false).await.unwrap();
    faults.arm(rule);
    let mut model = Model::new(profile.size);
    for op in &Workload::generate(seed, &profile).ops {
        let requests = match op {
            Op::Parallel(ops) => ops.clone(),
            Op::Reopen => vec![Op::Flush],
            op => vec![op.clone()],
        };
        let mut effects = Vec::new();
        for request in &requests {
            let result = perform(&disk, request).await;
            let Some((range, effect)) = effect(request, true) else { continue };
            // A request that failed may have been done in part.
            let effect = match (result, request) {
                (Err(_), Op::Write { tag, .. } | Op::Compressed { tag, .. }) => {
                    Effect::set(Value::Tag(*tag)).uncertain()
                }
                (Err(_), Op::Zero { .. }) => Effect::set(Value::Zero).uncertain(),
                _ => effect,
            };
            effects.push((range, effect));
        }
        for effect in effects {
            model.step(&[effect]);
        }
    }
    let fired = faults.fired() > 0;
    faults.disarm();
    disk.close().await.unwrap_or_else(|error| panic!("{what}: cannot close: {error}"));
    let disk = open(memory.clone(), &[], true).await.unwrap();
    let wrong = model.verify(&disk, model.all_done()).await.unwrap();
    assert!(wrong.is_empty(), "{what}: {}", wrong[0]);
    stock_check(dir, &memory.disk(), true, &what);
    fired
}

#[test]
fn any_single_io_error_leaves_a_sound_image() {
    let dir = tempfile::tempdir().unwrap();
    block_on(&EngineConfig::default(), async {
        let mut rng = Rng::new(7);
        for kind in KINDS {
            for kinds in [IoKinds::WRITE, IoKinds::FLUSH, IoKinds::READ] {
                for _ in 0..4 {
                    let rule = Rule {
                        kinds,
                        index: rng.below(40),
                        errno: 28,
                        sticky: false,
                        torn: rng.below(2) == 0,
                    };
                    with_fault(dir.path(), kind, rule, rng.bits()).await;
                }
            }
        }
    })
    .unwrap();
}
