//! Requests to qcow2 images that the reference made: what they read, what they share, how they are
//! mapped, and how they fail when damaged.

mod hostile;
mod image;
mod layers;
mod status;
mod threads;
mod versions;
mod workload;
