//! The CustomResourceDefinitions: our own kinds, and the Istio and MCS kinds that Fairlead reads.
//!
//! Must never replace a definition that somebody else installed: who applies asks for each name first. Invariant: every served kind
//! of `fairlead_resources` that an API server can hold has one here, with the same versions.

use crate::object::labelled;
use serde_json::Value;

/// File and text.
const FILES: &[(&str, &str)] = &[
    ("meshes.fairlead.dev", include_str!("../crds/meshes.fairlead.dev.yaml")),
    ("peers.fairlead.dev", include_str!("../crds/peers.fairlead.dev.yaml")),
    ("virtualservices.networking.istio.io", include_str!("../crds/virtualservices.networking.istio.io.yaml")),
    ("destinationrules.networking.istio.io", include_str!("../crds/destinationrules.networking.istio.io.yaml")),
    ("gateways.networking.istio.io", include_str!("../crds/gateways.networking.istio.io.yaml")),
    ("serviceentries.networking.istio.io", include_str!("../crds/serviceentries.networking.istio.io.yaml")),
    ("workloadentries.networking.istio.io", include_str!("../crds/workloadentries.networking.istio.io.yaml")),
    ("workloadgroups.networking.istio.io", include_str!("../crds/workloadgroups.networking.istio.io.yaml")),
    ("sidecars.networking.istio.io", include_str!("../crds/sidecars.networking.istio.io.yaml")),
    ("proxyconfigs.networking.istio.io", include_str!("../crds/proxyconfigs.networking.istio.io.yaml")),
    ("peerauthentications.security.istio.io", include_str!("../crds/peerauthentications.security.istio.io.yaml")),
    ("requestauthentications.security.istio.io", include_str!("../crds/requestauthentications.security.istio.io.yaml")),
    ("authorizationpolicies.security.istio.io", include_str!("../crds/authorizationpolicies.security.istio.io.yaml")),
    ("telemetries.telemetry.istio.io", include_str!("../crds/telemetries.telemetry.istio.io.yaml")),
    ("serviceexports.multicluster.x-k8s.io", include_str!("../crds/serviceexports.multicluster.x-k8s.io.yaml")),
    ("serviceimports.multicluster.x-k8s.io", include_str!("../crds/serviceimports.multicluster.x-k8s.io.yaml")),
];

/// Names of the definitions.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// Every definition, labelled as installed by us.
pub fn all() -> Vec<Value> {
    FILES
        .iter()
        .filter_map(|(_, text)| serde_saphyr::from_str(text).ok())
        .map(|object| labelled(object, None))
        .collect()
}

/// The files as they are, for a chart's `crds` folder.
pub fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().copied()
}

/// `(plural, group)` of a definition's name.
pub fn plural_and_group(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_resources::Kind;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_that_is_read_has_its_definition_with_its_versions() {
        let all = all();
        assert_eq!(all.len(), FILES.len(), "a file is no YAML");
        for (object, (name, _)) in all.iter().zip(FILES) {
            assert_eq!(object["metadata"]["name"], *name);
            let (plural, group) = plural_and_group(name);
            assert_eq!((&object["spec"]["names"]["plural"], &object["spec"]["group"]), (&plural.into(), &group.into()));
        }
        let of_api_server =
            |k: &&Kind| k.group().contains('.') && k.group() != "discovery.k8s.io" && **k != Kind::Workload;
        let mut defined = BTreeSet::new();
        for kind in Kind::ALL.iter().filter(of_api_server) {
            let found = all
                .iter()
                .find(|o| o["spec"]["names"]["kind"] == kind.as_str() && o["spec"]["group"] == kind.group())
                .unwrap_or_else(|| panic!("{} has no definition", kind.as_str()));
            let versions: Vec<&str> =
                found["spec"]["versions"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
            assert_eq!(versions, kind.versions(), "{}", kind.as_str());
            defined.insert(kind.as_str());
        }
        assert_eq!(defined.len(), FILES.len(), "a definition of a kind that nobody reads");
    }

    #[test]
    fn one_version_is_stored_and_all_are_served() {
        for object in all() {
            let versions = object["spec"]["versions"].as_array().unwrap().clone();
            let stored: Vec<_> = versions.iter().filter(|v| v["storage"] == true).collect();
            assert_eq!(stored.len(), 1, "{}", object["metadata"]["name"]);
            assert_eq!(stored[0]["name"], versions[0]["name"], "the newest is stored");
            assert!(versions.iter().all(|v| v["served"] == true && v["subresources"]["status"].is_object()));
        }
    }
}
