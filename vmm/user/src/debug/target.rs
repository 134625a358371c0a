//! A process as GDB's target.

use cairn_gdbstub::{
    Action, Calls, Object, Point, PointAnswer, PointKind, Registers, Target, ThreadId,
};

use super::Phase;
use crate::process::Process;
use crate::signal::INFO_SIZE;

/// A process.
pub(super) struct ProcessTarget<'a> {
    process: &'a Process,
    pid: u64,
}

impl<'a> ProcessTarget<'a> {
    pub(super) fn new(process: &'a Process) -> ProcessTarget<'a> {
        ProcessTarget { process, pid: std::process::id().into() }
    }
}

/// Threads have numbers of 32 bits.
fn tid(thread: ThreadId) -> u32 {
    u32::try_from(thread).unwrap_or_default()
}

impl Target for ProcessTarget<'_> {
    fn registers(&self) -> &Registers {
        (self.process.machine.registers)()
    }

    fn process(&self) -> u64 {
        self.pid
    }

    fn threads(&self) -> Vec<ThreadId> {
        self.process.debugger.lock().threads.keys().map(|tid| u64::from(*tid)).collect()
    }

    fn thread_name(&self, thread: ThreadId) -> Option<String> {
        let path = format!("/proc/self/task/{thread}/comm");
        std::fs::read_to_string(path).ok().map(|name| name.trim_end().to_owned())
    }

    fn read_register(&self, thread: ThreadId, register: usize) -> Option<Vec<u8>> {
        let state = self.process.debugger.lock();
        state.threads.get(&tid(thread))?.registers.get(register)?.clone()
    }

    fn write_register(&self, thread: ThreadId, register: usize, value: &[u8]) -> bool {
        let mut state = self.process.debugger.lock();
        let Some(thread) = state.threads.get_mut(&tid(thread)) else { return false };
        let Some(old) = thread.registers.get_mut(register).filter(|old| old.is_some()) else {
            return false;
        };
        *old = Some(value.to_vec());
        thread.changes.push((register, value.to_vec()));
        true
    }

    fn read_memory(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.process.space.memory.peek(address, &mut bytes);
        bytes.truncate(read);
        bytes
    }

    fn write_memory(&self, address: u64, bytes: &[u8]) -> bool {
        self.process.space.memory.poke(address, bytes).is_ok()
    }

    fn set_point(&self, point: Point, set: bool) -> PointAnswer {
        let breaks =
            matches!(point.kind, PointKind::SoftwareBreakpoint | PointKind::HardwareBreakpoint);
        if set && self.process.space.memory.protection(point.address).is_none() {
            return PointAnswer::Failed;
        }
        let mut state = self.process.debugger.lock();
        let known = state.points.contains(&point);
        if set && !known {
            state.points.push(point);
        }
        if !set {
            state.points.retain(|other| *other != point);
        }
        if breaks {
            let left = state.points.iter().any(|other| {
                other.address == point.address
                    && matches!(
                        other.kind,
                        PointKind::SoftwareBreakpoint | PointKind::HardwareBreakpoint
                    )
            });
            self.process.space.memory.code().set_breakpoint(point.address, left);
        }
        PointAnswer::Done
    }

    fn resume(&self, actions: &[(ThreadId, Action)]) {
        let mut state = self.process.debugger.lock();
        (state.stopping, state.told, state.reason) = (false, false, None);
        for (thread, action) in actions {
            if let Some(thread) = state.threads.get_mut(&tid(*thread)) {
                let nothing = *action == Action::Continue(None);
                // One in a call goes on by itself, when that is over.
                thread.action = (thread.phase == Phase::Stopped || !nothing).then_some(*action);
            }
        }
        drop(state);
        self.process.debugger.changed.notify_all();
    }

    fn interrupt(&self) {
        let mut state = self.process.debugger.lock();
        if !state.stopping {
            state.stop_all();
            state.tell();
        }
    }

    fn kill(&self) {
        // The process ends with the session.
    }

    fn detach(&self) {
        self.process.debugger.release(self.process);
    }

    fn catch_calls(&self, calls: Calls) -> bool {
        self.process.debugger.lock().calls = calls;
        true
    }

    fn object(&self, object: Object) -> Option<Vec<u8>> {
        match object {
            Object::AuxiliaryVector => Some(self.process.image.auxiliary.clone()),
            Object::ExecutableFile => {
                use std::os::unix::ffi::OsStrExt;
                Some(self.process.image.path.as_os_str().as_bytes().to_vec())
            }
            Object::SignalInfo(thread) => {
                let state = self.process.debugger.lock();
                let info = state.threads.get(&tid(thread))?.signal?;
                let mut bytes = info.encode(self.process.machine.width);
                bytes.truncate(INFO_SIZE);
                Some(bytes)
            }
            // Programs have no memory of other kinds.
            Object::MemoryMap => None,
        }
    }

    fn offset(&self) -> Option<u64> {
        Some(self.process.image.bias)
    }
}
