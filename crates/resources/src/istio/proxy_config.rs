//! `ProxyConfig` (networking.istio.io/v1beta1). Decoded and validated, not applied yet.

use std::collections::BTreeMap;

use super::PolicySelector;
use crate::meta::Meta;

message! {
    /// Settings of proxies.
    pub struct ProxyConfig {
        /// Identity.
        metadata: Meta,
        /// The settings.
        spec: ProxyConfigSpec,
    }
}

message! {
    /// `ProxyConfig.spec`.
    pub struct ProxyConfigSpec {
        /// Workloads.
        selector: Option<PolicySelector>,
        /// Worker threads; 0 is all cores.
        concurrency: Option<i32>,
        /// Environment of the proxy.
        environment_variables: BTreeMap<String, String>,
        /// Image of the proxy.
        image: Option<ProxyImage>,
    }
}

message! {
    /// Image of the proxy.
    pub struct ProxyImage {
        /// `default`, `distroless`, `debug`.
        image_type: String,
    }
}
