//! The init container that sets capture up; where a CNI plugin does, the one that finds out whether it has.
//!
//! Invariants: of all that root may do the first keeps NET_ADMIN and NET_RAW; the second passes the `restricted` Pod Security level, and
//! holds a pod back that is not captured, which would be open.

use super::options::Options;
use super::settings::InjectSettings;
use super::{INIT, VALIDATION};
use serde_json::{Value, json};

/// Not the proxy's user, whose traffic is not captured.
const VALIDATION_UID: u32 = 1338;

pub(super) fn init(settings: &InjectSettings, options: &Options) -> Value {
    let mut arguments = vec!["capture".to_owned()];
    arguments.extend(options.capture.arguments());
    let (name, capabilities, user) = if settings.cni {
        arguments.push("--verify".into());
        (VALIDATION, json!({"drop": ["ALL"]}), VALIDATION_UID)
    } else {
        (INIT, json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}), 0)
    };
    json!({
        "name": name,
        "image": options.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": arguments,
        "resources": options.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": capabilities,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": user,
            "runAsNonRoot": user != 0,
            "runAsUser": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}
