//! The crash tests find the classical mistakes of a format driver, and accept one without mistakes.

mod toy;

use cairn_block::Result;
use cairn_block::driver::Perm;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Backend, Graph, NodeFlags};
use cairn_testkit::{
    Disk, Faults, Faulty, IoKinds, Memory, Model, Op, Plan, Profile, Recorder, Reopen, Rng, Rule,
    Value, Volatile, Workload, perform, run,
};
use futures_util::future::LocalBoxFuture;
use toy::{Mistake, Toy};

fn flags() -> NodeFlags {
    NodeFlags { unmap: true, ..NodeFlags::default() }
}

async fn open(driver: impl cairn_block::driver::Driver, mistake: Mistake) -> Result<Backend> {
    let graph = Graph::new();
    let file = graph.add_driver("file", flags(), Box::new(driver))?;
    let toy = Toy::open(file, mistake).await?;
    let node = graph.add_driver("toy", flags(), Box::new(toy))?;
    Backend::new(&graph, node, "test", Perm::CONSISTENT_READ | Perm::WRITE, Perm::all())
}

struct Image {
    machine: Recorder,
    disk: Volatile,
    mistake: Mistake,
}

impl Reopen for Image {
    fn open(&self) -> LocalBoxFuture<'_, Result<Backend>> {
        Box::pin(open(self.disk.clone(), self.mistake))
    }

    fn position(&self) -> usize {
        self.machine.position()
    }
}

/// States made, and states in which data was lost.
fn survey(mistake: Mistake) -> (u64, u64) {
    let machine = Recorder::new(1);
    let image = Image { disk: machine.add(Disk::new(0)), machine: machine.clone(), mistake };
    let profile = Profile { discards: 0, ..Profile::new(Toy::SIZE, 4096, 40) };
    let mut counts = (0, 0);
    block_on(&EngineConfig::default(), async {
        let workload = Workload::generate(2, &profile);
        let run = run(&image, &workload, Model::new(Toy::SIZE)).await.unwrap();
        let log = machine.log();
        for state in log.states(&Plan { seed: 3, subsets: 50, torn: 2 }) {
            let known = run.known(state.position);
            let disk = Memory::new(state.disks[0].clone());
            let toy = open(disk, Mistake::None).await.unwrap();
            counts.0 += 1;
            counts.1 += u64::from(!run.model.verify(&toy, known).await.unwrap().is_empty());
        }
    })
    .unwrap();
    counts
}

#[test]
fn a_correct_driver_survives_every_power_cut() {
    let (states, losses) = survey(Mistake::None);
    println!("{states} states");
    assert!(states > 1000);
    assert_eq!(losses, 0);
}

#[test]
fn each_mistake_is_found() {
    let mistakes = [Mistake::TableFirst, Mistake::NoBarrier, Mistake::NoFlush, Mistake::EarlyReuse];
    for mistake in mistakes {
        let (states, losses) = survey(mistake);
        println!("{mistake:?}: {losses} of {states} states");
        assert!(losses > 0, "{mistake:?} goes unnoticed");
    }
}

#[test]
fn memory_and_the_model_agree_on_any_workload() {
    struct Raw(Memory);
    impl Reopen for Raw {
        fn open(&self) -> LocalBoxFuture<'_, Result<Backend>> {
            Box::pin(async move {
                let graph = Graph::new();
                let node = graph.add_driver("disk", flags(), Box::new(self.0.clone()))?;
                let used = Perm::CONSISTENT_READ | Perm::WRITE | Perm::RESIZE;
                Backend::new(&graph, node, "test", used, Perm::all())
            })
        }
    }
    block_on(&EngineConfig::default(), async {
        for seed in 0..20 {
            let profile = Profile {
                align: 1 << Rng::new(seed).below(13),
                resizes: 10,
                ..Profile::new(300_000, 4096, 100)
            };
            let image = Raw(Memory::new(Disk::new(profile.size)));
            let workload = Workload::generate(seed, &profile);
            let run = run(&image, &workload, Model::new(profile.size)).await.unwrap();
            let disk = image.open().await.unwrap();
            assert_eq!(run.model.sizes(run.model.all_done()), [disk.size()]);
            let wrong = run.model.verify(&disk, run.model.all_done()).await.unwrap();
            assert!(wrong.is_empty(), "seed {seed}: {}", wrong[0]);
        }
    })
    .unwrap();
}

#[test]
fn the_chosen_requests_fail() {
    let faults = Faults::default();
    let memory = Memory::new(Disk::new(65_536));
    let driver = Faulty::new(Box::new(memory.clone()), faults.clone());
    block_on(&EngineConfig::default(), async {
        let graph = Graph::new();
        let node = graph.add_driver("disk", flags(), Box::new(driver)).unwrap();
        let used = Perm::CONSISTENT_READ | Perm::WRITE;
        let disk = Backend::new(&graph, node, "test", used, Perm::all()).unwrap();
        let write = async |offset, tag| {
            perform(&disk, &Op::Write { offset, len: 4096, tag, fua: false }).await
        };
        let rule = Rule {
            kinds: IoKinds::WRITE,
            index: 1,
            errno: libc::ENOSPC,
            sticky: false,
            torn: true,
        };
        faults.arm(rule);
        write(0, 1).await.unwrap();
        let error = write(4096, 2).await.expect_err("the second write");
        assert_eq!(error.errno(), libc::ENOSPC);
        write(8192, 3).await.unwrap();
        assert_eq!(faults.fired(), 1);
        let mut expected = Disk::new(65_536);
        for (offset, len, tag) in [(0, 4096, 1), (4096, 2048, 2), (8192, 4096, 3)] {
            expected.write(offset, &Value::Tag(tag).buffer(offset, len));
        }
        assert_eq!(memory.disk().difference(&expected), None);

        faults.arm(Rule { index: 0, sticky: true, torn: false, ..rule });
        write(0, 4).await.expect_err("every write");
        write(0, 4).await.expect_err("every write");
        faults.disarm();
        assert_eq!(faults.fired(), 2);
        assert_eq!(memory.disk().difference(&expected), None);
        write(0, 4).await.unwrap();
    })
    .unwrap();
}
