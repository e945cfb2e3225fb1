//! Mesh-wide settings with every default applied.
//!
//! Never reads anything but the `Mesh` object, the list of clusters and one cluster's ConfigMap `istio-system/istio`.
//! Precedence: ConfigMap, field by field, over `Mesh.spec.meshConfig` over `Mesh.spec` over the profile's defaults; a
//! trust domain written in `Mesh.spec` is the mesh's, one written in MeshConfig is the cluster's.

pub(crate) mod cluster_local;
pub(crate) mod export_defaults;
mod retries;

pub use export_defaults::ExportDefaults;
pub(crate) use retries::retry_policy;

use crate::destinations::MeshDefaults;
use crate::registry::ObjectRef;
use fairlead_model::ids::{ClusterId, Locality, NetworkId};
use fairlead_model::policy::LocalityPolicy;
use fairlead_model::settings::{
    ClusterLocalNames, ClusterSettings, Export, LocalityMode, MeshSettings, OutboundPolicy, PathNormalization, Profile,
    Trust,
};
use fairlead_resources::Object;
use fairlead_resources::fairlead as written;
use fairlead_resources::istio::{DiscoverySelector, MeshConfig, MeshNetworks, NormalizationType, OutboundMode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Default port of an east-west gateway (Istio).
pub const GATEWAY_PORT: u16 = 15443;

/// Settings as they hold in one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What every later stage sees.
    pub mesh: Arc<MeshSettings>,
    /// MeshConfig `default…ExportTo`.
    pub export_to: ExportDefaults,
    /// MeshConfig defaults of destination policies.
    pub destinations: MeshDefaults,
    /// MeshConfig `discoverySelectors`: objects of other namespaces do not exist. Empty: all namespaces.
    pub discovery: Vec<DiscoverySelector>,
    /// MeshConfig fields that are written and that nothing here acts on, with whether the cluster's own ConfigMap has them.
    pub without_effect: Vec<(&'static str, bool)>,
    /// MeshNetworks of the cluster's ConfigMap: networks by CIDR or cluster, and their gateways.
    pub networks: MeshNetworks,
    /// `defaultConfig.proxyMetadata` asks for addresses of ServiceEntries (`ISTIO_META_DNS_AUTO_ALLOCATE`).
    pub auto_allocate: bool,
}

/// Settles the settings of one cluster.
///
/// `name` is the mesh's if the `Mesh` object has none (its folder's), `clusters` all members that are known beside those
/// of `Mesh.spec.clusters`, `objects` those of the cluster in question (only its ConfigMap is read).
pub fn settings(
    name: &str,
    mesh: Option<&written::Mesh>,
    clusters: &BTreeSet<ClusterId>,
    objects: &[ObjectRef<'_>],
) -> Settings {
    let spec = mesh.map(|mesh| mesh.spec.clone()).unwrap_or_default();
    let base = spec.mesh_config.as_ref().map(|config| (*config.0).clone()).unwrap_or_default();
    let own = objects.iter().find_map(|object| match &object.decoded.object {
        Object::ConfigMap(map) if map.is_mesh_config() => map.mesh.as_deref(),
        _ => None,
    });
    let networks = objects.iter().find_map(|object| match &object.decoded.object {
        Object::ConfigMap(map) if map.is_mesh_config() => map.networks.as_deref(),
        _ => None,
    });
    let config = own.map_or_else(|| base.clone(), |own| base.overridden_by(own));
    let name = mesh.map(|mesh| mesh.metadata.name.as_str()).filter(|name| !name.is_empty()).unwrap_or(name);
    let settled = settle(name, &spec, clusters, &config);
    Settings {
        export_to: ExportDefaults::new(&config),
        destinations: MeshDefaults::new(&config),
        discovery: config.discovery_selectors.clone(),
        without_effect: without_effect(&config, own),
        networks: networks.cloned().unwrap_or_default(),
        auto_allocate: config
            .default_config
            .as_ref()
            .and_then(|proxy| proxy.proxy_metadata.get("ISTIO_META_DNS_AUTO_ALLOCATE"))
            .is_some_and(|value| value == "true"),
        mesh: Arc::new(settled),
    }
}

/// Logging, detection and draining are the proxy's, which has no mesh-wide setting for them yet.
fn without_effect(config: &MeshConfig, own: Option<&MeshConfig>) -> Vec<(&'static str, bool)> {
    const FIELDS: [&str; 6] = [
        "accessLogFile",
        "accessLogFormat",
        "accessLogEncoding",
        "protocolDetectionTimeout",
        "enablePrometheusMerge",
        "defaultConfig",
    ];
    let written = |config: &MeshConfig, field: &str| config.written.iter().any(|key| key == field);
    let found = FIELDS.into_iter().filter(|field| written(config, field));
    found.map(|field| (field, own.is_some_and(|own| written(own, field)))).collect()
}

fn settle(name: &str, spec: &written::MeshSpec, clusters: &BTreeSet<ClusterId>, config: &MeshConfig) -> MeshSettings {
    let istio = spec.profile == written::Profile::Istio;
    let pick = |fairlead: &str, of_istio: &str| if istio { of_istio.to_owned() } else { fairlead.to_owned() };
    let domain = "cluster.local".to_owned();
    let trust_domain = config
        .trust_domain
        .clone()
        .filter(|domain| !domain.is_empty())
        .or_else(|| spec.trust_domain.clone().filter(|domain| !domain.is_empty()))
        .unwrap_or_else(|| pick(&format!("{name}.mesh"), "cluster.local"));
    let mut members: BTreeMap<ClusterId, ClusterSettings> = BTreeMap::new();
    let written = spec.clusters.keys().map(|name| ClusterId::from(name.as_str()));
    for cluster in clusters.iter().cloned().chain(written) {
        let one = spec.clusters.get(cluster.as_str()).cloned().unwrap_or_default();
        members.insert(cluster.clone(), member(&cluster, &one, istio));
    }
    MeshSettings {
        name: name.to_owned(),
        profile: if istio { Profile::Istio } else { Profile::Fairlead },
        trust: match spec.trust {
            Some(written::TrustMode::PerCluster) => Trust::PerCluster,
            Some(written::TrustMode::Shared) => Trust::Shared,
            None if istio => Trust::Shared,
            None => Trust::PerCluster,
        },
        trust_domain,
        trust_domain_aliases: config.trust_domain_aliases.iter().cloned().collect(),
        export: match spec.export {
            Some(written::ExportMode::Explicit) => Export::Explicit,
            Some(written::ExportMode::All) => Export::All,
            None if istio => Export::All,
            None => Export::Explicit,
        },
        cluster_local_names: match spec.cluster_local_names {
            Some(written::ClusterLocalNames::Local) => ClusterLocalNames::Local,
            Some(written::ClusterLocalNames::Span) | None => ClusterLocalNames::Span,
        },
        locality: match spec.locality {
            Some(written::LocalityMode::PreferLocal) => LocalityMode::PreferLocal,
            Some(written::LocalityMode::Istio) => LocalityMode::Istio,
            None if istio => LocalityMode::Istio,
            None => LocalityMode::PreferLocal,
        },
        clusters: members,
        cluster_local_hosts: cluster_local::hosts(config, &domain),
        domain,
        root_namespace: config
            .root_namespace
            .clone()
            .filter(|ns| !ns.is_empty())
            .unwrap_or_else(|| "istio-system".to_owned()),
        auto_mtls: config.enable_auto_mtls.unwrap_or(true),
        outbound: match config.outbound_traffic_policy.as_ref().map(|policy| policy.mode) {
            Some(OutboundMode::RegistryOnly) => OutboundPolicy::RegistryOnly,
            Some(OutboundMode::AllowAny) | None => OutboundPolicy::AllowAny,
        },
        connect_timeout: config.connect_timeout.map_or(Duration::from_secs(10), |span| span.duration()),
        default_retries: config.default_http_retry_policy.as_ref().map(retry_policy),
        locality_policy: config.locality_lb_setting.as_ref().map_or_else(
            || LocalityPolicy { enabled: true, ..LocalityPolicy::default() },
            crate::destinations::locality_policy,
        ),
        path_normalization: match config.path_normalization.as_ref().map(|path| path.normalization) {
            Some(NormalizationType::None) => PathNormalization::None,
            Some(NormalizationType::MergeSlashes) => PathNormalization::MergeSlashes,
            Some(NormalizationType::DecodeAndMergeSlashes) => PathNormalization::DecodeAndMergeSlashes,
            Some(NormalizationType::Default | NormalizationType::Base) | None => PathNormalization::Base,
        },
        trusted_proxies: config
            .default_config
            .as_ref()
            .and_then(|defaults| defaults.gateway_topology.as_ref()?.num_trusted_proxies)
            .unwrap_or(0),
    }
}

fn member(cluster: &ClusterId, one: &written::MeshCluster, istio: bool) -> ClusterSettings {
    let default_network = if istio { "" } else { cluster.as_str() };
    let gateway = one.east_west_gateway.clone().unwrap_or_default();
    ClusterSettings {
        network: NetworkId::from(one.network.as_deref().unwrap_or(default_network)),
        locality: one.locality.as_deref().map(Locality::parse).unwrap_or_default(),
        primary: match &one.topology {
            written::Topology::Primary => None,
            written::Topology::Remote { primary } => Some(ClusterId::from(primary.as_str())),
        },
        gateway_addresses: gateway.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        gateway_port: gateway.port.filter(|port| *port != 0).unwrap_or(GATEWAY_PORT),
    }
}

/// The network of a cluster, also of one that the mesh has no settings for (a peer that joined at run time).
pub(crate) fn network_of(settings: &MeshSettings, cluster: &ClusterId) -> NetworkId {
    match (settings.clusters.get(cluster), settings.profile) {
        (Some(member), _) => member.network.clone(),
        (None, Profile::Fairlead) => NetworkId::from(cluster.as_str()),
        (None, Profile::Istio) => NetworkId::default(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Profile `fairlead`, mesh `shop`, domain `shop.example`, with these clusters and networks.
    pub(crate) fn settings_of(clusters: &[(&str, &str)]) -> MeshSettings {
        let mut spec = written::MeshSpec { trust_domain: Some("shop.example".into()), ..written::MeshSpec::default() };
        for (cluster, network) in clusters {
            let one = written::MeshCluster { network: Some((*network).into()), ..written::MeshCluster::default() };
            spec.clusters.insert((*cluster).into(), one);
        }
        settle("shop", &spec, &BTreeSet::new(), &MeshConfig::default())
    }

    #[test]
    fn the_profile_decides_the_defaults() {
        let clusters = BTreeSet::from([ClusterId::from("east")]);
        let fairlead = settle("shop", &written::MeshSpec::default(), &clusters, &MeshConfig::default());
        assert_eq!((fairlead.trust_domain.as_str(), fairlead.export), ("shop.mesh", Export::Explicit));
        assert_eq!(fairlead.clusters[&ClusterId::from("east")].network, NetworkId::from("east"));
        let spec = written::MeshSpec { profile: written::Profile::Istio, ..written::MeshSpec::default() };
        let istio = settle("shop", &spec, &clusters, &MeshConfig::default());
        assert_eq!(
            (istio.trust_domain.as_str(), istio.trust, istio.export),
            ("cluster.local", Trust::Shared, Export::All)
        );
        assert_eq!(istio.clusters[&ClusterId::from("east")].network, NetworkId::default());
        assert_eq!(istio.locality, LocalityMode::Istio);
    }

    #[test]
    fn a_clusters_config_overrides_field_by_field() {
        let mut base =
            MeshConfig { trust_domain: Some("a".into()), root_namespace: Some("root".into()), ..MeshConfig::default() };
        base.written = vec!["trustDomain".into(), "rootNamespace".into()];
        let mut own = MeshConfig { trust_domain: Some("b".into()), ..MeshConfig::default() };
        own.written = vec!["trustDomain".into()];
        let merged = settle("m", &written::MeshSpec::default(), &BTreeSet::new(), &base.overridden_by(&own));
        assert_eq!((merged.trust_domain.as_str(), merged.root_namespace.as_str()), ("b", "root"));
    }
}
