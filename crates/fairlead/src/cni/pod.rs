//! What a pod's annotations say: from the container runtime, else from the API server.
//!
//! Must never take an answer for another pod of the same name. Invariant: it ends within its time limit with annotations or an error
//! that lets the runtime try again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use super::plugin::{Failure, NetworkConfig, POD_ANNOTATIONS};

/// Runtimes wait minutes for a plugin, and try again after an error.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);

/// Which pod.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty where the runtime does not say it.
    pub uid: &'a str,
}

/// Its annotations.
pub fn annotations(pod: &Name<'_>, config: &NetworkConfig) -> Result<BTreeMap<String, String>, Failure> {
    if let Some(said) = config.runtime_config.get(POD_ANNOTATIONS) {
        return serde_json::from_value(said.clone())
            .map_err(|e| Failure::new(Failure::LATER, format!("runtimeConfig.{POD_ANNOTATIONS}: {e}")));
    }
    let Some(kubeconfig) = &config.kubeconfig else {
        let text = format!(
            "the container runtime does not pass {POD_ANNOTATIONS}, and there is no kubeconfig to ask an API server with"
        );
        return Err(Failure::new(Failure::LATER, text));
    };
    let later = |text: String| {
        let text = format!("cannot learn whether pod {}/{} is to be captured: {text}", pod.namespace, pod.name);
        Failure::new(Failure::LATER, text)
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| later(e.to_string()))?;
    runtime.block_on(ask(pod, kubeconfig)).map_err(later)
}

/// Whether ADD could be answered (STATUS).
pub fn ready(config: &NetworkConfig) -> Result<(), Failure> {
    match &config.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).map(drop).map_err(|e| {
            Failure::new(
                Failure::LATER,
                format!("kubeconfig {}: {e}; is the DaemonSet fairlead-cni running?", path.display()),
            )
        }),
        None => Ok(()),
    }
}

async fn ask(pod: &Name<'_>, kubeconfig: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut last = String::from("no answer");
    let asking = async {
        loop {
            match once(pod, kubeconfig).await {
                Ok(annotations) => return annotations,
                Err(error) => last = error,
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(LIMIT, asking).await {
        Ok(annotations) => Ok(annotations),
        Err(_) => Err(format!("{last} (tried for {} s)", LIMIT.as_secs())),
    }
}

async fn once(pod: &Name<'_>, kubeconfig: &Path) -> Result<BTreeMap<String, String>, String> {
    // Read each time: the installer may have renewed it meanwhile.
    let file = Kubeconfig::read_from(kubeconfig).map_err(|e| format!("kubeconfig {}: {e}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let client = Client::try_from(config.map_err(whole)?).map_err(whole)?;
    let found = Api::<Pod>::namespaced(client, pod.namespace).get(pod.name).await.map_err(whole)?;
    if !pod.uid.is_empty() && found.metadata.uid.as_deref() != Some(pod.uid) {
        return Err("the API server knows another pod of that name".into());
    }
    Ok(found.metadata.annotations.unwrap_or_default())
}

/// With what it comes from: the outermost error says only that it failed.
fn whole(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}
