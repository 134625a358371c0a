//! What the tests share: images with one passphrase, opened over files or memory.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cairn_block::driver::{Amendment, Driver, Perm, WriteFlags, find};
use cairn_block::engine::{EngineConfig, Mode, block_on};
use cairn_block::formats::luks::create as luks;
use cairn_block::formats::qcow2::create as qcow2;
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::options::Dict;
use cairn_block::secret::Secret;
use cairn_block::{IoBufMut, Result};
use cairn_testkit::{Disk, Memory, Recorder};

/// The passphrases of the secrets `s`, `new` and `wrong`.
const SECRETS: [(&str, &[u8]); 3] = [("s", b"letmein"), ("new", b"opensesame"), ("wrong", b"?")];

/// Runs a test on an I/O thread.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    // Threads start up faster than a ring, and few requests follow.
    let config = EngineConfig { mode: Mode::Threads, ..EngineConfig::default() };
    block_on(&config, future).expect("an I/O thread")
}

/// A graph with the secrets.
pub(crate) fn graph() -> Arc<Graph> {
    let graph = Graph::new();
    for (id, bytes) in SECRETS {
        graph.secrets().add(id, Secret::new(bytes.to_vec())).expect("a new ID");
    }
    graph
}

/// Options from a comma list without escapes.
pub(crate) fn options(list: &str) -> Dict {
    let pairs = list.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Runs a reference tool in `dir` that must succeed; the secret `s` is defined.
pub(crate) fn expect(dir: &Path, words: &[&str]) -> String {
    let secret = format!("secret,id=s,data={}", String::from_utf8_lossy(SECRETS[0].1));
    let output = Command::new(words[0])
        .args(&words[1..2])
        .args(["--object", &secret])
        .args(&words[2..])
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {words:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {text}{errors}");
    text
}

/// Creates `path` as `format`.
pub(crate) fn create(format: &str, path: &Path, list: &str) -> Result<()> {
    let create = find(format).and_then(|driver| driver.create).expect("can create");
    run(create(&graph(), path.to_str().expect("text"), options(list)))
}

/// Opens the image that `list` describes, for everything.
pub(crate) async fn open(graph: &Arc<Graph>, list: &str) -> Result<Backend> {
    let options = cairn_block::options::expand(options(list))?;
    let flags = NodeFlags { unmap: true, ..NodeFlags::default() };
    let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
    Backend::new(graph, node, "test", Perm::CONSISTENT_READ | Perm::WRITE, Perm::all())
}

/// Puts `disk` into a graph as the node `disk`, under a user that keeps it open and uses `used`.
pub(crate) fn over(disk: impl Driver, used: Perm) -> (Arc<Graph>, Backend) {
    let graph = graph();
    let node = graph.add_driver("disk", NodeFlags::default(), Box::new(disk)).expect("a new name");
    let user = Backend::new(&graph, node, "disk", used, Perm::all()).expect("a user");
    (graph, user)
}

/// What a volume is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file of its own.
    Luks,
    /// A qcow2 image.
    Qcow2,
}

/// Bytes of the disks of samples.
const SIZE: usize = 64 << 10;

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Kind; 2] = [Kind::Luks, Kind::Qcow2];

    /// The format's name, and what stands before the names of options about the volume.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Kind::Luks => ("luks", ""),
            Kind::Qcow2 => ("qcow2", "encrypt."),
        }
    }

    /// What every image of this kind begins with.
    pub(crate) fn magic(self) -> [u8; 4] {
        match self {
            Kind::Luks => *b"LUKS",
            Kind::Qcow2 => *b"QFI\xfb",
        }
    }

    /// Makes an image on `disk`, as quickly as iterations allow.
    pub(crate) fn format(self, disk: impl Driver) -> Result<()> {
        let (graph, user) = over(disk, Perm::CONSISTENT_READ | Perm::WRITE | Perm::RESIZE);
        let volume = "key-secret=s,iter-time=0,cipher-alg=aes-128,cipher-mode=cbc";
        run(async {
            let made = match self {
                Kind::Luks => {
                    luks::format_node(&graph, &user, options(&format!("size=64k,{volume}"))).await
                }
                Kind::Qcow2 => {
                    let mut own = options("size=64k,cluster_size=4k,encrypt.format=luks");
                    for (name, value) in options(volume).iter() {
                        own.insert(format!("encrypt.{name}"), value.clone());
                    }
                    qcow2::format_node(&graph, &user, None, own).await
                }
            };
            made.and(user.close().await)
        })
    }

    /// An image in memory whose disk is filled with `7`.
    pub(crate) fn sample(self) -> Disk {
        let machine = Recorder::new(1);
        self.format(machine.add(Disk::new(0))).expect("an image");
        let empty = machine.disks().remove(0);
        let machine = Recorder::new(2);
        let (graph, _user) = over(machine.add(empty), Perm::empty());
        let filled = run(async {
            let image = self.open(&graph, "s").await?;
            let mut data = IoBufMut::zeroed(SIZE);
            data.fill(7);
            image.write(0, data.freeze(), WriteFlags::empty()).await?;
            image.close().await
        });
        filled.expect("filled");
        machine.disks().remove(0)
    }

    /// Opens the image on the node `disk` with the secret `id`.
    pub(crate) async fn open(self, graph: &Arc<Graph>, id: &str) -> Result<Backend> {
        let (driver, prefix) = self.names();
        open(graph, &format!("driver={driver},file=disk,{prefix}key-secret={id}")).await
    }

    /// Changes key slots of an open image as the options in `list` say, which are named as for luks.
    pub(crate) async fn amend(self, image: &Backend, list: &str, force: bool) -> Result<()> {
        let (_, prefix) = self.names();
        let plain = options(list);
        let options = plain.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone()));
        let change = Amendment { force, ..Amendment::new(options.collect()) };
        image.node().driver().amend(image.graph(), change).await
    }

    /// Whether the image on `disk` opens with the secret `id` and still has its content.
    pub(crate) fn opens(self, disk: &Disk, id: &str) -> Result<bool> {
        let (graph, _user) = over(Memory::new(disk.clone()), Perm::empty());
        run(async {
            let image = self.open(&graph, id).await?;
            let sound = is_sound(&image).await?;
            image.close().await?;
            Ok(sound)
        })
    }
}

/// Whether a sample still has its content.
pub(crate) async fn is_sound(image: &Backend) -> Result<bool> {
    let data = image.read(0, IoBufMut::new(SIZE)).await?;
    Ok(data.iter().all(|&byte| byte == 7))
}
