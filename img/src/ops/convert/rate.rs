//! A limit on the rate of writing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets bytes pass at a steady rate.
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: u64,
    /// When the bytes let through so far will have taken their time.
    free_at: Mutex<Instant>,
}

impl RateLimit {
    pub(super) fn new(bytes_per_second: u64) -> RateLimit {
        RateLimit { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more may pass.
    pub(super) async fn pass(&self, bytes: u64) {
        let start = {
            let mut free_at = self.free_at.lock();
            let start = (*free_at).max(Instant::now());
            *free_at = start + self.time_for(bytes);
            start
        };
        tokio::time::sleep_until(start).await;
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_decides_the_time() {
        let limit = RateLimit::new(1 << 20);
        assert_eq!(limit.time_for(1 << 20), Duration::from_secs(1));
        assert_eq!(limit.time_for(1 << 19), Duration::from_millis(500));
        assert_eq!(limit.time_for(0), Duration::ZERO);
    }
}
