//! A small metrics registry: families registered once, series resolved when configuration changes, cells counted
//! without contention, summed when scraped.
//!
//! The hot path is one relaxed addition to a cell of the calling thread's shard; no name or label is looked up
//! there. Invariant: a family never holds more series than its limit; what comes after is counted in one overflow
//! series (each label `_overflow`), so that a stranger cannot grow the process.
//!
//! ```
//! use fairlead_runtime::metrics::Registry;
//!
//! let registry = Registry::new();
//! let requests = registry.counter("requests_total", "Requests served.", &["code"]);
//! let ok = requests.with(&["200"]);     // when configuration is applied
//! ok.add(1);                            // per request
//! assert!(registry.render().contains("requests_total{code=\"200\"} 1\n"));
//! ```

mod cells;
mod family;
mod registry;
mod text;

pub use cells::{Counter, Gauge, Histogram};
pub use family::Family;
pub use registry::{Kind, Registry, Sample};

/// Bounds for durations in milliseconds, as Istio's `istio_request_duration_milliseconds` has them.
pub const MILLISECONDS: &[f64] = &[
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Bounds for sizes in bytes.
pub const BYTES: &[f64] = &[
    128.0,
    512.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
