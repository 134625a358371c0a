//! Seconds since 1970 as local time.

use std::mem::MaybeUninit;

/// `seconds` since 1970 as `YYYY-MM-DD hh:mm:ss` in the time zone of the process.
pub(super) fn local_time(seconds: u32) -> String {
    let time = libc::time_t::from(seconds);
    let mut fields = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live, suitably sized objects, and the system writes only the
    // second one, during the call. Nothing here changes the environment, which it may read.
    let done = unsafe { !libc::localtime_r(&raw const time, fields.as_mut_ptr()).is_null() };
    if !done {
        return format!("@{seconds}");
    }
    // SAFETY: `tm` is plain data for which all-zero is valid, so it was initialised from the start.
    let tm = unsafe { fields.assume_init() };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        i64::from(tm.tm_year) + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}
