//! The proxy's side of its control plane: certificates, discovery, reports, and the readiness of its program.
//!
//! Everything here runs on the control thread. Invariant: losing the control plane changes nothing that is being served.

mod certificates;
mod channel;
mod discovery;
mod first_credential;
mod grpc_health;
mod program;
mod reports;
mod run;

pub use certificates::{CertificateError, read_bundles};
pub use channel::ControlPlanes;
pub use program::{ask, call_hook};
pub use run::{ControlledProxy, RunError, run, start};
