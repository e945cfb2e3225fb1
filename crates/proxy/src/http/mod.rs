//! HTTP: a downstream connection's requests, each through the same phases.
//!
//! ```text
//! Head::read ─► decide::route ─► decide::authorize ─► Exchange::run { pick ─► acquire ─► send }* ─► Relayed ─► record
//! ```
//!
//! Invariant: an endpoint is chosen only with an `Allowed` in hand, and each request's record is dropped exactly once.

mod attempt;
mod context;
mod exchange;
mod forwarded;
mod grpc;
mod grpc_frames;
mod head;
mod headers;
mod reply;
mod request_body;
mod response_body;
mod response_head;
mod serve;
mod upgrade;

pub use request_body::RequestBody;
pub use serve::serve;
