//! The program beside the reference: what clients of other projects see, and how it starts and ends.

mod command_line;
mod data;
mod lifecycle;
mod listings;
mod server;
mod tls;
