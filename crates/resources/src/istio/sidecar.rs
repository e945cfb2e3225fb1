//! `Sidecar`: what a proxy sees and listens on. Decoded and validated, not applied yet.

use super::{ClientTlsSettings, ConnectionPoolSettings, Destination, LabelSelector, Port, ServerTlsSettings};
use crate::meta::Meta;

message! {
    /// The scope of proxies.
    pub struct Sidecar {
        /// Identity.
        metadata: Meta,
        /// The scope.
        spec: SidecarSpec,
    }
}

message! {
    /// `Sidecar.spec`.
    pub struct SidecarSpec {
        /// Proxies in its namespace.
        workload_selector: Option<LabelSelector>,
        /// Inbound listeners.
        ingress: Vec<IstioIngressListener>,
        /// Outbound listeners.
        egress: Vec<IstioEgressListener>,
        /// Limits of inbound connections.
        inbound_connection_pool: Option<ConnectionPoolSettings>,
        /// What happens to unknown destinations.
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    /// One inbound listener.
    pub struct IstioIngressListener {
        /// Port.
        port: Option<Port>,
        /// Address.
        bind: String,
        /// How traffic gets there.
        capture_mode: CaptureMode,
        /// Where the program listens.
        default_endpoint: String,
        /// TLS.
        tls: Option<ServerTlsSettings>,
        /// Limits.
        connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    /// One outbound listener.
    pub struct IstioEgressListener {
        /// Port; unset: those of the imported services.
        port: Option<Port>,
        /// Address.
        bind: String,
        /// How traffic gets there.
        capture_mode: CaptureMode,
        /// `namespace/host`.
        hosts: Vec<String>,
    }
}

words! {
    /// How traffic gets to a listener.
    pub enum CaptureMode {
        /// The default.
        Default = "DEFAULT",
        /// Redirected.
        Iptables = "IPTABLES",
        /// By address only.
        None = "NONE",
    }
}

message! {
    /// What happens to unknown destinations.
    pub struct OutboundTrafficPolicy {
        /// Mode.
        mode: OutboundMode,
        /// Through this gateway.
        egress_proxy: Option<Destination>,
        /// TLS towards that gateway; never implemented by Istio.
        egress_tls: Option<ClientTlsSettings>,
    }
}

words! {
    /// What happens to unknown destinations. The zero value is REGISTRY_ONLY: an empty block flips Istio's default.
    pub enum OutboundMode {
        /// Refused.
        RegistryOnly = "REGISTRY_ONLY",
        /// Passed through.
        AllowAny = "ALLOW_ANY",
    }
}
