//! Commits and rebases that do not come to their end: in every state in which a power cut can leave the
//! disks, and after an I/O error at every request, all that the overlay showed can still be read.

mod io_errors;
mod power_cuts;
mod setup;
