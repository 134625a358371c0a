//! Power cuts at every moment.

use std::time::Duration;

use cairn_testkit::{CrashLog, Plan, Recorder, Watchdog, seeded};

use crate::setup::{CHAINS, Disks, difference, on_io_thread};

/// Longest time that one state may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The states of `log`; some that a longer look would show are left out.
fn plan(seed: u64) -> Plan {
    Plan { seed, subsets: 30, torn: 1 }
}

fn summary(name: &str, what: &str, log: &CrashLog, states: usize) {
    println!("{what} of {name}: {states} states of {} events", log.len());
    assert!(states >= 30, "{what} of {name}: only {states} states");
}

#[test]
fn commits() {
    let watchdog = Watchdog::start(PATIENCE);
    let seed = seeded(0xc0);
    for chain in CHAINS {
        let machine = Recorder::new(seed);
        let base = machine.add(chain.base.make(None));
        let disks = Disks::new(&chain);
        let top = machine.add(chain.top.make(Some(&disks.old)));
        let (want, merged) = (chain.want(), chain.merged());
        on_io_thread(async {
            chain.commit(base, top).await.expect("commits");
            let [base, top] = &machine.disks()[..] else { panic!("two disks") };
            let base = chain.base_view(base).await.expect("can be read");
            assert_eq!(difference(&base, &merged), None, "{}", chain.name);
            assert!(top.allocated() < 256 << 10, "the overlay was not emptied");
            let log = machine.log();
            let mut states = 0;
            for state in log.states(&plan(seed)) {
                let name = format!("{} {} (seed {seed:#x})", chain.name, state.id);
                watchdog.step(&name);
                let [base, top] = &state.disks[..] else { panic!("two disks") };
                let view = chain.view(base, top).await;
                let view = view.unwrap_or_else(|e| panic!("{name}: {e}: {:?}", state.events));
                assert_eq!(difference(&view, &want), None, "{name}: {:?}", state.events);
                states += 1;
            }
            summary(chain.name, "commit", &log, states);
        });
    }
}

#[test]
fn rebases() {
    let watchdog = Watchdog::start(PATIENCE);
    let seed = seeded(0x4b);
    for chain in CHAINS {
        let (disks, want) = (Disks::new(&chain), chain.want());
        for to_none in [false, true] {
            let machine = Recorder::new(seed);
            let top = machine.add(chain.top.make(Some(&disks.old)));
            on_io_thread(async {
                disks.rebase(top, to_none).await.expect("rebases");
                let log = machine.log();
                let mut states = 0;
                for state in log.states(&plan(seed)) {
                    let name = format!("{} {} (seed {seed:#x})", chain.name, state.id);
                    watchdog.step(&name);
                    let view = disks.view(&state.disks[0]).await;
                    let view = view.unwrap_or_else(|e| panic!("{name}: {e}: {:?}", state.events));
                    assert_eq!(difference(&view, &want), None, "{name}: {:?}", state.events);
                    states += 1;
                }
                let what = if to_none { "flattening" } else { "rebase" };
                summary(chain.name, what, &log, states);
            });
        }
    }
}
