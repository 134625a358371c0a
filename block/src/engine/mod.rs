//! I/O threads and the system calls that they make.
