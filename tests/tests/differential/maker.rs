//! Makes one image with one tool.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_tests::pattern;
use cairn_tests::process::Limits;
use cairn_tests::tool::Tool;

/// Size of the contents that most recipes use: not a multiple of any cluster size above 512 bytes.
pub(crate) const SIZE: u64 = (3 << 20) + 40_448;

/// Makes the image `disk` in a folder of its own, with steps that can be chained.
pub(crate) struct Maker {
    dir: PathBuf,
    format: &'static str,
    tool: Tool,
    stock: Tool,
    io: Tool,
}

impl Maker {
    pub(crate) fn new(dir: &Path, format: &'static str, tool: &Tool) -> Self {
        let dir = dir.to_owned();
        Self { dir, format, tool: tool.clone(), stock: Tool::stock(), io: Tool::stock_io() }
    }

    /// Writes the raw file `name` of `size` bytes with mixed contents.
    pub(crate) fn source(&self, name: &str, size: u64) -> &Self {
        pattern::write_mixed(&self.dir.join(name), size, size).expect("a source can be written");
        self
    }

    /// Converts mixed contents of `size` bytes into `disk`, with `options` before the file names.
    pub(crate) fn convert_sized(&self, size: u64, options: &str) -> &Self {
        let format = self.format;
        self.source("source", size)
            .img(&format!("convert -q -f raw -O {format} {options} source disk"))
    }

    /// Converts mixed contents of the usual size into `disk`.
    pub(crate) fn convert(&self, options: &str) -> &Self {
        self.convert_sized(SIZE, options)
    }

    /// Creates an empty `disk`; `rest` holds the size behind the file name.
    pub(crate) fn create(&self, options: &str, rest: &str) -> &Self {
        let format = self.format;
        self.img(&format!("create -q -f {format} {options} disk {rest}"))
    }

    /// Runs the tool that makes this image.
    pub(crate) fn img(&self, args: &str) -> &Self {
        self.tool.ok(&self.dir, args);
        self
    }

    /// Runs stock, for states that only stock can make.
    pub(crate) fn stock(&self, args: &str) -> &Self {
        self.stock.ok(&self.dir, args);
        self
    }

    /// Runs one stock exerciser command on `disk`.
    pub(crate) fn io(&self, command: &str) -> &Self {
        self.io_on("disk", self.format, command)
    }

    /// Runs one stock exerciser command on another file.
    pub(crate) fn io_on(&self, file: &str, format: &str, command: &str) -> &Self {
        let args = ["-f", format, "-d", "unmap", "-c", command, file];
        let done = self.io.run_with(&self.dir, args, Limits::default());
        assert!(done.code() == Some(0), "{command}: {}{}", done.out(), done.err());
        self
    }

    /// Changes bytes of `disk`.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Vec<u8>)) -> &Self {
        let path = self.dir.join("disk");
        let mut bytes = fs::read(&path).expect("the image can be read");
        change(&mut bytes);
        fs::write(&path, bytes).expect("the image can be written");
        self
    }
}
