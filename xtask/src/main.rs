//! The commands a person runs: `cargo xtask demo`, `test`, `bench NAME`, `fuzz`.

fn main() {}
