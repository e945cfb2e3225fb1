//! The proxy's own HTTP endpoints for people, and the DNS server's sockets. What a kubelet asks is in `status`.
//!
//! They run on the control thread; a scrape or a dump never delays a request. Invariant: nothing here is reachable through
//! a captured connection: each has a listener of its own.

mod clusters;
mod config_dump;
mod server;
pub mod stats;

pub use server::{Admin, serve};
