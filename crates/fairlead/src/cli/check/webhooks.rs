//! The webhooks: there, trusted, and answering. A pod and a bad object are sent through them as dry runs.
//!
//! Must never leave anything behind: every object it makes is a dry run. Invariant: "answers" means that the injector's own work came
//! back.

use super::codes;
use super::finding::Finding;
use crate::cli::kubernetes::{Cluster, plain};
use fairlead_identity::certificate::{CertificateFacts, certificates_from_pem};
use fairlead_install::inject::PROXY;
use fairlead_install::webhooks::{INJECTOR, VALIDATOR};
use fairlead_install::{DEFAULT_REVISION, Values};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::Api;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A webhook configuration as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Configuration {
    Missing,
    /// Some webhook of it has no `caBundle`.
    NoBundle,
    /// No certificate of a `caBundle` is still good.
    Ended,
    Whole,
}

pub async fn check(cluster: &Cluster, values: &Values) -> Vec<Finding> {
    let mut findings = Vec::new();
    let injector = values.named(INJECTOR);
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let found = api.get_opt(&injector).await.map(|found| {
        let webhooks = found.map(|f| f.webhooks.unwrap_or_default());
        webhooks.map(|all| all.into_iter().map(|w| w.client_config).collect())
    });
    let there = seen(true, &injector, found);
    let good = there.state == super::finding::State::Good;
    findings.push(there);
    if good {
        findings.push(injection(cluster, values).await);
    }
    let validator = values.named(VALIDATOR);
    let api: Api<ValidatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let found = api.get_opt(&validator).await.map(|found| {
        let webhooks = found.map(|f| f.webhooks.unwrap_or_default());
        webhooks.map(|all| all.into_iter().map(|w| w.client_config).collect())
    });
    let there = seen(false, &validator, found);
    let good = there.state == super::finding::State::Good;
    findings.push(there);
    if good {
        findings.push(validation(cluster, values).await);
    }
    findings
}

fn seen(injector: bool, name: &str, found: Result<Option<Vec<WebhookClientConfig>>, kube::Error>) -> Finding {
    match found {
        Ok(found) => judge(injector, name, state(found)),
        Err(e) => Finding::skipped(named(injector).0, plain(&e), "ask as somebody who may"),
    }
}

fn state(found: Option<Vec<WebhookClientConfig>>) -> Configuration {
    let Some(configs) = found else { return Configuration::Missing };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    for config in &configs {
        let Some(bundle) = config.ca_bundle.as_ref().filter(|b| !b.0.is_empty()) else {
            return Configuration::NoBundle;
        };
        let text = String::from_utf8_lossy(&bundle.0);
        let good = certificates_from_pem(&text).is_ok_and(|all| {
            all.iter().filter_map(|der| CertificateFacts::parse(der).ok()).any(|facts| facts.not_after.as_secs() > now)
        });
        if !good {
            return Configuration::Ended;
        }
    }
    Configuration::Whole
}

/// The check, and what is lost without the configuration.
fn named(injector: bool) -> (&'static str, &'static str) {
    match injector {
        true => ("webhook", "no pod is injected"),
        false => ("validation webhook", "bad objects are accepted, and cost themselves"),
    }
}

/// Of the injector, where `injector`; else of the validator.
pub fn judge(injector: bool, name: &str, configuration: Configuration) -> Finding {
    let (check, cost) = named(injector);
    match configuration {
        Configuration::Missing => Finding::bad(
            codes::WEBHOOK_MISSING,
            check,
            format!("webhook configuration {name} is missing: {cost}"),
            "run fairlead install again; pods that started meanwhile are restarted to be injected",
        ),
        Configuration::NoBundle => Finding::bad(
            codes::WEBHOOK_TRUST,
            check,
            format!("webhook configuration {name} has no caBundle: the API server refuses the control plane's answers"),
            "the control plane writes it: look at its log and at the check `rights`",
        ),
        Configuration::Ended => Finding::bad(
            codes::WEBHOOK_TRUST,
            check,
            format!("the caBundle of webhook configuration {name} holds no certificate that is still good"),
            "restart the control plane: it writes a new one",
        ),
        Configuration::Whole => Finding::good(check, format!("{name} is there and has its caBundle")),
    }
}

async fn injection(cluster: &Cluster, values: &Values) -> Finding {
    let mut labels = json!({"sidecar.istio.io/inject": "true"});
    if values.revision != DEFAULT_REVISION {
        labels["istio.io/rev"] = json!(values.revision);
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "fairlead-check-", "namespace": "default", "labels": labels},
        "spec": {"containers": [{"name": "check", "image": "fairlead.dev/check"}]},
    });
    match cluster.create(&pod, true).await {
        Ok(pod) if has_proxy(&pod) => {
            Finding::good("injection", "a pod in namespace default got its proxy (as a dry run)")
        }
        Ok(_) => Finding::bad(
            codes::WEBHOOK_SILENT,
            "injection",
            "a pod that asks for a proxy in namespace default got none",
            "a label of that namespace may forbid it (istio-injection=disabled); else look at the control plane's log",
        ),
        Err(e) => Finding::bad(
            codes::WEBHOOK_SILENT,
            "injection",
            format!("a pod that asks for a proxy is refused: {}", plain(&e)),
            "if it says that the webhook cannot be reached: open port 15017 of the control plane's pods for the API server",
        ),
    }
}

fn has_proxy(pod: &Value) -> bool {
    let lists = ["initContainers", "containers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    lists.flatten().any(|container| container["name"] == PROXY)
}

async fn validation(cluster: &Cluster, values: &Values) -> Finding {
    let mut labels = json!({});
    if values.revision != DEFAULT_REVISION {
        labels["istio.io/rev"] = json!(values.revision);
    }
    let bad = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "fairlead-check", "namespace": "default", "labels": labels},
        "spec": {"hosts": ["fairlead-check.example"], "noSuchField": true},
    });
    match cluster.create(&bad, true).await {
        Err(kube::Error::Api(status)) if status.message.contains("noSuchField") => Finding::good(
            "validation",
            "a bad object is refused, by the diagnostic that names its field (as a dry run)",
        ),
        Ok(_) => Finding::doubtful(
            codes::WEBHOOK_SILENT,
            "validation",
            "a bad object is accepted: the validator did not answer (its failurePolicy is Ignore)",
            "open port 15017 of the control plane's pods for the API server; look at the control plane's log",
        ),
        Err(e) => Finding::skipped("validation", plain(&e), "ask as somebody who may create VirtualServices"),
    }
}
