//! Encrypted images: compared with the reference both ways, hostile headers, key slots, power cuts.

mod amend;
mod hostile;
mod interop;
mod support;
