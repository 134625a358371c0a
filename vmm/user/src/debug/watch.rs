//! Memory with watchpoints: accesses to some addresses are noted.

use std::sync::{Mutex, PoisonError};

use cairn_gdbstub::{Point, PointKind};
use cairn_tcg::ir::Rmw;
use cairn_tcg::softmmu::Flat;
use cairn_tcg::{Fault, MemOp, Memory};

/// Memory whose watched accesses are noted. Code of the host does not reach it, so that the interpreter makes all of them.
pub(crate) struct Watched<'a> {
    memory: &'a Flat,
    points: &'a [Point],
    hit: Mutex<Option<(PointKind, u64)>>,
}

impl<'a> Watched<'a> {
    pub(crate) fn new(memory: &'a Flat, points: &'a [Point]) -> Watched<'a> {
        Watched { memory, points, hit: Mutex::new(None) }
    }

    /// The first access that a point is for: its kind, and where the point is.
    pub(crate) fn hit(&self) -> Option<(PointKind, u64)> {
        *self.hit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, address: u64, len: u64, reads: bool, writes: bool) {
        let touched = |point: &&Point| {
            let kind = match point.kind {
                PointKind::Read => reads,
                PointKind::Write => writes,
                PointKind::Access => true,
                PointKind::SoftwareBreakpoint | PointKind::HardwareBreakpoint => false,
            };
            kind && address < point.address.saturating_add(point.len)
                && point.address < address.saturating_add(len)
        };
        if let Some(point) = self.points.iter().find(touched) {
            let mut hit = self.hit.lock().unwrap_or_else(PoisonError::into_inner);
            hit.get_or_insert((point.kind, point.address));
        }
    }
}

impl Memory for Watched<'_> {
    fn load(&self, address: u64, op: MemOp) -> Result<u64, Fault> {
        let value = self.memory.load(address, op)?;
        self.note(address, op.size().bytes(), true, false);
        Ok(value)
    }

    fn store(&self, address: u64, value: u64, op: MemOp) -> Result<(), Fault> {
        self.memory.store(address, value, op)?;
        self.note(address, op.size().bytes(), false, true);
        Ok(())
    }

    fn rmw(&self, address: u64, value: u64, rmw: Rmw, op: MemOp) -> Result<u64, Fault> {
        let old = self.memory.rmw(address, value, rmw, op)?;
        self.note(address, op.size().bytes(), true, true);
        Ok(old)
    }

    fn cas(&self, address: u64, expected: u64, new: u64, op: MemOp) -> Result<u64, Fault> {
        let old = self.memory.cas(address, expected, new, op)?;
        self.note(address, op.size().bytes(), true, old == expected);
        Ok(old)
    }

    fn cas_pair(
        &self,
        address: u64,
        expected: [u64; 2],
        new: [u64; 2],
        op: MemOp,
    ) -> Result<[u64; 2], Fault> {
        let old = self.memory.cas_pair(address, expected, new, op)?;
        self.note(address, 16, true, old == expected);
        Ok(old)
    }

    fn fetch(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.memory.fetch(address, bytes)
    }

    fn watch_code(&self, address: u64) {
        self.memory.watch_code(address);
    }

    fn sync_code(&self) {
        self.memory.sync_code();
    }
}
