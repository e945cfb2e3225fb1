//! Capture: which of a workload's connections go through its proxy, as rules, and their way into a kernel.
//!
//! [`capture`] decides, purely; [`rules`] are packet filter tables as data, text and nf_tables messages; [`netlink`] speaks to the
//! kernel without any installed tool. The lab and Kubernetes use the same rules and differ only in how the proxy's own traffic is told.
//!
//! Must never see what a mesh is configured to do, nor a cluster's API. Invariant: a connection of the proxy is never captured on its
//! way out.

pub mod capture;
pub mod netlink;
pub mod rules;

pub use capture::{Capture, INBOUND_MARK, InboundPorts, LoopGuard, PROXY_MARK};
