//! The proxy's own HTTP endpoints: admin, metrics, readiness, and the DNS server's sockets.
//!
//! They run on the control thread; a scrape or a dump never delays a request. Invariant: nothing here is reachable through
//! a captured connection: each has a listener of its own.

mod clusters;
mod config_dump;
mod server;
mod stats;

pub use server::serve;
