//! The init container that sets capture up, where no CNI plugin does.
//!
//! Invariant: of all that root may do it keeps NET_ADMIN and NET_RAW, and ends before anything else of the pod runs.

use super::INIT;
use super::options::Options;
use super::settings::InjectSettings;
use serde_json::{Value, json};

pub(super) fn init(settings: &InjectSettings, options: &Options) -> Value {
    let mut arguments = vec!["capture".to_owned()];
    arguments.extend(options.capture.arguments());
    json!({
        "name": INIT,
        "image": options.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": arguments,
        "resources": options.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}
