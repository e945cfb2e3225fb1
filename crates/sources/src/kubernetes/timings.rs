//! The clocks of reading from an API server.

use fairlead_runtime::Backoff;
use std::time::Duration;

/// How long things are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Changes within this window are one state. Default 5 ms.
    pub coalesce: Duration,
    /// How often the API server is asked how it is. Default 5 s.
    pub probe: Duration,
    /// An answer to that takes no longer. Default 3 s.
    pub probe_timeout: Duration,
    /// How often kinds are looked for that are not there. Default 10 s.
    pub discover: Duration,
    /// A first list makes progress within this, or is begun anew. Default 30 s.
    pub stall: Duration,
    /// A watch is begun anew after this, so that a connection that died silently is noticed. Default 90 s.
    pub watch: Duration,
    /// Between tries of one kind.
    pub backoff: Backoff,
    /// A kind that fails for so long is told of, and at the start done without unless it is needed. Default 30 s.
    pub give_up: Duration,
    /// Likewise one that may not be read. Default 5 s.
    pub denied: Duration,
    /// At a start, what was kept serves if the API server has not told everything within this. Default 3 s.
    pub grace: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            coalesce: Duration::from_millis(5),
            probe: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            discover: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            watch: Duration::from_secs(90),
            backoff: Backoff::new(Duration::from_millis(400), Duration::from_secs(10)),
            give_up: Duration::from_secs(30),
            denied: Duration::from_secs(5),
            grace: Duration::from_secs(3),
        }
    }
}
