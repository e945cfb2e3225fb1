//! The opaque, stable name of one workload serving one service.
//!
//! Never depends on addresses, order or time. Invariant: equal on every cluster and every replica, because it is a hash
//! of names alone.

use fairlead_model::endpoint::{EndpointId, WorkloadRef};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Separates this use of the hash from every other.
const KEY: &[u8] = b"fairlead endpoint id v1\0";

/// `service` is the plain name without its DNS suffix (`reviews.shop`), so that the `cluster.local` and the
/// `clusterset.local` name of a service mean the same endpoints; for a ServiceEntry it is the host.
pub fn endpoint_id(workload: &WorkloadRef, service: &str) -> EndpointId {
    let mut hash = Sha256::new().chain_update(KEY);
    for part in [workload.cluster.as_str(), &workload.namespace, &workload.name, service] {
        hash.update(part.as_bytes());
        hash.update(b"\0");
    }
    let digest = hash.finalize();
    let mut text = String::with_capacity(16);
    for byte in &digest[..8] {
        let _ = write!(text, "{byte:02x}");
    }
    EndpointId(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_run_into_each_other() {
        let of = |namespace: &str, name: &str| {
            let workload = WorkloadRef { cluster: "east".into(), namespace: namespace.into(), name: name.into() };
            endpoint_id(&workload, "reviews.shop")
        };
        assert_ne!(of("a", "bc"), of("ab", "c"));
        assert_eq!(of("a", "bc"), of("a", "bc"));
        assert_eq!(of("a", "bc").0.len(), 16);
    }
}
