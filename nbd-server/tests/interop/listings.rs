//! What servers tell of their exports: each kind of server asked by each kind of client.

use std::path::Path;

use crate::server::{Lab, ours, stock};

/// Images and options that are served in turn.
const CASES: [&[&str]; 6] = [
    &["-t", "-e", "0", "-r", "-f", "qcow2", "-A", "-B", "b0", "-B", "b1", "top.qcow2"],
    &["-t", "-e", "3", "-f", "qcow2", "-A", "top.qcow2"],
    &["-t", "-x", "disk", "-D", "a disk", "-f", "qcow2", "-B", "b1", "top.qcow2"],
    &["-t", "-r", "-f", "raw", "odd.raw"],
    &["-t", "-f", "raw", "-o", "1048576", "large.raw"],
    &[
        "-t",
        "--image-opts",
        "driver=blkdebug,align=4096,image.driver=file,image.filename=large.raw",
    ],
];

const CONTEXTS: [&str; 4] =
    ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1"];

fn lab() -> Lab {
    let lab = Lab::new();
    lab.chain();
    std::fs::write(lab.path("odd.raw"), [1; 1000]).expect("a file");
    let file = std::fs::File::create(lab.path("large.raw")).expect("a file");
    file.set_len(8 << 20).expect("a sparse file");
    lab.run("qemu-io", &["-f", "raw", "-c", "write -P 5 2M 1M", "large.raw"]);
    lab
}

#[test]
fn lists_have_the_bytes_of_the_reference() {
    let lab = lab();
    for args in CASES {
        let list = |server, client| {
            let server = lab.serve(server, args);
            let socket = server.socket.to_string_lossy().into_owned();
            let output = lab.output(client, &["-L", "-k", &socket]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            server.stop();
            String::from_utf8(output.stdout).expect("text")
        };
        let (ours, stock) = (ours(), stock());
        let expected = list(&stock, &stock);
        assert!(expected.starts_with("exports available: 1\n"), "{expected}");
        assert_eq!(list(&ours, &stock), expected, "our server, with {args:?}");
        assert_eq!(list(&stock, &ours), expected, "our client, with {args:?}");
        assert_eq!(list(&ours, &ours), expected, "both ours, with {args:?}");
    }
}

#[test]
fn libnbd_sees_the_same_properties_and_maps() {
    let lab = lab();
    for args in CASES {
        let name = if args.contains(&"disk") { "disk" } else { "" };
        let see = |program: &Path| {
            let server = lab.serve(program, args);
            let uri = server.uri(name);
            let mut seen = lab.run("nbdinfo", &["--json", &uri]).replace(&uri, "URI");
            let contexts = CONTEXTS.iter().filter(|context| seen.contains(**context));
            let maps: Vec<String> = contexts
                .map(|context| lab.run("nbdinfo", &["--json", &format!("--map={context}"), &uri]))
                .collect();
            server.stop();
            seen.push_str(&maps.concat());
            seen
        };
        let expected = see(&stock());
        assert!(expected.contains("\"export-size\""), "{expected}");
        assert_eq!(see(&ours()), expected, "{args:?}");
    }
}
