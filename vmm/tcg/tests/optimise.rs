//! A block does the same before and after it is optimised.

mod support;

use cairn_tcg::interp::{Leave, run};
use cairn_tcg::ir::{Block, BlockKey, listing, verify};
use cairn_tcg::opt::optimise;
use cairn_tcg::{CpuState, Guest, InsnMark, LiftOptions, Slot, Uop};
use support::{GLOBALS, Random, Toy, ToyCpu, Words, random_block};

fn block(uops: Vec<Uop>, marks: Vec<InsnMark>) -> Block {
    let key = BlockKey { pc: 0x1000, mode: 0, options: LiftOptions::default() };
    Block::new(key, vec![0; 4], uops, marks, 0)
}

fn outcome(block: &Block, seed: u64) -> (Leave, Vec<u64>, Vec<u64>, cairn_fpu::Flags) {
    let mut random = Random(seed);
    let mut cpu = ToyCpu::new();
    for global in 0..GLOBALS {
        cpu.env_mut().set_word(Slot::new(global), random.interesting());
    }
    let memory = Words::new(&mut random);
    let leave = run::<Toy>(&mut cpu, &memory, block);
    let globals = (0..GLOBALS).map(|global| cpu.env().word(Slot::new(global))).collect();
    (leave, globals, memory.words(), cpu.env().float.flags)
}

#[test]
fn optimised_blocks_do_the_same() {
    let mut shorter = 0;
    for seed in 0..20_000 {
        let (uops, marks) = random_block(&mut Random(seed));
        let plain = block(uops.clone(), marks.clone());
        assert_eq!(verify::<Toy>(&plain), Ok(()), "seed {seed}\n{}", listing::<Toy>(&plain));
        let (mut uops, mut marks) = (uops, marks);
        optimise(&mut uops, &mut marks, Toy::GLOBALS.len());
        let optimised = block(uops, marks);
        assert_eq!(verify::<Toy>(&optimised), Ok(()), "seed {seed}");
        shorter += usize::from(optimised.uops.len() < plain.uops.len());
        for run in 0..4 {
            assert_eq!(
                outcome(&plain, run),
                outcome(&optimised, run),
                "seed {seed}\n{}\n{}",
                listing::<Toy>(&plain),
                listing::<Toy>(&optimised)
            );
        }
    }
    assert!(shorter > 10_000, "{shorter} blocks became shorter");
}

#[test]
fn the_verifier_finds_broken_blocks() {
    let (mut broken, total) = (0, 1000);
    for seed in 0..total {
        let mut random = Random(seed);
        let (mut uops, marks) = random_block(&mut random);
        let victim = random.below(uops.len());
        // The last operation always leaves: without it, control would reach the end.
        if seed % 2 == 0 {
            uops.pop();
        } else {
            uops[victim].a = Slot::new(400);
            uops[victim].b = Slot::new(400);
        }
        broken += u64::from(verify::<Toy>(&block(uops, marks)).is_err());
    }
    // Constants and jumps have no operands to break.
    assert!(broken > total * 3 / 4, "{broken} of {total}");
}
