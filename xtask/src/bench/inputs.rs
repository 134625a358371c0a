//! The images that benchmarks read, made once and kept.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_tests::sample::Disk;
use cairn_tests::tool::Tool;

use crate::error::{At, Error, Result};

/// File names in the folder of the inputs.
pub(super) mod names {
    /// The sample disk.
    pub(crate) const RAW: &str = "sample.raw";
    /// The sample as qcow2 with default options.
    pub(crate) const QCOW2: &str = "sample.qcow2";
    /// The same with 4 KiB clusters.
    pub(crate) const SMALL_CLUSTERS: &str = "clusters-4k.qcow2";
    /// The same, compressed with zlib.
    pub(crate) const ZLIB: &str = "zlib.qcow2";
    /// The same, compressed with zstd.
    pub(crate) const ZSTD: &str = "zstd.qcow2";
    /// The sample encrypted with LUKS and [`SECRET`].
    pub(crate) const LUKS: &str = "sample.luks";
    /// The arguments that define the secret of encrypted images.
    pub(crate) const SECRET: &str = "--object secret,id=key,data=benchmark";
    /// The second half of the sample as qcow2: a disk with other content at most places.
    pub(crate) const SHIFTED: &str = "shifted.qcow2";
    /// An empty overlay of [`QCOW2`].
    pub(crate) const OVERLAY: &str = "overlay.qcow2";
    /// An overlay of [`OUTPUT`], when that is a copy of [`QCOW2`]; shows what [`SHIFTED`] shows.
    pub(crate) const TOP: &str = "top.qcow2";
    /// The socket of the server that serves a case.
    pub(crate) const SOCKET: &str = "server.sock";
    /// What a run writes; deleted after it.
    pub(crate) const OUTPUT: &str = "output";
}

/// The folder with all inputs.
pub(super) struct Inputs {
    dir: PathBuf,
}

impl Inputs {
    /// Makes what is missing below `dir`. Stock writes the qcow2 images, so that both tools read a
    /// foreign one.
    pub(super) fn prepare(dir: &Path, disk: Disk, stock: &Tool) -> Result<Self> {
        let dir = dir.join(format!("{}-mib", disk.size >> 20));
        fs::create_dir_all(&dir).at(&dir)?;
        let raw = dir.join(names::RAW);
        if !raw.exists() {
            eprintln!("making {}", raw.display());
            disk.make(&raw).at(&raw)?;
        }
        let inputs = Self { dir };
        let convert = |options: &str| format!("convert -f raw {options} {}", names::RAW);
        inputs.derive(stock, names::QCOW2, &[&convert("-O qcow2")])?;
        inputs.derive(stock, names::SMALL_CLUSTERS, &[&convert("-O qcow2 -o cluster_size=4k")])?;
        inputs.derive(stock, names::ZLIB, &[&convert("-c -O qcow2")])?;
        let zstd = "-c -O qcow2 -o compression_type=zstd";
        inputs.derive(stock, names::ZSTD, &[&convert(zstd)])?;
        let luks = format!("-O luks {} -o key-secret=key,iter-time=10", names::SECRET);
        inputs.derive(stock, names::LUKS, &[&convert(&luks)])?;
        let half = format!("driver=raw,offset={},file.filename={}", disk.size / 2, names::RAW);
        inputs.derive(
            stock,
            names::SHIFTED,
            &[&format!("convert -O qcow2 --image-opts {half}")],
        )?;
        let (base, shifted, output) = (names::QCOW2, names::SHIFTED, names::OUTPUT);
        inputs.derive(
            stock,
            names::OVERLAY,
            &[&format!("create -q -f qcow2 -b {base} -F qcow2")],
        )?;
        let over = format!("convert -f qcow2 -O qcow2 -B {base} -F qcow2 {shifted}");
        let rename = format!("rebase -u -f qcow2 -b {output} -F qcow2");
        inputs.derive(stock, names::TOP, &[&over, &rename])?;
        Ok(inputs)
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes `name` with stock's `commands`, to which the file name is added, unless that was done before.
    fn derive(&self, stock: &Tool, name: &str, commands: &[&str]) -> Result<()> {
        let path = self.dir.join(name);
        if path.exists() {
            return Ok(());
        }
        eprintln!("making {}", path.display());
        let part = format!("{name}.part");
        for command in commands {
            let done = stock.run(&self.dir, &format!("{command} {part}"));
            if done.code() != Some(0) {
                return Err(Error::Wrong(format!("stock cannot make {name}: {}", done.err())));
            }
        }
        fs::rename(self.dir.join(part), &path).at(path)
    }
}
