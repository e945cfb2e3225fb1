//! What a kubelet and a scraper see of a proxy in a pod: readiness (15021), and on 15020 merged metrics, the program's probes and hooks, and
//! the way to end it.
//!
//! Served from the first moment on, before there is a certificate: a program's liveness must not hang on a control plane. Runs on the
//! control thread. Invariant: whoever is not on the pod's own loopback can read,
//! and have the program probed, scraped and its hooks called, and nothing else.

mod app_metrics;
mod app_probes;
mod server;
#[cfg(test)]
mod tests;

pub use app_metrics::AppMetrics;
pub use app_probes::{AppProbe, AppProbes};
pub use server::Status;
