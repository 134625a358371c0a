//! What the fuzz targets do with their bytes, as plain functions, so that tests can replay them.

mod elf;
mod io;
mod luks;
mod nbd;
mod options;
mod qcow2;

pub use elf::elf;
pub use io::io;
pub use luks::luks;
pub use nbd::nbd;
pub use options::options;
pub use qcow2::qcow2;
