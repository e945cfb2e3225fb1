//! MeshNetworks: the key `meshNetworks` of ConfigMap `istio-system/istio`.

use std::collections::BTreeMap;

message! {
    /// Networks by name.
    pub struct MeshNetworks {
        /// Networks by name.
        networks: BTreeMap<String, Network>,
    }
}

message! {
    /// One network.
    pub struct Network {
        /// What belongs to it.
        endpoints: Vec<NetworkEndpoints>,
        /// How it is entered.
        gateways: Vec<NetworkGateway>,
    }
}

message! {
    /// What belongs to a network; one of the two.
    pub struct NetworkEndpoints {
        /// Addresses.
        from_cidr: Option<String>,
        /// A cluster.
        from_registry: Option<String>,
    }
}

message! {
    /// How a network is entered; a service name or an address.
    pub struct NetworkGateway {
        /// A service.
        registry_service_name: Option<String>,
        /// An address or name.
        address: Option<String>,
        /// Port.
        port: u32,
        /// Locality.
        locality: String,
    }
}
