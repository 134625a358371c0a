//! Addresses of sockets between a virtual machine and its host (vsock(7)).

use std::mem::size_of;
use std::ptr::from_ref;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// An address of the family `AF_VSOCK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockAddress {
    /// Number of the machine; [`VsockAddress::ANY`] to listen on all.
    pub cid: u32,
    /// Port.
    pub port: u32,
}

impl VsockAddress {
    /// Stands for all of this machine's own numbers.
    pub const ANY: u32 = libc::VMADDR_CID_ANY;
}

// SAFETY: `f` is called with the address and the length of a `sockaddr_vm`, which lives during the call
// and is the address structure that the kernel expects of this family.
unsafe impl SocketAddrArg for VsockAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        // SAFETY: all bytes zero is a valid value of this structure, which consists of integers.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default();
        address.svm_cid = self.cid;
        address.svm_port = self.port;
        let len = SocketAddrLen::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or_default();
        f(from_ref(&address).cast(), len)
    }
}
