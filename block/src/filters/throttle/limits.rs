//! The limits of a group: six rates, and how large a request counts as one.

use super::bucket::Rate;
use crate::error::Result;
use crate::options::OptionError;

/// Largest rate, in units a second.
const MAX_RATE: u64 = 1_000_000_000_000_000;

crate::options! {
    /// Options of a throttle group, in requests or bytes a second and seconds.
    pub struct LimitOptions {
        /// Requests.
        "iops-total" => iops_total: u64 = "0",
        /// Requests, in bursts.
        "iops-total-max" => iops_total_max: u64 = "0",
        /// Longest burst.
        "iops-total-max-length" => iops_total_max_length: u64 = "1",
        /// Reads.
        "iops-read" => iops_read: u64 = "0",
        /// Reads, in bursts.
        "iops-read-max" => iops_read_max: u64 = "0",
        /// Longest burst.
        "iops-read-max-length" => iops_read_max_length: u64 = "1",
        /// Writes.
        "iops-write" => iops_write: u64 = "0",
        /// Writes, in bursts.
        "iops-write-max" => iops_write_max: u64 = "0",
        /// Longest burst.
        "iops-write-max-length" => iops_write_max_length: u64 = "1",
        /// Bytes.
        "bps-total" => bps_total: u64 = "0",
        /// Bytes, in bursts.
        "bps-total-max" => bps_total_max: u64 = "0",
        /// Longest burst.
        "bps-total-max-length" => bps_total_max_length: u64 = "1",
        /// Bytes read.
        "bps-read" => bps_read: u64 = "0",
        /// Bytes read, in bursts.
        "bps-read-max" => bps_read_max: u64 = "0",
        /// Longest burst.
        "bps-read-max-length" => bps_read_max_length: u64 = "1",
        /// Bytes written.
        "bps-write" => bps_write: u64 = "0",
        /// Bytes written, in bursts.
        "bps-write-max" => bps_write_max: u64 = "0",
        /// Longest burst.
        "bps-write-max-length" => bps_write_max_length: u64 = "1",
        /// Bytes that count as one request; longer requests count as several (0: all count as one).
        "iops-size" => iops_size: u64 = "0",
    }
}

/// The rates of one unit: all requests, reads, writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    pub(super) total: Rate,
    pub(super) read: Rate,
    pub(super) write: Rate,
}

/// Checked limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub(super) requests: Rates,
    pub(super) bytes: Rates,
    /// Bytes that count as one request; 0 if all requests count as one.
    pub(super) request_size: u64,
}

impl LimitOptions {
    /// Checks the limits.
    pub fn limits(&self) -> Result<Limits> {
        let requests = Rates {
            total: rate(
                "iops-total",
                self.iops_total,
                self.iops_total_max,
                self.iops_total_max_length,
            )?,
            read: rate("iops-read", self.iops_read, self.iops_read_max, self.iops_read_max_length)?,
            write: rate(
                "iops-write",
                self.iops_write,
                self.iops_write_max,
                self.iops_write_max_length,
            )?,
        };
        let bytes = Rates {
            total: rate(
                "bps-total",
                self.bps_total,
                self.bps_total_max,
                self.bps_total_max_length,
            )?,
            read: rate("bps-read", self.bps_read, self.bps_read_max, self.bps_read_max_length)?,
            write: rate(
                "bps-write",
                self.bps_write,
                self.bps_write_max,
                self.bps_write_max_length,
            )?,
        };
        exclusive("iops-total", &requests)?;
        exclusive("bps-total", &bytes)?;
        Ok(Limits { requests, bytes, request_size: self.iops_size })
    }
}

fn conflict(name: impl Into<String>, problem: impl Into<String>) -> OptionError {
    OptionError::Conflict { name: name.into(), problem: problem.into() }
}

fn rate(name: &str, average: u64, burst: u64, seconds: u64) -> Result<Rate, OptionError> {
    if average > MAX_RATE || burst > MAX_RATE {
        return Err(conflict(name, format!("and its burst can be {MAX_RATE} at most")));
    }
    let length = format!("{name}-max-length");
    if seconds == 0 {
        return Err(conflict(length, "must be at least 1 second"));
    }
    if burst != 0 && average == 0 {
        return Err(conflict(format!("{name}-max"), format!("needs {name}")));
    }
    if burst != 0 && burst < average {
        return Err(conflict(format!("{name}-max"), format!("must not be below {name}")));
    }
    if seconds > 1 && burst == 0 {
        return Err(conflict(length, format!("needs {name}-max")));
    }
    if burst.checked_mul(seconds).is_none_or(|size| size > MAX_RATE) {
        return Err(conflict(length, format!("makes bursts of more than {MAX_RATE}")));
    }
    #[expect(clippy::cast_precision_loss, reason = "all are below 2^50")]
    Ok(Rate { average: average as f64, burst: burst as f64, burst_seconds: seconds as f64 })
}

/// Refuses a total beside limits for reads or writes.
fn exclusive(name: &str, rates: &Rates) -> Result<(), OptionError> {
    let has = |rate: &Rate| rate.average > 0.0;
    if has(&rates.total) && (has(&rates.read) || has(&rates.write)) {
        return Err(conflict(name, "excludes separate limits for reads and writes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::parse_keyval;

    fn limits(text: &str) -> Result<Limits> {
        LimitOptions::parse(parse_keyval(text, None)?, "test")?.limits()
    }

    #[test]
    fn contradictions_are_refused() {
        for text in [
            "iops-total=1,iops-read=1",
            "bps-total=1,bps-write=1",
            "iops-total-max=10",
            "iops-total=10,iops-total-max=5",
            "iops-total=10,iops-total-max-length=2",
            "iops-total=10,iops-total-max=20,iops-total-max-length=0",
            "bps-read=1000000000000001",
            "bps-read=1,bps-read-max=1000000000000000,bps-read-max-length=2",
        ] {
            assert!(limits(text).is_err(), "{text}");
        }
        assert!(limits("iops-total=10,bps-read=1,bps-write=2,iops-size=4096").is_ok());
        assert!(limits("iops-read=10,iops-read-max=20,iops-read-max-length=5").is_ok());
        assert!(limits("").is_ok());
    }
}
