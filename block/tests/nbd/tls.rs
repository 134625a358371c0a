//! TLS with the reference's server and between the two ends here: certificates, pre-shared keys, and
//! what must be refused.

use std::path::Path;
use std::sync::Arc;

use cairn_block::graph::Graph;
use cairn_block::options::parse_keyval;
use cairn_block::tls::TlsStream;
use cairn_block::{Error, IoBufMut, Result, object};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::support::{Server, at, disk, expect, open, open_error, pattern, run};

const MIB: usize = 1 << 20;

fn certtool(dir: &Path, template: &str, words: &str) {
    std::fs::write(dir.join("template"), template).expect("written");
    let words: Vec<&str> = words.split(' ').collect();
    let template = ["--template", "template"];
    expect(dir, &[&["certtool"][..], &words, &template].concat());
}

/// Makes an authority, and certificates of both ends signed by it, in `dir`, with elliptic-curve keys.
fn certificates(dir: &Path) {
    certificates_of(dir, "--ecc");
}

fn certificates_of(dir: &Path, keys: &str) {
    for name in ["ca-key.pem", "server-key.pem", "client-key.pem"] {
        expect(dir, &["certtool", "--generate-privkey", keys, "--outfile", name]);
    }
    certtool(
        dir,
        "cn = test authority\nca\ncert_signing_key\nexpiration_days = 30\n",
        "--generate-self-signed --load-privkey ca-key.pem --outfile ca-cert.pem",
    );
    let signed = "--generate-certificate --load-ca-certificate ca-cert.pem \
                  --load-ca-privkey ca-key.pem";
    certtool(
        dir,
        "organization = \"Cairn, tests\"\ncn = server\ndns_name = localhost\n\
         ip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\nexpiration_days = 30\n",
        &format!("{signed} --load-privkey server-key.pem --outfile server-cert.pem"),
    );
    certtool(
        dir,
        "country = GB\norganization = \"Cairn, tests\"\ncn = client\ntls_www_client\n\
         encryption_key\nsigning_key\nexpiration_days = 30\n",
        &format!("{signed} --load-privkey client-key.pem --outfile client-cert.pem"),
    );
}

/// Makes keys for two users in `dir`.
fn keys(dir: &Path) {
    expect(dir, &["psktool", "-u", "alice", "-p", "keys.psk"]);
    expect(dir, &["psktool", "-u", "bob", "-p", "keys.psk"]);
}

fn define(graph: &Graph, text: &str) -> Result<()> {
    let mut options = parse_keyval(text, Some("type"))?;
    let mut take = |key: &str| options.remove(key).expect(key).as_str().expect(key).to_owned();
    let (kind, id) = (take("type"), take("id"));
    object::create(graph, &kind, &id, options)
}

/// Credentials of both ends of a type, made from the files in `dir`.
fn both_ends(dir: &Path, kind: &str, more: &str) -> Arc<Graph> {
    let graph = Graph::new();
    for end in ["client", "server"] {
        let text = format!("{kind},id={end},endpoint={end},dir={}{more}", dir.display());
        define(&graph, &text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    graph
}

type Ends = (Result<TlsStream<DuplexStream>>, Result<TlsStream<DuplexStream>>);

async fn handshake(graph: &Graph, client: &str, hostname: Option<&str>) -> Ends {
    let client = graph.tls_credentials().find(client).expect("defined");
    let server = graph.tls_credentials().find("server").expect("defined");
    let (near, far) = duplex(4096);
    tokio::join!(client.connect(near, hostname), server.accept(far))
}

async fn exchange(ends: Ends) {
    let (mut client, mut server) = (ends.0.expect("a client"), ends.1.expect("a server"));
    let sent = pattern(300_000);
    let (mut there, mut back) = (vec![0; sent.len()], vec![0; sent.len()]);
    let talk = async {
        client.write_all(&sent).await?;
        client.flush().await?;
        client.read_exact(&mut back).await?;
        client.shutdown().await
    };
    let answer = async {
        server.read_exact(&mut there).await?;
        server.write_all(&there).await?;
        server.flush().await?;
        let end = server.read(&mut [0; 1]).await?;
        assert_eq!(end, 0, "the client has said that it ends");
        Ok::<_, std::io::Error>(())
    };
    tokio::try_join!(talk, answer).expect("an exchange");
    assert!(back == sent);
}

#[test]
fn both_ends_understand_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path());
    keys(dir.path());
    run(async {
        let graph = both_ends(dir.path(), "tls-creds-x509", "");
        let ends = handshake(&graph, "client", Some("localhost")).await;
        let name = ends.1.as_ref().expect("a server").peer_name().map(str::to_owned);
        assert_eq!(name.as_deref(), Some("CN=client,O=Cairn\\, tests,C=GB"));
        exchange(ends).await;
        exchange(handshake(&graph, "client", Some("127.0.0.1")).await).await;
        let graph = both_ends(dir.path(), "tls-creds-psk", ",username=bob");
        exchange(handshake(&graph, "client", None).await).await;
    });
}

#[test]
fn peers_without_the_right_credentials_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path());
    keys(dir.path());
    let other = tempfile::tempdir().expect("a directory");
    certificates(other.path());
    keys(other.path());
    run(async {
        let graph = both_ends(dir.path(), "tls-creds-x509", "");
        let foreign = format!("tls-creds-x509,id=foreign,dir={}", other.path().display());
        define(&graph, &foreign).expect("valid");
        let blind = format!("tls-creds-x509,id=blind,verify-peer=off,dir={}", dir.path().display());
        define(&graph, &blind).expect("valid");
        let anonymous = tempfile::tempdir().expect("a directory");
        std::fs::copy(dir.path().join("ca-cert.pem"), anonymous.path().join("ca-cert.pem"))
            .expect("copied");
        let nobody = format!("tls-creds-x509,id=nobody,dir={}", anonymous.path().display());
        define(&graph, &nobody).expect("valid");

        let (client, server) = handshake(&graph, "client", Some("elsewhere")).await;
        assert!(client.is_err() && server.is_err(), "the name is wrong");
        let (client, _) = handshake(&graph, "foreign", Some("localhost")).await;
        assert!(client.is_err(), "the authority is another one");
        let (_, server) = handshake(&graph, "nobody", Some("localhost")).await;
        assert!(server.is_err(), "the client has no certificate");
        let (client, _) = handshake(&graph, "client", None).await;
        assert!(matches!(client, Err(Error::Credentials { .. })), "no name to check");
        exchange(handshake(&graph, "blind", Some("elsewhere")).await).await;

        let graph = both_ends(dir.path(), "tls-creds-psk", ",username=alice");
        let foreign =
            format!("tls-creds-psk,id=foreign,username=alice,dir={}", other.path().display());
        define(&graph, &foreign).expect("valid");
        let (client, server) = handshake(&graph, "foreign", None).await;
        assert!(client.is_err() && server.is_err(), "the key is another one");
    });
}

#[test]
fn objects_say_what_is_wrong_with_their_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let graph = Graph::new();
    let problem = |text: &str| {
        let text = format!("{text},dir={}", dir.path().display());
        define(&graph, &text).expect_err(&text).to_string()
    };
    assert!(problem("tls-creds-x509,id=a").contains("ca-cert.pem' does not exist"));
    assert!(problem("tls-creds-psk,id=a").contains("keys.psk' does not exist"));
    assert!(problem("tls-creds-anon,id=a").contains("tls-creds-psk"));
    certificates(dir.path());
    keys(dir.path());
    assert!(problem("tls-creds-psk,id=a,username=eve").contains("'eve'"));
    let key = dir.path().join("client-key.pem");
    let words = [
        "openssl",
        "pkcs8",
        "-topk8",
        "-in",
        "client-key.pem",
        "-passout",
        "pass:letmein",
        "-out",
        "client-key.enc",
    ];
    expect(dir.path(), &words);
    std::fs::rename(dir.path().join("client-key.enc"), &key).expect("renamed");
    assert!(problem("tls-creds-x509,id=a").contains("passwordid"));
    define(&graph, "secret,id=wrong,data=nothing").expect("valid");
    assert!(problem("tls-creds-x509,id=a,passwordid=wrong").contains("passphrase is wrong"));
    define(&graph, "secret,id=right,data=letmein").expect("valid");
    let valid = format!("tls-creds-x509,id=a,passwordid=right,dir={}", dir.path().display());
    define(&graph, &valid).expect("the passphrase is right");
    assert!(problem("tls-creds-x509,id=a,passwordid=right").contains("exists already"));
    // The certificate of somebody else's authority.
    let other = tempfile::tempdir().expect("a directory");
    certificates(other.path());
    std::fs::copy(other.path().join("ca-cert.pem"), dir.path().join("ca-cert.pem"))
        .expect("copied");
    assert!(problem("tls-creds-x509,id=b,endpoint=server").contains("sanity-check"));
    let unchecked = "tls-creds-x509,id=b,endpoint=server,sanity-check=off";
    define(&graph, &format!("{unchecked},dir={}", dir.path().display())).expect("not tested");
}

/// Reads all of the export of a server under TLS.
async fn read_all(graph: &Arc<Graph>, name: &str) {
    let disk = open(graph, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    let data = disk.read(0, IoBufMut::new(MIB)).await.expect("reads");
    assert!(data[..] == pattern(MIB)[..]);
    disk.close().await.expect("closes");
}

#[test]
fn the_reference_serves_us_under_tls() {
    let dir = disk(MIB);
    // With other keys the reference refuses its own certificate.
    certificates_of(dir.path(), "--rsa");
    keys(dir.path());
    for (kind, more) in [("tls-creds-x509", ""), ("tls-creds-psk", "username=alice")] {
        let object = format!("{kind},id=t,endpoint=server,dir={}", dir.path().display());
        let words = ["--object", &object, "--tls-creds", "t", "-f", "raw", "disk"];
        let (_server, socket) = Server::stock(dir.path(), &words);
        run(async {
            let graph = Graph::new();
            let text = format!("{kind},id=t,dir={},{more}", dir.path().display());
            define(&graph, text.trim_end_matches(',')).expect("valid");
            let error = open_error(&graph, &at(&socket, "")).await;
            assert!(error.to_string().contains("tls-creds"), "{error}");
            let hostname = if more.is_empty() { ",tls-hostname=localhost" } else { "" };
            read_all(&graph, &at(&socket, &format!("tls-creds=t{hostname}"))).await;
            if more.is_empty() {
                let error = open_error(&graph, &at(&socket, "tls-creds=t")).await;
                assert!(error.to_string().contains("tls-hostname"), "{error}");
            }
        });
    }
}

#[test]
fn a_server_without_tls_is_not_used_when_tls_is_wanted() {
    let dir = disk(MIB);
    keys(dir.path());
    let (_server, socket) = Server::stock(dir.path(), &["-e", "3", "-f", "raw", "disk"]);
    run(async {
        let graph = Graph::new();
        define(&graph, &format!("tls-creds-psk,id=t,username=alice,dir={}", dir.path().display()))
            .expect("valid");
        let error = open_error(&graph, &at(&socket, "tls-creds=t")).await;
        assert!(error.to_string().contains("refuses TLS"), "{error}");
        let error = open_error(&Graph::new(), &at(&socket, "x-require-tls=on")).await;
        assert!(error.to_string().contains("tls-creds-x509"), "{error}");
    });
}
