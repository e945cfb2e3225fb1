//! Arithmetic on points in time that cannot overflow: certificates count whole seconds since 1970.

use std::time::Duration;

use rustls_pki_types::UnixTime;

/// `time` plus `by`, without overflow.
pub(crate) fn later(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs().saturating_add(by.as_secs())))
}

/// `time` minus `by`, not before 1970.
pub(crate) fn earlier(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs().saturating_sub(by.as_secs())))
}
