//! What Fairlead puts into a Kubernetes cluster, as values: the objects of an installation and the changes to an injected pod.
//!
//! Must never see: sockets, files, `kube`, the clock. Values in, Kubernetes objects out as `serde_json` values; who applies them is
//! `fairlead` (command line) or `control` (webhooks). Invariant: equal values render equal objects, in equal order.

pub mod chart;
pub mod cni;
pub mod control;
pub mod crds;
pub mod gateway;
pub mod inject;
pub mod object;
pub mod rbac;
pub mod remote;
mod render;
pub mod revision;
mod values;
pub mod webhooks;

pub use render::{Rendered, render};
pub use values::{
    Admission, CniValues, ControlValues, DEFAULT_REVISION, Expose, GatewayValues, MeshValues, NAMESPACE, Profile,
    PullPolicy, RemoteValues, Trust, VALUES_CONFIG_MAP, VALUES_KEY, ValueError, Values,
};
