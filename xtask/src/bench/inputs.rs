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
        inputs.derive(stock, names::QCOW2, "")?;
        inputs.derive(stock, names::SMALL_CLUSTERS, "-o cluster_size=4k")?;
        inputs.derive(stock, names::ZLIB, "-c")?;
        inputs.derive(stock, names::ZSTD, "-c -o compression_type=zstd")?;
        Ok(inputs)
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Converts the sample to qcow2 with `options` unless that was done before.
    fn derive(&self, stock: &Tool, name: &str, options: &str) -> Result<()> {
        let path = self.dir.join(name);
        if path.exists() {
            return Ok(());
        }
        eprintln!("making {}", path.display());
        let part = format!("{name}.part");
        let raw = names::RAW;
        let done = stock.run(&self.dir, &format!("convert -f raw -O qcow2 {options} {raw} {part}"));
        if done.code() != Some(0) {
            return Err(Error::Wrong(format!("stock cannot make {name}: {}", done.err())));
        }
        fs::rename(self.dir.join(part), &path).at(path)
    }
}
