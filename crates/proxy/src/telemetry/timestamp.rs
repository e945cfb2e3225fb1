//! Envoy's `%START_TIME%`: `2026-11-21T10:00:29.123Z`.
//!
//! No time zones, no formatting machinery: this runs once a log line.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends `at` in UTC with milliseconds.
pub fn write(at: SystemTime, out: &mut Vec<u8>) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days as i64);
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        since.subsec_millis()
    );
}

/// The same as text.
pub fn text(at: SystemTime) -> String {
    let mut out = Vec::with_capacity(24);
    write(at, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Days since 1970-01-01 to a Gregorian date; eras of 400 years beginning in March keep leap days last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn known_instants() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_255_229_123, "2026-11-21T10:00:29.123Z"),
        ];
        for (ms, want) in cases {
            assert_eq!(text(UNIX_EPOCH + Duration::from_millis(ms)), want);
        }
    }
}
