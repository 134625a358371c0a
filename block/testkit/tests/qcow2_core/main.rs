//! Requests to qcow2 images against a model, power cuts, I/O errors, and the reference tools.

mod crash;
mod image;
mod layers;
mod status;
mod threads;
mod workload;
