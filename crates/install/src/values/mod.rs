//! What an operator decides about an installation; everything else follows from it.
//!
//! Must never hold a secret: the values are stored in the cluster (ConfigMap `fairlead-values`) so that the next install, the
//! injector and `fairlead check` know them. Invariant: a `Values` that passed [`Values::validate`] renders valid objects.

mod parts;

use crate::inject::InjectSettings;
pub use parts::{
    Admission, CniValues, ControlValues, Expose, GatewayValues, MeshValues, Profile, PullPolicy, RemoteValues, Trust,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Where everything that is not per application namespace lives.
pub const NAMESPACE: &str = "fairlead-system";
/// The revision whose objects carry no suffix.
pub const DEFAULT_REVISION: &str = "default";
/// The ConfigMap that holds the values, and its key.
pub const VALUES_CONFIG_MAP: &str = "fairlead-values";
/// Key of [`VALUES_CONFIG_MAP`].
pub const VALUES_KEY: &str = "values.json";

/// A refused value, by its name as `--set` has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {remedy}")]
pub struct ValueError {
    /// Dotted name.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to write.
    pub remedy: String,
}

/// The values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Values {
    /// This cluster's name in the mesh; no other member may have it.
    pub cluster: String,
    /// Its network; clusters that reach each other's pods directly share one. Empty: the cluster's name.
    pub network: String,
    /// `default`, or the name that the objects of this control plane carry.
    pub revision: String,
    /// Names that injection labels may use instead of the revision's.
    pub tags: Vec<String>,
    /// The one image.
    pub image: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub image_pull_policy: PullPolicy,
    /// Secrets of [`NAMESPACE`] for the image's registry, as a pod has them: `[{name: registry}]`.
    pub image_pull_secrets: Value,
    /// Nodes for control plane and gateway, as a pod has them.
    pub node_selector: Value,
    /// Taints that control plane and gateway bear, as a pod has them.
    pub tolerations: Value,
    /// How other clusters reach the control plane and the gateway.
    pub expose: Expose,
    /// What holds for the whole mesh.
    pub mesh: MeshValues,
    /// The control plane.
    pub control: ControlValues,
    /// The east-west gateway.
    pub gateway: GatewayValues,
    /// Capture by a CNI plugin.
    pub cni: CniValues,
    /// Settings of the injector that differ from its defaults; see [`InjectSettings`].
    pub injection: Map<String, Value>,
    /// Of a cluster without a control plane of its own: who serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteValues>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            network: String::new(),
            revision: DEFAULT_REVISION.into(),
            tags: Vec::new(),
            image: "fairlead.dev/fairlead:dev".into(),
            image_pull_policy: PullPolicy::IfNotPresent,
            image_pull_secrets: json!([]),
            node_selector: json!({}),
            tolerations: json!([]),
            expose: Expose::LoadBalancer,
            mesh: MeshValues::default(),
            control: ControlValues::default(),
            gateway: GatewayValues::default(),
            cni: CniValues::default(),
            injection: Map::new(),
            remote: None,
        }
    }
}

impl Values {
    /// Reads values from JSON, over the defaults; an error names the field.
    pub fn read(tree: Value) -> Result<Self, ValueError> {
        serde_json::from_value(tree).map_err(|e| ValueError {
            field: "values".into(),
            problem: e.to_string(),
            remedy: "docs/kubernetes.md lists every value".into(),
        })
    }

    /// The values with `key=value` pairs over them; a value is read as YAML (`3`, `true`, `{cpu: 1}`).
    pub fn set(&self, pairs: &[String]) -> Result<Self, ValueError> {
        let refused = |field: &str, problem: String, remedy: &str| ValueError {
            field: field.to_owned(),
            problem,
            remedy: remedy.to_owned(),
        };
        let mut tree = self.tree();
        for pair in pairs {
            let Some((key, text)) = pair.split_once('=') else {
                return Err(refused(pair, "has no `=`".into(), "write --set control.replicas=3"));
            };
            let value: Value = serde_saphyr::from_str(text)
                .map_err(|e| refused(key, format!("`{text}` is no YAML ({e})"), "quote it"))?;
            let mut place = &mut tree;
            for part in key.split('.') {
                let Value::Object(map) = place else {
                    return Err(refused(key, "no value has this name".into(), "docs/kubernetes.md lists every value"));
                };
                place = map.entry(part).or_insert(Value::Object(serde_json::Map::new()));
            }
            *place = value;
            Self::read(tree.clone()).map_err(|e| refused(key, e.problem, &e.remedy))?;
        }
        Self::read(tree)
    }

    /// As JSON.
    pub fn tree(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Whether objects can be made of these; the first thing that is wrong.
    pub fn validate(&self) -> Result<(), ValueError> {
        label("cluster", &self.cluster, "name this cluster: --cluster east")?;
        if !self.network.is_empty() {
            label("network", &self.network, "write --network NAME")?;
        }
        label("revision", &self.revision, "write --revision canary")?;
        for (n, tag) in self.tags.iter().enumerate() {
            label(&format!("tags[{n}]"), tag, "write --set 'tags=[prod]'")?;
            if *tag == self.revision {
                return Err(ValueError {
                    field: format!("tags[{n}]"),
                    problem: format!("`{tag}` is the revision itself"),
                    remedy: "leave it out".into(),
                });
            }
        }
        for part in self.mesh.trust_domain.split('.') {
            label("mesh.trustDomain", part, "write a DNS name such as shop.mesh")?;
        }
        if self.image.is_empty() || self.image.contains(char::is_whitespace) {
            return Err(ValueError {
                field: "image".into(),
                problem: format!("`{}` is no image", self.image),
                remedy: "write --image NAME:TAG".into(),
            });
        }
        let counts = [("control.replicas", self.control.replicas), ("gateway.replicas", self.gateway.replicas)];
        for (field, count) in counts {
            if count == 0 {
                return Err(ValueError {
                    field: field.into(),
                    problem: "0 serves nobody".into(),
                    remedy: "write 1 or more; --set gateway.enabled=false leaves the gateway out".into(),
                });
            }
        }
        let resources =
            [("control.resources", &self.control.resources), ("gateway.resources", &self.gateway.resources)];
        for (field, value) in resources {
            if !value.is_object() {
                return Err(ValueError {
                    field: field.into(),
                    problem: "must be an object".into(),
                    remedy: "write {requests: {cpu: 100m, memory: 128Mi}}".into(),
                });
            }
        }
        self.placement()?;
        for (field, path) in [("cni.binDir", &self.cni.bin_dir), ("cni.confDir", &self.cni.conf_dir)] {
            if !path.starts_with('/') {
                return Err(ValueError {
                    field: field.into(),
                    problem: format!("`{path}` is no absolute path"),
                    remedy: "write the nodes' own, such as /opt/cni/bin".into(),
                });
            }
        }
        if let Some(remote) = &self.remote {
            remote.validate(self)?;
        }
        self.inject_settings().map(|_| ())
    }

    /// What the injector of this revision is told: what follows from the values, and what differs from its defaults.
    pub fn inject_tree(&self) -> Map<String, Value> {
        let mut tree = Map::new();
        tree.insert("revision".into(), json!(self.revision));
        tree.insert("tags".into(), json!(self.tags));
        tree.insert("systemNamespace".into(), json!(NAMESPACE));
        tree.insert("controlAddress".into(), json!(self.control_address()));
        tree.insert("cni".into(), json!(self.cni.enabled));
        tree.insert("image".into(), json!(self.image));
        tree.insert("imagePullPolicy".into(), json!(self.image_pull_policy));
        tree.extend(self.injection.clone());
        tree
    }

    /// The same as the injector reads it.
    pub fn inject_settings(&self) -> Result<InjectSettings, ValueError> {
        const DERIVED: &[&str] =
            &["revision", "tags", "systemNamespace", "controlAddress", "cni", "cluster", "trustDomain"];
        let refused = |field: &str, problem: String, remedy: &str| ValueError {
            field: format!("injection.{field}"),
            problem,
            remedy: remedy.to_owned(),
        };
        for (field, value) in &self.injection {
            if DERIVED.contains(&field.as_str()) {
                return Err(refused(field, "follows from other values".into(), "leave it out"));
            }
            let one = Value::Object([(field.clone(), value.clone())].into_iter().collect());
            serde_json::from_value::<InjectSettings>(one)
                .map_err(|e| refused(field, e.to_string(), "docs/kubernetes.md lists every setting"))?;
        }
        serde_json::from_value(Value::Object(self.inject_tree()))
            .map_err(|e| refused("", e.to_string(), "docs/kubernetes.md lists every setting"))
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        if self.network.is_empty() { &self.cluster } else { &self.network }
    }

    /// `base`, or `base-REV`.
    pub fn named(&self, base: &str) -> String {
        if self.revision == DEFAULT_REVISION { base.to_owned() } else { format!("{base}-{}", self.revision) }
    }

    /// The trust domain of this cluster's identities.
    pub fn trust_domain(&self) -> String {
        match self.mesh.trust {
            Trust::PerCluster => format!("{}.{}", self.cluster, self.mesh.trust_domain),
            Trust::Shared => self.mesh.trust_domain.clone(),
        }
    }

    /// Where pods may run, and what their image is pulled with.
    fn placement(&self) -> Result<(), ValueError> {
        let refused = |field: &str, remedy: &str| {
            Err(ValueError { field: field.into(), problem: "is of another form".into(), remedy: remedy.into() })
        };
        let named = |secret: &Value| secret["name"].as_str().is_some_and(|name| !name.is_empty());
        if !self.image_pull_secrets.as_array().is_some_and(|all| all.iter().all(named)) {
            return refused("imagePullSecrets", "write --set 'imagePullSecrets=[{name: registry}]'");
        }
        if !self.node_selector.as_object().is_some_and(|all| all.values().all(Value::is_string)) {
            return refused("nodeSelector", "write --set 'nodeSelector={pool: infra}'");
        }
        if !self.tolerations.as_array().is_some_and(|all| all.iter().all(Value::is_object)) {
            return refused("tolerations", "write --set 'tolerations=[{key: infra, operator: Exists}]'");
        }
        Ok(())
    }

    /// Where proxies of this cluster find the control plane.
    pub fn control_address(&self) -> String {
        format!("{}.{NAMESPACE}.svc:15012", self.named("fairlead-control"))
    }

    /// The identity it shows them.
    pub fn control_identity(&self) -> String {
        format!("spiffe://{}/fairlead/control", self.trust_domain())
    }

    /// The audience of the tokens with which proxies of this cluster ask for their first certificate.
    pub fn audience(&self) -> String {
        format!("fairlead.dev/{}", self.cluster)
    }
}

/// A DNS label (RFC 1123).
fn label(field: &str, text: &str, remedy: &str) -> Result<(), ValueError> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let fits = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|c| good(*c) || *c == b'-')
        && bytes.first().is_some_and(|c| good(*c))
        && bytes.last().is_some_and(|c| good(*c));
    if fits {
        return Ok(());
    }
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else {
        format!("`{text}` is no DNS label (lower case letters, digits, `-`; at most 63)")
    };
    Err(ValueError { field: field.to_owned(), problem, remedy: remedy.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn east() -> Values {
        Values { cluster: "east".into(), ..Values::default() }
    }

    #[test]
    fn names_follow_cluster_and_revision() {
        let values = east();
        assert_eq!(values.validate(), Ok(()));
        assert_eq!(values.network(), "east");
        assert_eq!(values.control_address(), "fairlead-control.fairlead-system.svc:15012");
        assert_eq!(values.control_identity(), "spiffe://east.fairlead.mesh/fairlead/control");
        let canary = values.set(&["revision=canary".into(), "mesh.trust=shared".into()]).unwrap();
        assert_eq!(canary.control_address(), "fairlead-control-canary.fairlead-system.svc:15012");
        assert_eq!(canary.control_identity(), "spiffe://fairlead.mesh/fairlead/control");
    }

    #[test]
    fn the_injector_is_told_what_differs() {
        let values = east().set(&["injection.nativeSidecars=false".into(), "cni.enabled=true".into()]).unwrap();
        let settings = values.inject_settings().unwrap();
        assert_eq!((settings.native_sidecars, settings.cni), (false, true));
        assert_eq!(settings.control_address, "fairlead-control.fairlead-system.svc:15012");
    }

    #[test]
    fn the_stored_form_is_the_read_form() {
        let values =
            east().set(&["control.replicas=3".into(), "injection.resources={limits: {cpu: 1}}".into()]).unwrap();
        assert_eq!(values.control.replicas, 3);
        assert_eq!(Values::read(values.tree()).unwrap(), values);
    }

    #[test]
    fn refusals_name_field_and_remedy() {
        let text = |pairs: &[&str]| {
            let pairs: Vec<String> = pairs.iter().map(|p| (*p).to_owned()).collect();
            east().set(&pairs).and_then(|v| v.validate()).unwrap_err().to_string()
        };
        assert!(text(&["control.replica=3"]).starts_with("control.replica: unknown field `replica`"));
        assert!(text(&["cluster.name=a"]).starts_with("cluster.name: no value has this name"));
        assert!(text(&["expose=ingress"]).starts_with("expose: unknown variant `ingress`"));
        assert!(text(&["control.replicas"]).contains("has no `=`"));
        assert!(text(&["cluster=East_1"]).contains("`East_1` is no DNS label"));
        assert!(text(&["control.replicas=0"]).contains("0 serves nobody"));
        assert!(text(&["tags=[default]"]).contains("is the revision itself"));
        assert!(text(&["mesh.trustDomain=a..b"]).starts_with("mesh.trustDomain: is empty"));
        assert!(text(&["control.resources=1"]).starts_with("control.resources: must be an object"));
        assert!(text(&["injection.nativeSidecar=false"]).starts_with("injection.nativeSidecar: unknown field"));
        assert!(text(&["injection.revision=a"]).starts_with("injection.revision: follows from other values"));
        assert!(
            Values::default().validate().unwrap_err().to_string().starts_with("cluster: is empty; name this cluster")
        );
    }
}
