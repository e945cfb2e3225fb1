//! Capture: which of a workload's connections go through its proxy, as rules, and their way into a kernel.
//!
//! [`CaptureSpec`] says what is wanted, `generate` turns it into rules (both pure), [`annotations`] reads it from a pod, [`rules`] are
//! packet filter tables as data, text and nf_tables messages, [`iptables`] the same rules for its program, [`evaluate`] what they do to a
//! packet, [`install`] puts them into a kernel and [`verify`] finds out by connections whether they hold. [`netlink`] speaks to the kernel
//! without any installed tool. The lab and Kubernetes use the same rules and differ only in how the proxy's own traffic is told.
//!
//! Must never see what a mesh is configured to do, nor a cluster's API. Invariant: a connection of the proxy is never captured on its
//! way out.

pub mod annotations;
pub mod evaluate;
mod generate;
pub mod install;
pub mod iptables;
pub mod namespace;
pub mod netlink;
pub mod rules;
mod spec;
pub mod verify;

pub use generate::{PASSTHROUGH, TABLE};
pub use spec::{
    CaptureSpec, Dns, DnsServers, Families, LoopGuard, PROXY_MARK, PROXY_PORTS, PROXY_UID, Ports, Ranges, TUNNEL_PORT,
};
