//! oVirt's imageio itself: it must see in images of ours, and answers of our tool, what it sees with
//! stock's.

use std::fs;

use crate::host::Host;
use crate::python;

#[test]
fn imageio_works_with_our_tool() {
    let host = Host::new();
    let [ours, stock] = ["ours", "stock"].map(|name| {
        let room = host.path("..").join(name);
        let dir = room.join("imageio");
        fs::create_dir(&dir).expect("a folder");
        let dir = fs::canonicalize(dir).expect("a folder");
        let mut script = python::script("imageio.py", "ovirt_imageio");
        script.arg(&dir).env("PATH", python::search_path(room.join("bin")));
        // The tool's own words are among what is printed.
        python::output(&mut script).replace(dir.to_str().expect("text"), "")
    });
    // How far a copy is, is told at other moments.
    let still = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.contains("/100%)")).map(str::to_owned).collect()
    };
    assert_eq!(still(&ours), still(&stock));
    for expected in [
        "raw qcow2 equal done",
        "strictly ContentMismatch",
        "wrong format OpenImageError",
        "(100.00/100%)",
        "'name': 'record'",
        "member qcow2",
    ] {
        assert!(ours.contains(expected), "no {expected}: {ours}");
    }
}
