//! `cairn-user PROGRAM [ARGUMENTS]`
//!
//! The entry is C's, so that signals are as the parent left them: that of Rust ignores `SIGPIPE` and handles
//! `SIGSEGV`, and the guest would inherit the former.
#![no_main]

// SAFETY: no other function of this program is called `main`.
#[unsafe(no_mangle)]
extern "C" fn main(_count: i32, _arguments: *const *const u8) -> i32 {
    cairn_user::main()
}
