//! TLS with clients of other projects, and whom the server lets in.

use std::fs;

use crate::server::{Lab, ours, stock};

/// Makes an authority, and certificates of both ends signed by it.
fn certificates(lab: &Lab) {
    let make = |template: &str, args: &str| {
        fs::write(lab.path("template"), template).expect("a file");
        let args: Vec<&str> = args.split(' ').chain(["--template", "template"]).collect();
        lab.run("certtool", &args);
    };
    for name in ["ca-key.pem", "server-key.pem", "client-key.pem"] {
        // The reference wants keys that can encipher others.
        lab.run("certtool", &["--generate-privkey", "--rsa", "--bits", "2048", "--outfile", name]);
    }
    make(
        "cn = authority\nca\ncert_signing_key\nexpiration_days = 30\n",
        "--generate-self-signed --load-privkey ca-key.pem --outfile ca-cert.pem",
    );
    let signed =
        "--generate-certificate --load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem";
    for (name, more) in
        [("server", "dns_name = localhost\ntls_www_server"), ("client", "tls_www_client")]
    {
        make(
            &format!("cn = {name}\n{more}\nencryption_key\nsigning_key\nexpiration_days = 30\n"),
            &format!("{signed} --load-privkey {name}-key.pem --outfile {name}-cert.pem"),
        );
    }
}

fn object(lab: &Lab, kind: &str, end: &str) -> String {
    format!("tls-creds-{kind},id=tls,endpoint={end},dir={}", lab.path("").display())
}

fn disk(lab: &Lab) {
    lab.run("qemu-img", &["create", "-q", "-f", "qcow2", "disk", "8M"]);
    lab.run("qemu-io", &["-c", "write -P 1 1M 5M", "disk"]);
    lab.run("qemu-img", &["convert", "-O", "raw", "disk", "plain"]);
}

/// Arguments of a server with credentials of this kind.
fn serving<'a>(object: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["-t", "-e", "0", "--object", object, "--tls-creds", "tls"];
    args.extend(more);
    args.extend(["-f", "qcow2", "disk"]);
    args
}

#[test]
fn certificates_protect_the_data() {
    let lab = Lab::new();
    disk(&lab);
    certificates(&lab);
    let (there, here) = (object(&lab, "x509", "server"), object(&lab, "x509", "client"));
    let server = lab.serve(&ours(), &serving(&there, &[]));
    let socket = server.socket.to_string_lossy().into_owned();
    for client in [ours(), stock()] {
        // Without TLS, nothing is told.
        assert!(!lab.output(&client, &["-L", "-k", &socket]).status.success());
        let secure = ["--object", &here, "--tls-creds", "tls", "--tls-hostname", "localhost"];
        let listed = lab.output(&client, &[&["-L", "-k", &socket][..], &secure].concat());
        let said = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(said.starts_with("exports available: 1\n"), "{listed:?}");
    }
    let image = format!(
        "driver=nbd,server.type=unix,server.path={socket},tls-creds=tls,tls-hostname=localhost"
    );
    let args =
        ["compare", "--object", &here, "--image-opts", &image, "driver=raw,file.filename=plain"];
    lab.run("qemu-img", &args);
    let args = [
        "--object",
        &here,
        "--image-opts",
        &image,
        "-c",
        "write -P 2 0 3M",
        "-c",
        "read -P 2 0 3M",
    ];
    let said = lab.run("qemu-io", &args);
    assert!(!said.contains("failed"), "{said}");
    server.stop();
}

#[test]
fn pre_shared_keys_protect_the_data() {
    let lab = Lab::new();
    disk(&lab);
    lab.run("psktool", &["-u", "alice", "-p", "keys.psk"]);
    let there = object(&lab, "psk", "server");
    let server = lab.serve(&ours(), &serving(&there, &[]));
    let keys = lab.path("keys.psk");
    let uri = format!(
        "nbds+unix://alice@/?socket={}&tls-psk-file={}",
        server.socket.display(),
        keys.display()
    );
    lab.run("nbdcopy", &[&uri, "copy"]);
    assert!(
        fs::read(lab.path("copy")).expect("a file") == fs::read(lab.path("plain")).expect("a file")
    );
    server.stop();
}

#[test]
fn only_those_are_let_in_whom_the_rules_allow() {
    let lab = Lab::new();
    disk(&lab);
    certificates(&lab);
    let (there, here) = (object(&lab, "x509", "server"), object(&lab, "x509", "client"));
    for (rules, allowed) in [
        ("authz-simple,id=who,identity=CN=client", true),
        ("authz-simple,id=who,identity=CN=other", false),
        (
            "authz-list,id=who,policy=deny,rules.0.match=CN=c*,rules.0.format=glob,rules.0.policy=allow",
            true,
        ),
        ("authz-list,id=who,policy=allow,rules.0.match=CN=client,rules.0.policy=deny", false),
    ] {
        let more = ["--object", rules, "--tls-authz", "who"];
        let server = lab.serve(&ours(), &serving(&there, &more));
        let socket = server.socket.to_string_lossy().into_owned();
        let secure = ["--object", &here, "--tls-creds", "tls", "--tls-hostname", "localhost"];
        let listed = lab.output(&stock(), &[&["-L", "-k", &socket][..], &secure].concat());
        assert_eq!(listed.status.success(), allowed, "{rules}");
        server.stop();
    }
}
