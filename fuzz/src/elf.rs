//! A program of arbitrary bytes, loaded into an address space.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cairn_tcg::code::Cache;
use cairn_tcg::softmmu::Flat;
use cairn_user::elf::{Elf, Loader};

/// Size of the address space.
const SPACE: u64 = 1 << 26;

thread_local! {
    static BENCH: (File, Loader) = bench();
}

/// A file without a name, and an empty address space.
fn bench() -> (File, Loader) {
    let path = std::env::temp_dir().join(format!("cairn-fuzz-elf-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.expect("a file can be made");
    fs::remove_file(&path).expect("it can be removed");
    let memory = Flat::new(SPACE, None, Arc::new(Cache::new())).expect("addresses are free");
    (file, Loader::new(memory))
}

/// Treats `data` as a program.
pub fn elf(data: &[u8]) {
    BENCH.with(|(file, loader)| {
        file.set_len(0).expect("it can be emptied");
        file.write_all_at(data, 0).expect("it can be written");
        let Ok(elf) = Elf::read(file) else { return };
        if let Ok(loaded) = loader.load(file, &elf, SPACE / 2) {
            assert!(loaded.end <= SPACE, "{loaded:?}");
        }
        loader.clear().expect("memory can be unmapped");
    });
}
