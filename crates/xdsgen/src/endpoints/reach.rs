//! How a caller reaches an endpoint.

use fairlead_model::{ClusterId, Endpoint, NetworkId};
use std::collections::BTreeSet;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Direct(IpAddr),
    /// By a name that the proxy resolves.
    Named(String),
    /// Through the gateways into the endpoint's network.
    Gateway {
        network: NetworkId,
        cluster: ClusterId,
    },
    /// No address is known and no gateway leads there.
    No,
}

/// `hops` are the (network, cluster) pairs to which gateways are known. An endpoint of a foreign network without a gateway
/// is dialled directly, as Istio does, if its address is known.
pub fn reach(from: &NetworkId, endpoint: &Endpoint, hops: &BTreeSet<(NetworkId, ClusterId)>) -> Reach {
    if let (None, Some(name)) = (endpoint.address, &endpoint.hostname) {
        return Reach::Named(name.to_string());
    }
    let direct = endpoint.address.map_or(Reach::No, Reach::Direct);
    if from.reaches(&endpoint.network) && endpoint.address.is_some() {
        return direct;
    }
    let hop = (endpoint.network.clone(), endpoint.workload.cluster.clone());
    if hops.contains(&hop) { Reach::Gateway { network: hop.0, cluster: hop.1 } } else { direct }
}
