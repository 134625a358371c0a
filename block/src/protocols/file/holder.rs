//! Who holds a lock on a file: for messages, as far as /proc tells.

use std::fs;
use std::path::Path;

use crate::engine::File;

/// One line of /proc/locks, or of a `lock:` line in /proc/PID/fdinfo: proc(5).
struct LockLine {
    /// The holder; `None` for locks that belong to an open file description.
    pid: Option<u32>,
    inode: u64,
    first: u64,
    last: u64,
}

impl LockLine {
    /// Parses `1: OFDLCK ADVISORY READ -1 fe:00:42 100 101`.
    fn parse(line: &str) -> Option<LockLine> {
        let mut words = line.split_ascii_whitespace().skip(4);
        let pid = words.next()?.parse().ok();
        let inode = words.next()?.rsplit(':').next()?.parse().ok()?;
        let first = words.next()?.parse().ok()?;
        let last = match words.next()? {
            "EOF" => u64::MAX,
            number => number.parse().ok()?,
        };
        Some(LockLine { pid, inode, first, last })
    }

    fn covers(&self, inode: u64, byte: u64) -> bool {
        self.inode == inode && (self.first..=self.last).contains(&byte)
    }
}

/// The process that holds a lock on `byte` of the file, as a noun phrase.
pub(super) fn of_lock(file: &File, byte: u64) -> Option<String> {
    let inode = rustix::fs::fstat(file).ok()?.st_ino;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut found = locks.lines().filter_map(LockLine::parse).filter(|l| l.covers(inode, byte));
    // A lock of a process names it; one of an open file has to be searched for.
    let pid = found.find_map(|lock| lock.pid).or_else(|| find_open_file(inode, byte))?;
    if pid == std::process::id() {
        return Some("this process (through another node)".to_owned());
    }
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match command.trim() {
        "" => Some(format!("process {pid}")),
        command => Some(format!("process {pid} ({command})")),
    }
}

/// A process with a descriptor that holds the lock. This process comes last, as its own lock may
/// cover the byte, too.
fn find_open_file(inode: u64, byte: u64) -> Option<u32> {
    let own = std::process::id();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != own)
        .collect();
    pids.push(own);
    pids.into_iter().find(|pid| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
        descriptors.flatten().any(|entry| holds(&entry.path(), inode, byte))
    })
}

fn holds(fdinfo: &Path, inode: u64, byte: u64) -> bool {
    let Ok(text) = fs::read_to_string(fdinfo) else { return false };
    text.lines()
        .filter_map(|line| line.strip_prefix("lock:"))
        .filter_map(LockLine::parse)
        .any(|lock| lock.covers(inode, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_lines_of_both_files_are_understood() {
        let line = LockLine::parse("1: OFDLCK  ADVISORY  READ -1 fe:00:10092627 100 101").unwrap();
        assert!(line.covers(10_092_627, 101) && !line.covers(10_092_627, 102));
        assert_eq!(line.pid, None);
        let line = LockLine::parse("2: POSIX  ADVISORY  WRITE 817 00:1f:55 0 EOF").unwrap();
        assert!(line.pid == Some(817) && line.covers(55, 1 << 40));
        assert!(LockLine::parse("3: -> POSIX").is_none());
    }
}
