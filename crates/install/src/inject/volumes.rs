//! What the proxy's container mounts: its token, the mesh's trust, a place for its last configuration, the user's own.
//!
//! Invariant: no host path; what the proxy writes is gone with the pod.

use super::codes;
use super::fields::{items, list, text};
use super::findings::Findings;
use super::options::Options;
use super::settings::InjectSettings;
use serde_json::{Value, json};

pub(super) const TOKEN: &str = "fairlead-token";
pub(super) const TRUST: &str = "fairlead-trust";
pub(super) const STATE: &str = "fairlead-state";
/// Where the proxy keeps its last configuration.
pub(super) const STATE_PATH: &str = "/var/lib/fairlead-proxy";

/// The token is renewed by the kubelet at four fifths of this.
const TOKEN_SECONDS: u32 = 3600;

/// Adds the volumes, and the settings' pull secrets.
pub(super) fn add(pod: &mut Value, settings: &InjectSettings, options: &Options, findings: &mut Findings) {
    let audience = format!("fairlead.dev/{}", settings.cluster);
    let token = json!({"audience": audience, "expirationSeconds": TOKEN_SECONDS, "path": "token"});
    let mut added = vec![
        json!({"name": TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}}),
        json!({"name": TRUST, "configMap": {"name": "fairlead-trust"}}),
        json!({"name": STATE, "emptyDir": {}}),
    ];
    added.extend(options.volumes.iter().cloned());
    let volumes = items(&mut pod["spec"], "volumes");
    for volume in added {
        let name = text(&volume, "name").unwrap_or_default();
        if volumes.iter().any(|own| text(own, "name") == Some(name)) {
            let message = format!("the pod has a volume {name}, and its sidecar needs one of that name");
            findings.refuse(codes::NAME_TAKEN, &format!("spec.volumes[{name}]"), message, "rename it");
        }
        volumes.push(volume);
    }
    let secrets: Vec<Value> = {
        let own = list(&pod["spec"], "imagePullSecrets");
        let missing = |name: &&String| !own.iter().any(|secret| text(secret, "name") == Some(name));
        settings.image_pull_secrets.iter().filter(missing).map(|name| json!({"name": name})).collect()
    };
    if !secrets.is_empty() {
        items(&mut pod["spec"], "imagePullSecrets").extend(secrets);
    }
}

/// Where the proxy's container has them.
pub(super) fn mounts(options: &Options) -> Vec<Value> {
    let mut mounts = vec![
        json!({"name": TOKEN, "mountPath": "/var/run/secrets/fairlead", "readOnly": true}),
        json!({"name": TRUST, "mountPath": "/var/run/fairlead/trust", "readOnly": true}),
        json!({"name": STATE, "mountPath": STATE_PATH}),
    ];
    mounts.extend(options.mounts.iter().cloned());
    mounts
}
