//! What programs that call `qemu-img` ask of it: their command lines, under their limits, read the way
//! they read the answers.
//!
//! Each command runs with ours and with stock, each in a folder of its own with equal files, and both
//! must answer alike. A module stands for a consumer, or a family of them.

mod desktop;
mod guestfs;
mod host;
mod imageio;
mod incus;
mod kubevirt;
mod libvirt;
mod openstack;
mod oslo;
mod ovirt;
mod proxmox;
mod python;
