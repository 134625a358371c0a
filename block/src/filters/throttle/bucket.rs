//! A leaky bucket: what a limit lets through.
//!
//! Requests fill the bucket, and it leaks at the average rate. A request may go while the bucket is not
//! above its size, so that one request may overfill it and the next ones wait. Bursts make the bucket
//! larger; while one lasts longer than a second, a second, small bucket holds it to the burst's rate.

use std::time::Duration;

/// Seconds of the average rate that fit without a burst being allowed.
const SLACK: f64 = 0.1;

/// A limit, in units a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// In the long run; 0 for no limit.
    pub(crate) average: f64,
    /// During bursts; 0 for no bursts.
    pub(crate) burst: f64,
    /// How long a burst may last, in seconds.
    pub(crate) burst_seconds: f64,
}

/// What was let through lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    level: f64,
    burst_level: f64,
}

impl Bucket {
    /// Lets `time` go by.
    pub(super) fn leak(&mut self, rate: &Rate, time: Duration) {
        let seconds = time.as_secs_f64();
        self.level = (self.level - rate.average * seconds).max(0.0);
        self.burst_level = (self.burst_level - rate.burst * seconds).max(0.0);
    }

    /// How long the next request must wait.
    pub(super) fn wait(&self, rate: &Rate) -> Duration {
        if rate.average <= 0.0 {
            return Duration::ZERO;
        }
        let size =
            if rate.burst > 0.0 { rate.burst * rate.burst_seconds } else { rate.average * SLACK };
        let excess = self.level - size;
        if excess > 0.0 {
            return duration(excess / rate.average);
        }
        if rate.burst_seconds > 1.0 {
            let excess = self.burst_level - rate.burst * SLACK;
            if excess > 0.0 {
                return duration(excess / rate.burst);
            }
        }
        Duration::ZERO
    }

    /// Lets a request of `units` through.
    pub(super) fn fill(&mut self, rate: &Rate, units: f64) {
        self.level += units;
        if rate.burst_seconds > 1.0 {
            self.burst_level += units;
        }
    }
}

fn duration(seconds: f64) -> Duration {
    // A limit of one byte a second makes waits that no clock can count.
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units let through in `seconds` by requests of `units` that come as fast as they may.
    fn throughput(rate: Rate, units: f64, seconds: u64) -> f64 {
        let mut bucket = Bucket::default();
        let mut now = Duration::ZERO;
        let end = Duration::from_secs(seconds);
        let mut done = 0.0;
        loop {
            let wait = bucket.wait(&rate);
            now += wait;
            if now >= end {
                return done;
            }
            bucket.leak(&rate, wait);
            bucket.fill(&rate, units);
            done += units;
        }
    }

    #[test]
    fn the_average_holds_in_the_long_run() {
        let rate = Rate { average: 1000.0, burst: 0.0, burst_seconds: 1.0 };
        let done = throughput(rate, 1.0, 10);
        assert!((10_000.0..=10_200.0).contains(&done), "{done}");
        // Requests above the rate of a second go one by one.
        let done = throughput(rate, 5000.0, 20);
        assert!((20_000.0..=25_000.0).contains(&done), "{done}");
    }

    #[test]
    fn bursts_are_used_up() {
        let rate = Rate { average: 100.0, burst: 1000.0, burst_seconds: 1.0 };
        let done = throughput(rate, 1.0, 10);
        assert!((2000.0..=2010.0).contains(&done), "{done}");
    }

    #[test]
    fn long_bursts_keep_their_rate() {
        let rate = Rate { average: 100.0, burst: 1000.0, burst_seconds: 5.0 };
        let done = throughput(rate, 1.0, 2);
        assert!((2000.0..=2200.0).contains(&done), "{done}");
        let done = throughput(rate, 1.0, 100);
        assert!((14_900.0..=15_100.0).contains(&done), "{done}");
    }

    #[test]
    fn no_limit_never_waits() {
        let rate = Rate { average: 0.0, burst: 0.0, burst_seconds: 1.0 };
        let mut bucket = Bucket::default();
        bucket.fill(&rate, 1e18);
        assert_eq!(bucket.wait(&rate), Duration::ZERO);
    }
}
