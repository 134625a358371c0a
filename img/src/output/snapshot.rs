//! The table of internal snapshots.

use std::fmt::{self, Write};

use cairn_block::driver::SnapshotInfo;
use cairn_block::options::format_size;

use super::local_time::local_time;

/// Heads of the columns of [`row`].
const HEADER: &str =
    "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT";

/// Writes the table with its title, each line behind `pad`; nothing if there are no snapshots.
pub fn table(snapshots: &[SnapshotInfo], pad: &str, out: &mut dyn Write) -> fmt::Result {
    if !snapshots.is_empty() {
        write!(out, "{pad}Snapshot list:\n{pad}{HEADER}\n")?;
    }
    snapshots.iter().try_for_each(|snapshot| writeln!(out, "{pad}{}", row(snapshot)))
}

/// One line of the table.
fn row(snapshot: &SnapshotInfo) -> String {
    let millis = snapshot.vm_clock_nsec / 1_000_000;
    let seconds = millis / 1000;
    let clock = format!(
        "{:04}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        millis % 1000
    );
    let icount = snapshot.icount.map_or("--".to_owned(), |count| count.to_string());
    format!(
        "{:<7} {:<16} {:>8} {:>19} {clock:>15} {icount:>10}",
        snapshot.id,
        snapshot.name,
        format_size(snapshot.vm_state_size),
        local_time(snapshot.date_sec),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_table_lines_up() {
        let snapshot = SnapshotInfo {
            id: "2".into(),
            name: "snap two long name".into(),
            vm_clock_nsec: 3_723_004_000_000,
            icount: Some(0),
            ..SnapshotInfo::default()
        };
        let line = row(&snapshot);
        assert!(line.starts_with("2       snap two long name      0 B "), "{line}");
        assert!(line.ends_with("  0001:02:03.004          0"), "{line}");
        let line = row(&SnapshotInfo { icount: None, ..snapshot });
        assert!(line.ends_with("         --"), "{line}");
    }
}
