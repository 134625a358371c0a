//! The translation cache of system mode.

use cairn_tcg::Access;
use cairn_tcg::softmmu::{Lookup, Tlb, TlbEntry, TlbFlags};

const NONE: TlbFlags = TlbFlags::empty();
const INVALID: TlbFlags = TlbFlags::INVALID;

fn page(number: u64) -> TlbEntry {
    TlbEntry::new(number << 12, [NONE, NONE, INVALID], 0x7000_0000_0000)
}

fn host(address: u64) -> Lookup {
    Lookup::Fast(address + 0x7000_0000_0000)
}

#[test]
fn an_access_that_is_allowed_is_fast() {
    let mut tlb = Tlb::new();
    assert_eq!(tlb.lookup(0x5008, 8, Access::Read), Lookup::Miss);
    tlb.fill(page(5));
    assert_eq!(tlb.lookup(0x5008, 8, Access::Read), host(0x5008));
    assert_eq!(tlb.lookup(0x5ff8, 8, Access::Write), host(0x5ff8));
    assert_eq!(tlb.lookup(0x5008, 4, Access::Fetch), Lookup::Miss);
    assert_eq!(tlb.lookup(0x6000, 1, Access::Read), Lookup::Miss);
    // Across the end of the page.
    assert!(matches!(tlb.lookup(0x5ff9, 8, Access::Read), Lookup::Slow(..)));
    // At the end of the address space.
    assert_eq!(tlb.lookup(u64::MAX, 8, Access::Read), Lookup::Miss);
}

#[test]
fn reasons_for_care_are_reported() {
    let mut tlb = Tlb::new();
    let entry = TlbEntry::new(0x9000, [NONE, TlbFlags::MMIO | TlbFlags::SWAP, INVALID], 0);
    tlb.fill(entry);
    let slow = Lookup::Slow(entry, TlbFlags::MMIO | TlbFlags::SWAP);
    assert_eq!(tlb.lookup(0x9010, 4, Access::Write), slow);
    assert_eq!(tlb.lookup(0x9010, 4, Access::Read), Lookup::Fast(0x9010));

    tlb.fill(page(5));
    tlb.guard_writes(0x7000_0000_5000, 0x1000, TlbFlags::CLEAN);
    assert_eq!(tlb.lookup(0x5000, 4, Access::Read), host(0x5000));
    let Lookup::Slow(_, flags) = tlb.lookup(0x5000, 4, Access::Write) else { panic!() };
    assert_eq!(flags, TlbFlags::CLEAN);
}

#[test]
fn an_evicted_page_comes_back_from_the_victims() {
    let mut tlb = Tlb::new();
    let step = tlb.size() as u64;
    tlb.fill(page(1));
    tlb.fill(page(1 + step));
    let address = 0x1010;
    assert!(matches!(tlb.lookup(address, 4, Access::Read), Lookup::Slow(..) | Lookup::Fast(_)));
    assert_eq!(tlb.lookup(address, 4, Access::Read), host(address));
    // The other one is a victim now, and can be flushed there.
    tlb.flush_page((1 + step) << 12);
    assert_eq!(tlb.lookup((1 + step) << 12, 4, Access::Read), Lookup::Miss);
    assert_eq!(tlb.lookup(address, 4, Access::Read), host(address));
}

#[test]
fn the_table_follows_its_use() {
    let mut tlb = Tlb::new();
    let small = tlb.size();
    for number in 0..1000 {
        tlb.fill(page(number));
    }
    assert!(tlb.size() >= 1000);
    for number in 0..1000 {
        assert_eq!(tlb.lookup(number << 12, 8, Access::Read), host(number << 12));
    }
    for _ in 0..16 {
        tlb.flush();
        assert_eq!(tlb.lookup(0, 8, Access::Read), Lookup::Miss);
    }
    assert_eq!(tlb.size(), small);
    for number in 0..100_000 {
        tlb.fill(page(number));
    }
    assert_eq!(tlb.size(), 1 << 14);
}
