//! What `map` prints.

use crate::ops::map::MapEntry;

/// The first line for people.
pub const HUMAN_HEADER: &str = "Offset          Length          Mapped to       File\n";

/// One line for people.
pub fn human(entry: &MapEntry, offset: u64, filename: &str) -> String {
    let [start, length, offset] = [entry.start, entry.length, offset].map(hex);
    format!("{start:<16}{length:<16}{offset:<16}{filename}\n")
}

/// C's `%#x`: no prefix for zero.
fn hex(value: u64) -> String {
    if value == 0 { "0".to_owned() } else { format!("{value:#x}") }
}

/// One element of the list for programs. The list begins with `[`, elements are separated by `,` and
/// a newline, and it ends with `]` and a newline.
pub fn json(entry: &MapEntry) -> String {
    let MapEntry { start, length, depth, present, zero, data, compressed, offset, .. } = entry;
    let offset = offset.map_or(String::new(), |offset| format!(", \"offset\": {offset}"));
    format!(
        "{{ \"start\": {start}, \"length\": {length}, \"depth\": {depth}, \"present\": {present}, \
         \"zero\": {zero}, \"data\": {data}, \"compressed\": {compressed}{offset}}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> MapEntry {
        MapEntry {
            start: 0,
            length: 1 << 20,
            depth: 0,
            present: true,
            zero: false,
            data: true,
            compressed: false,
            offset: Some(0x50000),
            filename: Some("b.qcow2".into()),
        }
    }

    #[test]
    fn human_line() {
        assert_eq!(
            human(&entry(), 0x50000, "b.qcow2"),
            "0               0x100000        0x50000         b.qcow2\n"
        );
    }

    #[test]
    fn json_element() {
        assert_eq!(
            json(&entry()),
            r#"{ "start": 0, "length": 1048576, "depth": 0, "present": true, "zero": false, "data": true, "compressed": false, "offset": 327680}"#
        );
        let hole = MapEntry { offset: None, data: false, zero: true, present: false, ..entry() };
        assert!(json(&hole).ends_with(r#""data": false, "compressed": false}"#));
    }
}
