//! The tool as its users see it: what it prints, what it leaves, and how it ends.

mod block_copies;
mod chains;
mod command_line;
mod compaction;
mod content;
mod discards;
mod exerciser;
mod interruption;
mod kills;
mod qcow2_images;
mod raw_images;
mod rehearsal;
mod resumption;
mod scratch;
mod untrusted;
