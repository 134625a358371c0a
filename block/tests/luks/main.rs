//! Encrypted images: compared with the reference and cryptsetup both ways, hostile headers, key slots,
//! power cuts, I/O errors.

mod amend;
mod cryptsetup;
mod faults;
mod hostile;
mod interop;
mod support;
