//! Requests to qcow2 images that the reference made: what they read, what they share, how they are
//! mapped, what is given back, how they open, and how they fail when damaged.

mod discards;
mod hostile;
mod image;
mod layers;
mod opening;
mod status;
mod threads;
mod versions;
mod workload;
