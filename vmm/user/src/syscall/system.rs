//! The system, and calls that only RISC-V has.

use cairn_tcg::{Access, Memory};

use super::Call;
use crate::abi::layout;
use crate::errno::Errno;
use crate::host::Word;

/// Bytes of a field of `struct utsname`.
const NAME: usize = 65;

pub(super) fn uname(call: &mut Call<'_>) -> Result<u64, Errno> {
    let mut names = [0; 6 * NAME];
    call.host(libc::SYS_uname, [Word::Out(&mut names)])?;
    let mut set = |index: usize, text: &str| {
        let field = &mut names[index * NAME..(index + 1) * NAME];
        field.fill(0);
        let len = text.len().min(NAME - 1);
        field[..len].copy_from_slice(&text.as_bytes()[..len]);
    };
    let process = &call.task.process;
    if let Some(release) = &process.choices.release {
        set(2, release);
    }
    set(4, process.machine.name);
    call.write(call.long(0), &names)?;
    Ok(0)
}

pub(super) fn sysinfo(call: &mut Call<'_>) -> Result<u64, Errno> {
    let mut info = [0; 112];
    call.host(libc::SYS_sysinfo, [Word::Out(&mut info)])?;
    call.write(call.long(0), &layout::sysinfo(call.width(), &info))?;
    Ok(0)
}

/// `riscv_flush_icache(start, end, flags)`: the range does not matter, all code is looked at once more.
pub(super) fn riscv_flush_icache(call: &mut Call<'_>) -> Result<u64, Errno> {
    const LOCAL: u64 = 1;
    if call.long(2) & !LOCAL != 0 {
        return Err(Errno::EINVAL);
    }
    call.task.process.space.memory.sync_code();
    Ok(0)
}

/// `riscv_hwprobe(pairs, pair_count, cpusetsize, cpus, flags)` (`Documentation/arch/riscv/hwprobe.rst`)
pub(super) fn riscv_hwprobe(call: &mut Call<'_>) -> Result<u64, Errno> {
    /// Bytes of a pair of key and value.
    const PAIR: u64 = 16;
    let (pairs, count) = (call.long(0), call.long(1));
    if call.long(4) != 0 {
        // Which processors have something is not asked of a machine whose processors are alike.
        return Err(Errno::EINVAL);
    }
    let size = count.checked_mul(PAIR).ok_or(Errno::EFAULT)?;
    call.span(pairs, size, Access::Write)?;
    for index in 0..count {
        let at = pairs + index * PAIR;
        let key = i64::from_le_bytes(call.read(at)?);
        let known = call.task.process.traits.probe.iter().find(|(known, _)| *known == key);
        let (key, value) = known.copied().unwrap_or((-1, 0));
        call.write(at, &key.to_le_bytes())?;
        call.write(at + 8, &value.to_le_bytes())?;
    }
    Ok(0)
}

/// What this emulator does not do, by the names that programs know: the kernel would touch guest memory behind the
/// translator's back.
pub(super) fn refused(_call: &mut Call<'_>) -> Result<u64, Errno> {
    Err(Errno::ENOSYS)
}
