//! The certificate that the control plane shows its proxies, asked of the port itself through the API server.
//!
//! Judged as a proxy judges it: by the trust that is in the cluster, and by name. Invariant: the check presents nothing itself.

use super::codes;
use super::finding::Finding;
use crate::cli::kubernetes::{Cluster, Kind, control_pods, plain};
use anyhow::Context as _;
use fairlead_identity::verifier::{Expected, PeerVerifier};
use fairlead_identity::{SpiffeId, TrustBundleSet, VerifyError, tls};
use fairlead_install::{NAMESPACE, Values};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use std::sync::Arc;
use std::time::Duration;

const PORT: u16 = 15012;
const PATIENCE: Duration = Duration::from_secs(5);

/// `serving`: where the control plane's pods are.
pub async fn check(cluster: &Cluster, serving: &Cluster, values: &Values) -> Vec<Finding> {
    let trust = match trust(cluster).await {
        Ok(trust) => trust,
        Err(e) => {
            let remedy = "the control plane writes it into every namespace: look at its log";
            return vec![Finding::bad(codes::TRUST_MISSING, "trust", format!("{e:#}"), remedy)];
        }
    };
    let mut findings = vec![Finding::good("trust", format!("ConfigMap {NAMESPACE}/fairlead-trust can be read"))];
    let pods = match control_pods(serving).await {
        Ok(pods) => pods,
        Err(e) => {
            findings.push(Finding::skipped("certificate", format!("{e:#}"), "see above"));
            return findings;
        }
    };
    for pod in pods {
        let asked = tokio::time::timeout(PATIENCE, handshake(serving, &pod, values, Arc::clone(&trust)));
        findings.push(match asked.await {
            Ok(Ok(())) => Finding::good(
                "certificate",
                format!("{pod} shows {}, by a root of this cluster", values.control_identity()),
            ),
            Ok(Err(e)) => refused(&pod, &e),
            Err(_) => Finding::bad(
                codes::NO_TLS,
                "certificate",
                format!("{pod}: no TLS within {} s on port {PORT}", PATIENCE.as_secs()),
                "look at its log",
            ),
        });
    }
    findings
}

fn refused(pod: &str, error: &anyhow::Error) -> Finding {
    let why = error.chain().find_map(|e| VerifyError::find_io(e.downcast_ref::<std::io::Error>()?));
    let reason = why.as_ref().map_or("", VerifyError::reason);
    let message = format!("{pod}: {error:#}");
    match reason {
        "foreign-root" | "unknown-trust-domain" | "wrong-domain-root" | "bad-chain" => Finding::bad(
            codes::WRONG_ROOT,
            "certificate",
            format!("wrong root: {message}"),
            "the root of the control plane is not the one in fairlead-trust: if a CA was exchanged, restart the control plane, then the pods",
        ),
        "expired" | "not-yet-valid" => Finding::bad(
            codes::CERTIFICATE,
            "certificate",
            message,
            "compare the clocks of this machine and of the nodes (check `clock`)",
        ),
        "" => Finding::bad(
            codes::NO_TLS,
            "certificate",
            message,
            "proxies cannot connect either: look at the control plane's log",
        ),
        _ => Finding::bad(
            codes::CERTIFICATE,
            "certificate",
            message,
            "the trust domain that was installed is not the control plane's: run fairlead install again",
        ),
    }
}

async fn trust(cluster: &Cluster) -> anyhow::Result<Arc<TrustBundleSet>> {
    let found = cluster.get(&Kind::new("v1", "ConfigMap"), Some(NAMESPACE), "fairlead-trust").await?;
    let found = found.with_context(|| format!("ConfigMap {NAMESPACE}/fairlead-trust is not there"))?;
    let text = found["data"]["bundles.json"].as_str().context("ConfigMap fairlead-trust has no bundles.json")?;
    Ok(Arc::new(TrustBundleSet::from_json(text).map_err(|e| anyhow::anyhow!("fairlead-trust holds no bundles: {e}"))?))
}

async fn handshake(cluster: &Cluster, pod: &str, values: &Values, trust: Arc<TrustBundleSet>) -> anyhow::Result<()> {
    let expected: SpiffeId = values.control_identity().parse().map_err(|e| anyhow::anyhow!("{e}"))?;
    let verifier = PeerVerifier::new(Arc::new(move || Arc::clone(&trust)), Expected::one(expected));
    let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
    let config = tls::client_config(None, verifier, &clock, &[b"h2"]).context("TLS")?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.control);
    let mut forward =
        pods.portforward(pod, &[PORT]).await.map_err(|e| anyhow::anyhow!("cannot forward a port: {}", plain(&e)))?;
    let stream = forward.take_stream(PORT).context("no stream to the port")?;
    let name = rustls::pki_types::ServerName::try_from("fairlead-control").context("name")?;
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.context("the handshake failed")?;
    Ok(())
}
