//! The data plane: sidecar, east-west gateway and ingress gateway, all driven by one [`fairlead_engine::Snapshot`].
//!
//! [`run`] serves what a control plane says, [`run_static`] a fixed set of resources. It knows no user-facing kinds. The
//! way of a request is in [`http`](self) as plain async functions; every decision on it is the engine's. Invariant: traffic
//! runs on worker threads, everything else on the control thread, and neither waits for the other.

mod admin;
mod assembly;
mod control;
mod dns;
mod http;
mod identity;
mod options;
mod process;
mod rewrite;
mod shared;
mod static_mode;
mod status;
mod tcp;
mod telemetry;
mod upstream;
mod worker;

pub use control::{CertificateError, ControlledProxy, RunError, run, start};
pub use dns::name_servers;
pub use identity::MeshIdentity;
pub use options::{
    AccessLogTarget, Bootstrap, CredentialFiles, DrainTimes, ProbeKind, ProbeSpec, ProxyOptions, ServeAddresses,
};
pub use rewrite::{How, Rewrite};
pub use static_mode::{StaticError, StaticProxy, StaticResource, read_static, run_static, start_static};
pub use status::{AppMetrics, AppProbe, AppProbes};
pub use telemetry::{CallRecord, EndpointRecord};
