//! Seconds since 1970 as local time.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `seconds` since 1970 as `YYYY-MM-DD hh:mm:ss` in the time zone that `TZ` or the system names.
pub(super) fn local_time(seconds: u32) -> String {
    in_zone(seconds, TimeZone::system())
}

fn in_zone(seconds: u32, zone: TimeZone) -> String {
    // Every 32-bit number of seconds is within the range of timestamps.
    let time = Timestamp::from_second(i64::from(seconds)).unwrap_or_default();
    time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_and_its_summer_time_count() {
        assert_eq!(in_zone(0, TimeZone::UTC), "1970-01-01 00:00:00");
        assert_eq!(in_zone(u32::MAX, TimeZone::UTC), "2106-02-07 06:28:15");
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("valid");
        assert_eq!(in_zone(1_700_000_000, zone.clone()), "2023-11-14 23:13:20");
        assert_eq!(in_zone(1_690_000_000, zone), "2023-07-22 06:26:40");
    }
}
