//! Creating, measuring, resizing, checking and repairing qcow2 images, compared with the reference.

mod check;
mod crash;
mod create;
mod measure;
mod resize;
mod stock;
