//! What is told about each request and connection: one access-log line, Istio's metrics, one per-call record.
//!
//! It must never slow the next request down: handles are cached per worker, lines are buffered per worker. Invariant: a
//! [`RequestRecord`] or [`TcpRecord`] tells its story exactly once, when it is dropped, however the request ended.

mod access_log;
mod flags;
mod format;
mod hub;
mod istio_metrics;
mod peer;
mod record;
mod records;
mod tcp_record;
mod timestamp;

pub use access_log::{LogSink, Logger};
pub use flags::Flags;
pub use hub::Telemetry;
pub use istio_metrics::Families;
pub use peer::{PEER_HEADER, PeerInfo};
pub use record::{CallHead, OwnAnswer, RequestRecord};
pub use records::{CallRecord, EndpointRecord, Records};
pub use tcp_record::TcpRecord;
