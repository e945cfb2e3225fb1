//! What a name means: virtual IPs, addresses, and the name tables of callers.
//!
//! Never says who may be called. Precedence (Istio): of several services with one host the caller's namespace's comes
//! first, then by namespace; a service that the caller may not see does not resolve. A virtual IP that is written holds;
//! the rest are hashes of names. A host that only VirtualServices know gets an entry without ports: a resolver asks
//! upstream first and falls back to it.

pub mod address;
mod kubernetes;
mod table;
pub mod virtual_ip;

pub use kubernetes::kubernetes_names;
pub use table::names;
