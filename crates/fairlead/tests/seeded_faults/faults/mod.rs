//! What can be wrong with a proxy, and the call that must notice.
//!
//! A fault is a way to misread what the control plane sent: as a proxy would that ignores a field, mixes up two things, or never
//! got an update. Must never depend on anything but the resource it is given.

mod access;
mod balancing;
mod gateways;
mod routing;
mod transport;

use bytes::Bytes;
use fairlead_engine::Resource;

/// One fault of one proxy.
pub struct Fault {
    pub name: &'static str,
    /// Whose proxy has it.
    pub at: &'static str,
    /// `why` of the call that must fail.
    pub caught_by: &'static str,
    /// What is read instead of a resource; `None`: what stands there.
    pub alter: fn(&Resource) -> Option<Bytes>,
}

const CLIENT: &str = "east/app/client-0";
const WEB: &str = "web.app.svc.cluster.local";

/// Of `tests/meshes/faults`.
pub fn seeded() -> impl Iterator<Item = &'static Fault> {
    [routing::FAULTS, access::FAULTS, transport::FAULTS, balancing::FAULTS, gateways::FAULTS].into_iter().flatten()
}

/// Of `tests/meshes/istio-ejects`.
pub fn of_ejection() -> impl Iterator<Item = &'static Fault> {
    balancing::OF_EJECTION.iter()
}

/// All.
pub fn all() -> impl Iterator<Item = &'static Fault> {
    seeded().chain(of_ejection())
}
