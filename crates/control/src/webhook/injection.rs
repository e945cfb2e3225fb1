//! `/inject`: a pod's review answered by `fairlead_install::inject`.
//!
//! Never looks at the namespace's labels: the API server has compared them with the selectors of the webhook that it calls, and knows
//! them better than any watch. Invariant: settings that cannot be read refuse, since a pod without its proxy would be outside the mesh.

use super::admission::{Answer, Request};
use fairlead_install::inject::{Decision, InjectSettings, Namespace, inject, patch};
use fairlead_model::Diagnostic;
use parking_lot::Mutex;
use std::path::PathBuf;

/// Puts proxies into pods.
pub struct Injector {
    file: Option<PathBuf>,
    cluster: String,
    trust_domain: String,
    /// The newest settings that could be read.
    good: Mutex<Option<InjectSettings>>,
}

impl Injector {
    pub fn new(file: Option<PathBuf>, cluster: &str, trust_domain: &str) -> Self {
        Self { file, cluster: cluster.into(), trust_domain: trust_domain.into(), good: Mutex::default() }
    }

    /// Our Service and its namespace, by the settings as they are now.
    pub fn service(&self) -> (String, String) {
        let settings = self.settings().unwrap_or_else(|why| {
            tracing::error!("{why}; pods are refused until it can be read");
            InjectSettings::default()
        });
        (settings.service(), settings.system_namespace)
    }

    /// What is to be done with a pod.
    pub fn answer(&self, request: &Request) -> Answer {
        if request.kind.kind != "Pod" || !request.kind.group.is_empty() || request.operation != "CREATE" {
            return Answer::default();
        }
        let settings = match self.settings() {
            Ok(settings) => settings,
            Err(why) => return Answer::refused(format!("the pod cannot be injected: {why}")),
        };
        let namespace = Namespace { name: &request.namespace, labels: None };
        match inject(&request.object, namespace, &settings) {
            Decision::Inject { pod, warnings } => {
                Answer { patch: patch::between(&request.object, &pod), ..Answer::default() }.warning(&warnings)
            }
            Decision::Skip { reason, warnings } => {
                tracing::debug!(namespace = request.namespace, "a pod is not injected: {reason}");
                Answer::default().warning(&warnings)
            }
            Decision::Refuse { diagnostics } => {
                let (errors, rest): (Vec<_>, Vec<_>) = diagnostics.into_iter().partition(Diagnostic::is_error);
                let why: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Answer::refused(why.join("\n")).warning(&rest)
            }
        }
    }

    /// The file is small and changes beneath us as ConfigMaps do; what was good holds over a moment of nonsense.
    fn settings(&self) -> Result<InjectSettings, String> {
        let read = || -> Result<InjectSettings, String> {
            let Some(file) = &self.file else { return Ok(InjectSettings::default()) };
            let about = |error: &dyn std::fmt::Display| format!("settings {}: {error}", file.display());
            let text = std::fs::read(file).map_err(|error| about(&error))?;
            serde_json::from_slice(&text).map_err(|error| about(&error))
        };
        let mut good = self.good.lock();
        match read() {
            Ok(settings) => *good = Some(self.filled(settings)),
            Err(why) if good.is_none() => return Err(why),
            Err(why) => tracing::warn!("{why}; the last ones hold"),
        }
        good.clone().ok_or_else(|| "there are no settings".into())
    }

    fn filled(&self, mut settings: InjectSettings) -> InjectSettings {
        settings.cluster.clone_from(&self.cluster);
        settings.trust_domain.clone_from(&self.trust_domain);
        settings
    }
}
