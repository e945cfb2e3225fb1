//! Waiting until what was applied serves, saying what is waited for.
//!
//! Invariant: a line is printed when the reason changes, and only then.

use crate::cli::kubernetes::{Cluster, Kind, names, trouble};
use fairlead_install::{NAMESPACE, crds};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

pub struct Wait<'a> {
    cluster: &'a Cluster,
    started: Instant,
    timeout: Duration,
}

impl<'a> Wait<'a> {
    pub fn new(cluster: &'a Cluster, timeout: Duration) -> Self {
        Self { cluster, started: Instant::now(), timeout }
    }

    /// Whether nothing is waited for.
    pub fn is_off(&self) -> bool {
        self.timeout.is_zero()
    }

    /// Until every definition is served; later objects need that even when nobody waits.
    pub async fn established(&self) -> anyhow::Result<bool> {
        let kind = Kind::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let least = Duration::from_secs(20).max(self.timeout);
        self.until("definitions", least, async || {
            for name in crds::names() {
                let found = self.cluster.get(&kind, None, name).await?.unwrap_or_default();
                let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
                if !conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
                    return Ok(Some(format!("{name} is not served yet")));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Until a Deployment in the control plane's namespace has all its replicas, of its present version, available.
    pub async fn deployment(&self, name: &str) -> anyhow::Result<bool> {
        self.wait(name, async || {
            let kind = Kind::new("apps/v1", "Deployment");
            let Some(found) = self.cluster.get(&kind, Some(&self.cluster.control), name).await? else {
                return Ok(Some("the Deployment is gone".into()));
            };
            let count = |path: &Value| path.as_u64().unwrap_or(0);
            let (wanted, status) = (count(&found["spec"]["replicas"]), &found["status"]);
            let current = count(&status["observedGeneration"]) >= count(&found["metadata"]["generation"]);
            let good = [&status["updatedReplicas"], &status["availableReplicas"], &status["replicas"]];
            if current && good.into_iter().all(|n| count(n) == wanted) {
                return Ok(None);
            }
            Ok(Some(self.reason(&found).await?))
        })
        .await
    }

    /// Until a DaemonSet in our namespace is ready on every node.
    pub async fn daemon_set(&self, name: &str) -> anyhow::Result<bool> {
        self.wait(name, async || {
            let kind = Kind::new("apps/v1", "DaemonSet");
            let Some(found) = self.cluster.get(&kind, Some(NAMESPACE), name).await? else {
                return Ok(Some("the DaemonSet is gone".into()));
            };
            let (status, count) = (&found["status"], |path: &Value| path.as_u64().unwrap_or(0));
            let current = count(&status["observedGeneration"]) >= count(&found["metadata"]["generation"]);
            let wanted = count(&status["desiredNumberScheduled"]);
            if current && count(&status["numberReady"]) == wanted && count(&status["updatedNumberScheduled"]) == wanted
            {
                return Ok(None);
            }
            Ok(Some(self.reason(&found).await?))
        })
        .await
    }

    async fn reason(&self, deployment: &Value) -> anyhow::Result<String> {
        let labels = deployment["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
        let selector: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        let namespace = deployment["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
        let pods = self.cluster.list(&Kind::new("v1", "Pod"), Some(namespace), &selector.join(",")).await?;
        if let Some(first) = trouble(&pods).first() {
            return Ok(format!("pod {}: {}", first.pod, first.reason));
        }
        let conditions = deployment["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let failure = conditions.iter().find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True");
        Ok(match failure {
            Some(c) => format!("no pod can be made: {}", c["message"].as_str().unwrap_or_default()),
            None => "its pods are being made".into(),
        })
    }

    /// Until an object that the control plane writes is there, in our namespace.
    pub async fn object(&self, kind: &Kind, name: &str) -> anyhow::Result<bool> {
        self.wait(name, async || {
            let there = self.cluster.get(kind, Some(NAMESPACE), name).await?.is_some();
            Ok((!there).then(|| format!("the control plane has not written {} {NAMESPACE}/{name} yet", kind.kind)))
        })
        .await
    }

    /// Until a Service without selector leads somewhere.
    pub async fn slice(&self, service: &str) -> anyhow::Result<bool> {
        self.wait(service, async || {
            let (kind, of) = (Kind::new("discovery.k8s.io/v1", "EndpointSlice"), "kubernetes.io/service-name");
            let all = self.cluster.list(&kind, Some(NAMESPACE), &format!("{of}={service}")).await?;
            let leads = all.iter().any(|slice| slice["endpoints"].as_array().is_some_and(|all| !all.is_empty()));
            Ok((!leads).then(|| {
                format!(
                    "Service {service} leads nowhere yet: its control plane's Service in the primary needs an address"
                )
            }))
        })
        .await
    }

    /// Until the control plane has put its certificate's issuer into a webhook configuration.
    pub async fn answered(&self, configuration: &Value) -> anyhow::Result<bool> {
        let (kind, name) = (Kind::of(configuration)?, names(configuration).1);
        self.wait(name, async || {
            let found = self.cluster.get(&kind, None, name).await?.unwrap_or_default();
            let webhooks = found["webhooks"].as_array().cloned().unwrap_or_default();
            let filled = |w: &Value| w["clientConfig"]["caBundle"].as_str().is_some_and(|b| !b.is_empty());
            Ok((!webhooks.iter().all(filled))
                .then(|| format!("the control plane has not put its caBundle into {name} yet")))
        })
        .await
    }

    async fn wait(&self, what: &str, look: impl AsyncFn() -> anyhow::Result<Option<String>>) -> anyhow::Result<bool> {
        if self.is_off() {
            return Ok(true);
        }
        self.until(what, self.timeout, look).await
    }

    async fn until(
        &self,
        what: &str,
        timeout: Duration,
        look: impl AsyncFn() -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<bool> {
        let mut said = String::new();
        loop {
            let Some(reason) = look().await? else {
                if !said.is_empty() {
                    println!("  {what}: done after {:.1} s", self.started.elapsed().as_secs_f32());
                }
                return Ok(true);
            };
            if reason != said {
                println!("  waiting for {what}: {reason}");
                said = reason;
            }
            if self.started.elapsed() > timeout {
                eprintln!("fairlead: gave up on {what} after {} s: {said}", timeout.as_secs());
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
