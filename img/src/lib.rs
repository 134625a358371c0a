//! What `cairn-img` does, as a library.
