//! I/O errors at every request, once or from then on. The error must be reported, nothing may be lost,
//! and once the disks work again the command must succeed.

use std::time::Duration;

use cairn_img::error::Result;
use cairn_testkit::{Disk, Fault, Faults, Faulty, Memory, Watchdog};

use crate::setup::{CHAINS, Disks, difference, on_io_thread};

/// Longest time that one run may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// A command on `disks`; each run has its own copy of them.
async fn at_every_index(
    name: &str,
    disks: &[Disk],
    command: impl AsyncFn(Vec<Faulty>) -> Result<()>,
    examine: impl AsyncFn(&[Disk], bool) -> Result<(), String>,
) {
    let watchdog = Watchdog::start(PATIENCE);
    let mut runs = 0;
    for fault in Fault::ALL {
        for index in 0.. {
            let run = format!("{name}: {fault:?} at request {index}");
            watchdog.step(&run);
            let faults = Faults::default();
            let memory: Vec<_> = disks.iter().cloned().map(Memory::new).collect();
            let devices = || {
                let faulty =
                    |device: &Memory| Faulty::new(Box::new(device.clone()), faults.clone());
                memory.iter().map(faulty).collect()
            };
            faults.arm(fault.rule(index));
            let outcome = command(devices()).await;
            faults.disarm();
            let fired = faults.fired_kinds();
            let reported = outcome.is_err() || !fired.must_be_reported();
            assert!(reported, "{run}: {fired:?} was not reported");
            if let Err(error) = &outcome {
                assert!(!fired.is_empty(), "{run}: failed without a fault: {error}");
                assert!(error.to_string().contains("faulty disk"), "{run}: {error}");
            }
            let now = || memory.iter().map(Memory::disk).collect::<Vec<_>>();
            let seen = examine(&now(), outcome.is_ok()).await;
            seen.unwrap_or_else(|problem| panic!("{run}: {problem}"));
            if outcome.is_err() {
                let again = command(devices()).await;
                again.unwrap_or_else(|error| panic!("{run}: fails again: {error}"));
                let seen = examine(&now(), true).await;
                seen.unwrap_or_else(|problem| panic!("{run}, done again: {problem}"));
            }
            runs += 1;
            if fired.is_empty() {
                break;
            }
        }
    }
    println!("{name}: {runs} runs");
    assert!(runs > 10 * Fault::ALL.len(), "{name}: only {runs} runs");
}

fn same(found: &[u8], expected: &[u8]) -> Result<(), String> {
    difference(found, expected).map_or(Ok(()), Err)
}

#[test]
fn commits() {
    for chain in CHAINS {
        let files = Disks::new(&chain);
        let disks = [chain.base.make(None), chain.top.make(Some(&files.old))];
        let (want, merged) = (chain.want(), chain.merged());
        let commit = async |mut devices: Vec<Faulty>| {
            let top = devices.pop().expect("two disks");
            let base = devices.pop().expect("two disks");
            chain.commit(base, top).await
        };
        let examine = async |disks: &[Disk], done: bool| {
            let [base, top] = disks else { panic!("two disks") };
            same(&chain.view(base, top).await?, &want)?;
            if done { same(&chain.base_view(base).await?, &merged) } else { Ok(()) }
        };
        on_io_thread(at_every_index(&format!("commit {}", chain.name), &disks, commit, examine));
    }
}

#[test]
fn rebases() {
    for chain in CHAINS {
        let (files, want) = (Disks::new(&chain), chain.want());
        let disks = [chain.top.make(Some(&files.old))];
        for to_none in [false, true] {
            let rebase = async |mut devices: Vec<Faulty>| {
                files.rebase(devices.pop().expect("a disk"), to_none).await
            };
            let examine =
                async |disks: &[Disk], _done: bool| same(&files.view(&disks[0]).await?, &want);
            on_io_thread(at_every_index(
                &format!("rebase {}", chain.name),
                &disks,
                rebase,
                examine,
            ));
        }
    }
}
