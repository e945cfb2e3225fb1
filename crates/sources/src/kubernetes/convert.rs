//! What the API server has, as the objects that resolving knows: by the decoder of files, then made as small as a mesh needs.
//!
//! Never decides what an object means, with one exception that is Kubernetes' own: here a pod has a sidecar if and only if it says
//! so by its label, since the webhook may have been away. Invariants: pods that ended are gone; what the API server changes by
//! itself (resource versions, heartbeats, trigger times) makes no object different.

use fairlead_model::{ClusterId, Diagnostic, ObjectKey};
use fairlead_resources::core::Pod;
use fairlead_resources::core::endpoint_slice::SERVICE_NAME_LABEL;
use fairlead_resources::yaml::Node;
use fairlead_resources::{Decoded, Kind, Object, decode_object, prune};
use std::collections::HashSet;
use std::sync::Arc;

const TLS_MODE: &str = "security.istio.io/tlsMode";
const INJECT: &str = "sidecar.istio.io/inject";
/// What `kubectl apply` remembers of an object: all of it again.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One version of an object, read.
#[derive(Debug)]
pub struct Version {
    pub key: ObjectKey,
    /// 0 where it is no number.
    pub resource_version: u64,
    /// `None`: it was refused and nothing of it holds.
    pub decoded: Option<Arc<Decoded>>,
    pub diagnostics: Vec<Diagnostic>,
    /// What to keep of it over a restart: present if nothing was refused.
    pub json: Option<Vec<u8>>,
}

/// Reads objects of one kind in one cluster.
#[derive(Debug)]
pub struct Converter {
    cluster: ClusterId,
    kind: Kind,
    /// Names that many objects share: one copy of each.
    shared: HashSet<Arc<str>>,
}

impl Converter {
    pub fn new(cluster: ClusterId, kind: Kind) -> Self {
        Self { cluster, kind, shared: HashSet::new() }
    }

    /// `Err`: the object is to be treated as gone. `keep`: whether its JSON is wanted.
    pub fn convert(&mut self, mut node: Node, keep: bool) -> Result<Version, ObjectKey> {
        let mut decoding = decode_object(&self.cluster, &node);
        let key = self.key(&node);
        let resource_version =
            node.child("metadata").and_then(|m| m.text_at("resourceVersion")?.parse().ok()).unwrap_or(0);
        let mut decoded = decoding.objects.pop();
        if let Some(Decoded { object: Object::Pod(pod), .. }) = &decoded
            && matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
        {
            return Err(key);
        }
        let good = decoding.refused.is_empty() && decoded.is_some();
        let json = (keep && good).then(|| {
            prune(self.kind, &mut node);
            serde_json::to_vec(&node).ok()
        });
        if let Some(decoded) = &mut decoded {
            decoded.key = key.clone();
            compact(&mut decoded.object);
        }
        let (decoded, diagnostics) = (decoded.map(Arc::new), decoding.diagnostics);
        Ok(Version { key, resource_version, decoded, diagnostics, json: json.flatten() })
    }

    /// The key of an object, whatever else is wrong with it.
    pub fn key(&mut self, node: &Node) -> ObjectKey {
        let metadata = node.child("metadata");
        let text = |key: &str| metadata.and_then(|m| m.text_at(key)).unwrap_or_default();
        let namespace = if self.kind.is_namespaced() { text("namespace") } else { "" };
        let (kind, namespace) = (self.share(self.kind.as_str()), self.share(namespace));
        ObjectKey::new(self.cluster.clone(), kind, namespace, text("name"))
    }

    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.shared.get(text) {
            return shared.clone();
        }
        let shared: Arc<str> = text.into();
        self.shared.insert(shared.clone());
        shared
    }
}

/// Drops what is decoded and not read of a cluster's own kinds, of which there are many.
fn compact(object: &mut Object) {
    match object {
        Object::Pod(pod) => compact_pod(pod),
        Object::EndpointSlice(slice) => {
            slice.metadata.annotations.clear();
            slice.metadata.labels.retain(|key, _| key == SERVICE_NAME_LABEL);
            slice.metadata.uid = String::new();
            slice.endpoints.shrink_to_fit();
        }
        Object::Node(node) => node.metadata.annotations.clear(),
        Object::Namespace(namespace) => namespace.metadata.annotations.clear(),
        _ => {}
    }
    let meta = object.meta_mut();
    meta.resource_version = String::new();
    meta.annotations.remove(LAST_APPLIED);
    meta.annotations.pool();
}

fn compact_pod(pod: &mut Pod) {
    pod.metadata.annotations.clear();
    let injected = pod.metadata.label(TLS_MODE) == Some("istio");
    if injected {
        pod.metadata.labels.remove(INJECT);
    } else {
        pod.metadata.labels.insert(INJECT.to_owned(), "false".to_owned());
    }
    for containers in [&mut pod.spec.containers, &mut pod.spec.init_containers] {
        containers.retain(|container| container.ports.iter().any(|port| !port.name.is_empty()));
        containers.shrink_to_fit();
        containers.pool();
    }
    pod.status.conditions.retain(|condition| condition.condition == "Ready");
    pod.status.conditions.shrink_to_fit();
    pod.status.conditions.pool();
    pod.metadata.labels.pool();
    if let [only] = pod.status.pod_ips.as_slice()
        && only.ip == pod.status.pod_ip
    {
        pod.status.pod_ips = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(labels: &str, phase: &str) -> Result<Version, ObjectKey> {
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web","namespace":"shop","labels":{labels},
            "resourceVersion":"12","annotations":{{"a":"b"}}}},"spec":{{"volumes":[],"containers":[
            {{"name":"web","ports":[{{"name":"http","containerPort":80}}]}},{{"name":"other"}}]}},
            "status":{{"phase":"{phase}","podIP":"10.0.0.1","podIPs":[{{"ip":"10.0.0.1"}}],
            "conditions":[{{"type":"Ready","status":"True"}},{{"type":"Initialized","status":"True"}}]}}}}"#
        );
        Converter::new("east".into(), Kind::Pod).convert(serde_json::from_str(&text).unwrap(), true)
    }

    fn inject(labels: &str) -> Option<String> {
        let Object::Pod(pod) = &pod(labels, "Running").unwrap().decoded.unwrap().object else { panic!("no pod") };
        assert_eq!((pod.spec.containers.len(), pod.status.conditions.len()), (1, 1));
        assert!(pod.is_ready() && pod.metadata.annotations.is_empty() && pod.metadata.resource_version.is_empty());
        pod.metadata.label(INJECT).map(str::to_owned)
    }

    #[test]
    fn a_pod_has_a_sidecar_if_and_only_if_its_label_says_so() {
        assert_eq!(inject(r#"{"security.istio.io/tlsMode":"istio"}"#), None);
        assert_eq!(inject(r#"{"security.istio.io/tlsMode":"istio","sidecar.istio.io/inject":"true"}"#), None);
        // The webhook was away, or refused.
        assert_eq!(inject(r#"{"sidecar.istio.io/inject":"true"}"#).as_deref(), Some("false"));
        assert_eq!(inject(r#"{"security.istio.io/tlsMode":"disabled"}"#).as_deref(), Some("false"));
        assert_eq!(inject("{}").as_deref(), Some("false"));
    }

    #[test]
    fn pods_that_ended_are_gone() {
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(pod("{}", phase).unwrap_err().to_string(), pod("{}", "Running").unwrap().key.to_string());
        }
    }

    #[test]
    fn what_is_kept_reads_the_same_again() {
        let version = pod(r#"{"app":"web"}"#, "Running").unwrap();
        let node: Node = serde_json::from_slice(&version.json.unwrap()).unwrap();
        let again = Converter::new("east".into(), Kind::Pod).convert(node, false).unwrap();
        assert_eq!(again.decoded.unwrap().object, version.decoded.unwrap().object);
        assert!(again.json.is_none());
    }

    #[test]
    fn a_refused_object_leaves_its_key_and_a_diagnostic_without_file() {
        let text = r#"{"apiVersion":"networking.istio.io/v1","kind":"DestinationRule","metadata":{"name":"a",
            "namespace":"shop"},"spec":{"host":"web","trafficPolicies":{}}}"#;
        let node = serde_json::from_str(text).unwrap();
        let version = Converter::new("east".into(), Kind::DestinationRule).convert(node, true).unwrap();
        assert!(version.decoded.is_none() && version.json.is_none());
        assert_eq!(version.diagnostics[0].path, "spec.trafficPolicies");
        assert_eq!((&*version.diagnostics[0].file, version.diagnostics[0].line), ("", 0));
        assert_eq!(version.diagnostics[0].object, version.key);
    }
}
