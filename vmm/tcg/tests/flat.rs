//! The address space of a user-mode guest.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

use cairn_tcg::code::Cache;
use cairn_tcg::ir::{Order, Rmw, Size};
use cairn_tcg::softmmu::{Backing, Flat, MapError, Protection};
use cairn_tcg::{Access, Fault, FaultKind, MemOp, Memory};

const ANONYMOUS: Backing<'static> = Backing::Anonymous { shared: false };
const PAGE: u64 = 4096;

fn memory() -> Flat {
    Flat::new(1 << 32, None, Arc::new(Cache::new())).unwrap()
}

fn mapped() -> Flat {
    let memory = memory();
    memory.map(PAGE, 2 * PAGE, Protection::READ | Protection::WRITE, ANONYMOUS).unwrap();
    memory
}

fn fault(address: u64, access: Access, kind: FaultKind) -> Fault {
    Fault { address, access, kind }
}

#[test]
fn values_have_size_sign_and_byte_order() {
    let memory = mapped();
    // One address is aligned, one is not, and one crosses a page.
    for address in [PAGE, PAGE + 13, 2 * PAGE - 3] {
        let word = MemOp::new(Size::B8);
        memory.store(address, 0x8192_a3b4_c5d6_e7f8, word).unwrap();
        let load = |op| memory.load(address, op).unwrap();
        assert_eq!(load(word), 0x8192_a3b4_c5d6_e7f8);
        assert_eq!(load(word.big_endian()), 0xf8e7_d6c5_b4a3_9281);
        assert_eq!(load(MemOp::new(Size::B2)), 0xe7f8);
        assert_eq!(load(MemOp::new(Size::B2).signed()), 0xffff_ffff_ffff_e7f8);
        assert_eq!(load(MemOp::new(Size::B2).big_endian()), 0xf8e7);
        assert_eq!(load(MemOp::new(Size::B4).ordered(Order::Acquire)), 0xc5d6_e7f8);
        memory.store(address, 0x1234, MemOp::new(Size::B2).big_endian()).unwrap();
        assert_eq!(load(word), 0x8192_a3b4_c5d6_3412);
    }
}

#[test]
fn faults_name_the_byte_and_the_reason() {
    let memory = mapped();
    let op = MemOp::new(Size::B4);
    assert_eq!(memory.load(0, op), Err(fault(0, Access::Read, FaultKind::Unmapped)));
    assert_eq!(
        memory.store(1 << 40, 0, op),
        Err(fault(1 << 40, Access::Write, FaultKind::Unmapped))
    );
    let end = u64::MAX - 1;
    assert_eq!(memory.load(end, op), Err(fault(end, Access::Read, FaultKind::Unmapped)));
    // The first byte that is missing, not the first of the access; and nothing was stored.
    let across = 3 * PAGE - 2;
    let missing = fault(3 * PAGE, Access::Write, FaultKind::Unmapped);
    assert_eq!(memory.store(across, u64::MAX, op), Err(missing));
    assert_eq!(memory.load(across, MemOp::new(Size::B2)), Ok(0));
    assert_eq!(
        memory.load(PAGE + 2, op.aligned()),
        Err(fault(PAGE + 2, Access::Read, FaultKind::Misaligned))
    );

    memory.protect(PAGE, PAGE, Protection::READ).unwrap();
    assert_eq!(memory.load(PAGE, op), Ok(0));
    assert_eq!(memory.store(PAGE, 0, op), Err(fault(PAGE, Access::Write, FaultKind::Protected)));
    memory.protect(PAGE, PAGE, Protection::empty()).unwrap();
    assert_eq!(memory.load(PAGE, op), Err(fault(PAGE, Access::Read, FaultKind::Protected)));
    memory.unmap(PAGE, PAGE).unwrap();
    let unmapped = memory.protect(PAGE, 2 * PAGE, Protection::READ);
    assert!(matches!(unmapped, Err(MapError::Unmapped(PAGE))));
    assert_eq!(memory.protection(2 * PAGE), Some(Protection::READ | Protection::WRITE));
    assert_eq!(memory.load(PAGE, op), Err(fault(PAGE, Access::Read, FaultKind::Unmapped)));
}

#[test]
fn read_modify_writes_are_of_their_size() {
    let memory = mapped();
    let whole = MemOp::new(Size::B8);
    let half = MemOp::new(Size::B4).signed();
    let minus_two = (-2_i64).cast_unsigned();
    let cases = [
        (Rmw::Swap, 9),
        (Rmw::Add, 3),
        (Rmw::And, 4),
        (Rmw::Or, 0xffff_ffff),
        (Rmw::Xor, 0xffff_fffb),
        (Rmw::MinS, 0xffff_fffe),
        (Rmw::MaxS, 5),
        (Rmw::MinU, 5),
        (Rmw::MaxU, 0xffff_fffe),
    ];
    for (rmw, expected) in cases {
        memory.store(PAGE, 0x7777_7777_0000_0005, whole).unwrap();
        let operand = if rmw == Rmw::Swap { 9 } else { minus_two };
        assert_eq!(memory.rmw(PAGE, operand, rmw, half), Ok(5), "{rmw:?}");
        assert_eq!(memory.load(PAGE, whole), Ok(0x7777_7777_0000_0000 | expected), "{rmw:?}");
    }
    assert_eq!(memory.cas(PAGE, 1, 2, half), Ok((-2_i64).cast_unsigned()));
    assert_eq!(memory.cas(PAGE, minus_two, 2, half), Ok(minus_two));
    assert_eq!(memory.load(PAGE, whole), Ok(0x7777_7777_0000_0002));

    let (first, second) = ([0x7777_7777_0000_0002, 0], [3, 4]);
    assert_eq!(memory.cas_pair(PAGE, [0, 0], second, whole), Ok(first));
    assert_eq!(memory.cas_pair(PAGE, first, second, whole), Ok(first));
    assert_eq!(memory.cas_pair(PAGE, first, first, whole), Ok(second));
    let misaligned = fault(PAGE + 8, Access::Write, FaultKind::Misaligned);
    assert_eq!(memory.cas_pair(PAGE + 8, first, first, whole), Err(misaligned));
}

#[test]
fn additions_of_many_threads_all_count() {
    let memory = mapped();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    memory.rmw(PAGE + 4, 1, Rmw::Add, MemOp::new(Size::B2)).unwrap();
                }
            });
        }
    });
    assert_eq!(memory.load(PAGE + 4, MemOp::new(Size::B2)), Ok(40_000));
}

#[test]
fn files_are_mapped() {
    let path = std::env::temp_dir().join(format!("cairn-flat-{}", std::process::id()));
    let mut file = File::create(&path).unwrap();
    file.write_all(&[vec![0; 4096], b"hello".to_vec()].concat()).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let memory = memory();
    let backing = Backing::File { file: file.as_fd(), offset: PAGE, shared: false };
    memory.map(0x10_0000, PAGE, Protection::READ, backing).unwrap();
    let mut text = [0; 5];
    memory.read(0x10_0000, &mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[test]
fn ranges_outside_are_refused() {
    let memory = memory();
    for (start, len) in [(0, 0), (1, PAGE), (PAGE, 5), (1 << 32, PAGE), (0, !0xfff)] {
        let refused = memory.map(start, len, Protection::READ, ANONYMOUS);
        assert!(matches!(refused, Err(MapError::Range { .. })), "{start:#x}+{len:#x}");
    }
}
