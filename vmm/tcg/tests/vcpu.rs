//! Running code that changes.

mod support;

use std::sync::Arc;

use cairn_tcg::code::Cache;
use cairn_tcg::softmmu::{Backing, Flat, Protection};
use cairn_tcg::{Access, CpuState, FaultKind, Guest, Jit, LiftOptions, Memory, Slot, Stop, Vcpu};
use support::{GLOBALS, Random, Toy, ToyCpu};

const CODE: u64 = 0x10000;

fn machine(options: LiftOptions) -> (Flat, Vcpu<Toy>) {
    let code = Arc::new(Cache::new());
    let memory = Flat::new(1 << 20, None, code.clone()).unwrap();
    let all = Protection::READ | Protection::WRITE | Protection::EXECUTE;
    memory.map(CODE, 0x2000, all, Backing::Anonymous { shared: false }).unwrap();
    memory.map(0, 0x1000, all, Backing::Anonymous { shared: false }).unwrap();
    let mut vcpu = Vcpu::<Toy>::new(ToyCpu::new(), code, options);
    vcpu.cpu.env_mut().set_word(Toy::PC, CODE);
    (memory, vcpu)
}

fn globals(vcpu: &Vcpu<Toy>) -> Vec<u64> {
    (0..GLOBALS).map(|global| vcpu.cpu.env().word(Slot::new(global))).collect()
}

#[test]
fn steps_and_blocks_end_in_the_same_state() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let code: Vec<u8> = (0..0x1800).map(|_| random.next().to_le_bytes()[0]).collect();
        let run = |options: LiftOptions, single: bool| {
            let (memory, mut vcpu) = machine(options);
            memory.write(CODE, &code).unwrap();
            let mut stop = Stop::Stepped;
            while stop == Stop::Stepped {
                stop = if single { vcpu.step(&memory) } else { vcpu.run(&memory) };
            }
            let mut low = vec![0; 0x1000];
            memory.read(0, &mut low).unwrap();
            (stop, globals(&vcpu), low)
        };
        let plain = LiftOptions { optimise: false, ..LiftOptions::default() };
        let expected = run(plain, true);
        assert_eq!(run(plain, false), expected, "seed {seed}");
        assert_eq!(run(LiftOptions::default(), false), expected, "seed {seed}");
    }
}

/// Runs random code several times: by the interpreter, then by code that is made meanwhile.
#[test]
fn code_of_the_host_ends_in_the_state_of_the_interpreter() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let code: Vec<u8> = (0..0x1800).map(|_| random.next().to_le_bytes()[0]).collect();
        let runs = |jit: Jit| {
            let (memory, mut vcpu) = machine(LiftOptions::default());
            vcpu.jit = jit;
            let mut ends = Vec::new();
            memory.write(CODE, &code).unwrap();
            for _ in 0..3 {
                memory.write(0, &[0; 0x1000]).unwrap();
                vcpu.cpu = ToyCpu::new();
                vcpu.cpu.env_mut().set_word(Toy::PC, CODE);
                let stop = vcpu.run(&memory);
                assert_ne!(stop, Stop::Diverged, "seed {seed}: {}", vcpu.divergence());
                let mut low = vec![0; 0x1000];
                memory.read(0, &mut low).unwrap();
                ends.push((stop, globals(&vcpu), low));
            }
            ends
        };
        let expected = runs(Jit::Off);
        assert_eq!(runs(Jit::After(0)), expected, "seed {seed}");
        assert_eq!(runs(Jit::After(1)), expected, "seed {seed}");
        assert_eq!(runs(Jit::Lockstep), expected, "seed {seed}");
    }
}

#[test]
fn changed_code_is_translated_again() {
    let (memory, mut vcpu) = machine(LiftOptions::default());
    let mut seen = std::collections::BTreeSet::new();
    for value in 0..256_u64 {
        // What the last one stored is gone.
        memory.write(0, &[0; 0x1000]).unwrap();
        memory.write(CODE, &[0; 0x2000]).unwrap();
        memory.write(CODE, &Random(value).next().to_le_bytes()).unwrap();
        let fresh = {
            let (memory, mut vcpu) = machine(LiftOptions::default());
            memory.write(CODE, &Random(value).next().to_le_bytes()).unwrap();
            let stop = vcpu.step(&memory);
            (stop, globals(&vcpu))
        };
        vcpu.cpu = ToyCpu::new();
        vcpu.cpu.env_mut().set_word(Toy::PC, CODE);
        let stop = vcpu.step(&memory);
        assert_eq!((stop, globals(&vcpu)), fresh);
        seen.insert(globals(&vcpu));
    }
    assert!(seen.len() > 16, "the instructions differ");
}

#[test]
fn a_new_generation_compares_code_that_changed_unseen() {
    let (memory, mut vcpu) = machine(LiftOptions::default());
    memory.write(CODE, &[1; 8]).unwrap();
    vcpu.step(&memory);
    let blocks = memory.code().len();
    memory.sync_code();
    vcpu.cpu.env_mut().set_word(Toy::PC, CODE);
    vcpu.step(&memory);
    assert_eq!(memory.code().len(), blocks, "unchanged code is kept");
}

#[test]
fn code_that_cannot_be_fetched_faults_at_its_address() {
    let (memory, mut vcpu) = machine(LiftOptions::default());
    let fault = |vcpu: &mut Vcpu<Toy>, pc: u64| {
        vcpu.cpu.env_mut().set_word(Toy::PC, pc);
        let Stop::Fault(fault) = vcpu.step(&memory) else { panic!("no fault") };
        assert_eq!((vcpu.pc(), fault.access), (pc, Access::Fetch));
        (fault.address, fault.kind)
    };
    assert_eq!(fault(&mut vcpu, 0x80000), (0x80000, FaultKind::Unmapped));
    // An instruction whose second half is missing.
    assert_eq!(fault(&mut vcpu, CODE + 0x1ffc), (CODE + 0x2000, FaultKind::Unmapped));
    memory.protect(CODE, 0x1000, Protection::READ).unwrap();
    assert_eq!(fault(&mut vcpu, CODE + 8), (CODE + 8, FaultKind::Protected));
}

#[test]
fn a_kick_stops_the_cpu() {
    let (memory, mut vcpu) = machine(LiftOptions::default());
    vcpu.kick().kick();
    assert_eq!(vcpu.run(&memory), Stop::Kicked);
    assert_eq!(vcpu.pc(), CODE);
}
