//! Creating, measuring, resizing, checking and repairing qcow2 images, compared with the reference.

mod amend;
mod check;
mod crash;
mod create;
mod damage;
mod layout;
mod measure;
mod reopen;
mod resize;
mod stock;
