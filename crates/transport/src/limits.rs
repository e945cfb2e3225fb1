//! Limits on what a peer may send and how long it may take.
//!
//! Invariant: every value here has a default that bounds memory per connection.

use std::time::Duration;

/// Limits of one HTTP connection.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Bytes of a request head. Envoy `max_request_headers_kb`, default 60.
    pub head_bytes: usize,
    /// Time to finish a head once its first byte has come. Envoy has none by default; 10 s stops slow-head attacks.
    pub head_timeout: Duration,
    /// Time without any byte after which a connection is closed. Envoy `idle_timeout`, default 1 h.
    pub idle_timeout: Duration,
    /// Streams a peer may have open on one HTTP/2 connection.
    pub concurrent_streams: u32,
    /// HTTP/2 receive window of one stream, in bytes.
    pub stream_window: u32,
    /// HTTP/2 receive window of a connection, in bytes.
    pub connection_window: u32,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_bytes: 60 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            concurrent_streams: 1024,
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
        }
    }
}
