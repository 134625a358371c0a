//! The kinds of images that scripts work on.

use std::fs;
use std::path::Path;

use cairn_tests::pattern;
use cairn_tests::tool::Tool;

/// Names of the files that may be below an overlay, in every configuration with a chain.
pub(crate) const BACKING: [&str; 2] = ["base", "other"];
const KIB: u64 = 1 << 10;

/// What an image is like at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Its format.
    pub(crate) format: &'static str,
    /// Options of its creation.
    pub(crate) options: &'static str,
    /// Size of a cluster in bytes.
    pub(crate) cluster: u64,
    /// Size of the disk in bytes at first.
    pub(crate) size: u64,
    /// It is an overlay.
    pub(crate) chain: bool,
    /// It is encrypted.
    pub(crate) encrypted: bool,
    /// Its data is in a file of its own, `disk.data`.
    pub(crate) data_file: bool,
    /// How many of a hundred writes are compressed ones.
    pub(crate) compressed: u64,
    /// How many scripts there are.
    pub(crate) scripts: u64,
}

impl Config {
    /// A qcow2 image with clusters of 64 KiB.
    pub(crate) const QCOW2: Config = Config {
        format: "qcow2",
        options: "compat=1.1",
        cluster: 64 * KIB,
        size: 2000 * KIB,
        chain: false,
        encrypted: false,
        data_file: false,
        compressed: 10,
        scripts: 14,
    };

    /// A qcow2 image with these options and this cluster size.
    pub(crate) const fn qcow2(options: &'static str, cluster: u64) -> Config {
        let size = if cluster < 4 * KIB { 400 * KIB } else { 30 * cluster + 40 * KIB };
        Config { options, cluster, size, ..Config::QCOW2 }
    }

    /// A raw image.
    pub(crate) const RAW: Config =
        Config { format: "raw", options: "", compressed: 0, ..Config::QCOW2 };

    /// The same as an overlay.
    pub(crate) const fn in_chain(self) -> Config {
        Config { chain: true, ..self }
    }

    /// Whether the image is in the oldest version of the format.
    pub(crate) fn is_version_2(self) -> bool {
        self.options.contains("compat=0.10")
    }

    /// The format of a file of [`BACKING`].
    pub(crate) fn backing_format(name: &str) -> &'static str {
        if name == "base" { "qcow2" } else { "raw" }
    }

    /// Arguments that stand for the image, `disk`, in either tool's command line.
    pub(crate) fn target(self) -> Vec<String> {
        if self.encrypted {
            let image = "driver=qcow2,file.filename=disk,encrypt.key-secret=key";
            return ["--object", "secret,id=key,data=letmein", "--image-opts", image]
                .map(str::to_owned)
                .into();
        }
        ["-f", self.format, "disk"].map(str::to_owned).into()
    }

    /// Makes the image with `tool` in `dir`, with the files below it if there are any. Returns what each
    /// of those holds.
    pub(crate) fn create(self, tool: &Tool, dir: &Path) -> Vec<Vec<u8>> {
        let mut backing = Vec::new();
        let mut options = Vec::new();
        options.extend((!self.options.is_empty()).then_some(self.options));
        if self.chain {
            for (seed, name) in BACKING.into_iter().enumerate() {
                let size = self.size - 30 * KIB + 60 * KIB * seed as u64;
                pattern::write_mixed(&dir.join("source"), size, seed as u64).expect("a source");
                let format = Config::backing_format(name);
                tool.ok(dir, &format!("convert -f raw -O {format} source {name}"));
                backing.push(fs::read(dir.join("source")).expect("the source"));
            }
            options.push("backing_file=base,backing_fmt=qcow2");
        }
        if self.data_file {
            options.push("data_file=disk.data,data_file_raw=on");
        }
        if self.encrypted {
            // Each process derives the key. Whatever time that may take, stock spends seconds here to measure
            // how many iterations fill it.
            options.push("encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=1");
        }
        let mut args = vec!["create", "-q", "-f", self.format];
        if self.encrypted {
            args.extend(["--object", "secret,id=key,data=letmein"]);
        }
        let options = options.join(",");
        if !options.is_empty() {
            args.extend(["-o", &options]);
        }
        let size = self.size.to_string();
        args.extend(["disk", &size]);
        tool.ok(dir, &args.join(" "));
        backing
    }
}
