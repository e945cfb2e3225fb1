//! The API server: reachable, of a version we know, with our clock; and what an earlier installation left.
//!
//! Invariant: asks nothing that needs rights beyond reading.

use super::finding::Finding;
use super::{codes, inside};
use crate::cli::kubernetes::{Cluster, Kind, names, plain};
use fairlead_install::NAMESPACE;
use fairlead_install::control::CONTROL;
use fairlead_install::object::PART_OF;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Minor versions of Kubernetes 1 that Fairlead is made for.
const MINORS: std::ops::RangeInclusive<u32> = 33..=37;
/// The findings, and whether it answers at all.
pub async fn check(cluster: &Cluster) -> (Vec<Finding>, bool) {
    let version = match cluster.client.apiserver_version().await {
        Ok(version) => version,
        Err(e) => {
            let remedy = "look at the server and certificate of this context in the kubeconfig, and at the way there";
            return (vec![Finding::bad(codes::API_UNREACHABLE, "api", plain(&e), remedy)], false);
        }
    };
    let mut findings = vec![
        Finding::good("api", "the API server answers"),
        judge_version(&version.major, &version.minor, &version.git_version),
    ];
    match date(cluster).await {
        Some(theirs) => findings.push(judge_clock(theirs, now())),
        None => findings.push(Finding::skipped(
            "clock",
            "the API server says no time",
            "compare `date` on its node with here",
        )),
    }
    (findings, true)
}

pub fn judge_version(major: &str, minor: &str, text: &str) -> Finding {
    let number = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    match number.filter(|n| major == "1" && MINORS.contains(n)) {
        Some(n) => Finding::good("kubernetes version", format!("{major}.{n} ({text})")),
        None => Finding::bad(
            codes::KUBERNETES_VERSION,
            "kubernetes version",
            format!("{major}.{minor} ({text}) is outside of 1.{} to 1.{}", MINORS.start(), MINORS.end()),
            "use a cluster of one of these versions",
        ),
    }
}

async fn date(cluster: &Cluster) -> Option<i64> {
    let request = hyper::Request::get("/version").body(kube::client::Body::empty()).ok()?;
    let response = cluster.client.send(request).await.ok()?;
    let text = response.headers().get(hyper::header::DATE)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second())
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

pub fn judge_clock(theirs: i64, ours: i64) -> Finding {
    let ahead = theirs - ours;
    let good = || Finding::good("clock", format!("the API server's is {ahead} s ahead of this machine's"));
    inside::clock(ahead, "the API server").unwrap_or_else(good)
}

/// What an earlier installation, or Istio, left that would be in the way.
pub async fn leftovers(cluster: &Cluster, flags: &str) -> Vec<Finding> {
    match search(cluster, flags).await {
        Ok(findings) if findings.is_empty() => vec![Finding::good("leftovers", "none")],
        Ok(findings) => findings,
        Err(e) => vec![Finding::bad(
            codes::LEFTOVERS,
            "leftovers",
            format!("{e:#}"),
            "look with the rights of a cluster administrator",
        )],
    }
}

async fn search(cluster: &Cluster, flags: &str) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let ours = format!("{PART_OF}=fairlead");
    let control =
        cluster.list(&Kind::new("apps/v1", "Deployment"), Some(NAMESPACE), &format!("{ours},istio.io/rev")).await?;
    if !control.is_empty() {
        let named: Vec<_> = control.iter().map(|o| names(o).1).collect();
        let remedy = "fairlead install changes it; --revision installs another beside it";
        findings.push(Finding::doubtful(
            codes::LEFTOVERS,
            "leftovers",
            format!("installed already: {}", named.join(", ")),
            remedy,
        ));
        return Ok(findings);
    }
    if let Some(namespace) = cluster.get(&Kind::new("v1", "Namespace"), None, NAMESPACE).await? {
        let leaving = !namespace["metadata"]["deletionTimestamp"].is_null();
        let (what, remedy) = match leaving {
            true => ("is being deleted", "wait until it is gone".to_owned()),
            false => (
                "exists, and no control plane in it",
                format!("fairlead uninstall{flags}, unless you made it yourself"),
            ),
        };
        findings.push(Finding::doubtful(
            codes::LEFTOVERS,
            "leftovers",
            format!("namespace {NAMESPACE} {what}"),
            remedy,
        ));
    }
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let kind = Kind::new("admissionregistration.k8s.io/v1", kind);
        for object in cluster.list(&kind, None, "").await? {
            let name = names(&object).1;
            if object["metadata"]["labels"][PART_OF] == "fairlead" {
                let what = format!("{} {name} points at a {CONTROL} that is not there: pods are refused", kind.kind);
                findings.push(Finding::bad(codes::LEFTOVERS, "leftovers", what, format!("fairlead uninstall{flags}")));
            } else if injects_for_istio(&object) {
                let what = format!("{} {name} injects Istio's sidecar for the same labels", kind.kind);
                let remedy = "label namespaces for one of the two: istio.io/rev=REVISION names it";
                findings.push(Finding::doubtful(codes::LEFTOVERS, "leftovers", what, remedy));
            }
        }
    }
    Ok(findings)
}

fn injects_for_istio(object: &Value) -> bool {
    let webhooks = object["webhooks"].as_array().into_iter().flatten();
    webhooks.filter_map(|w| w["name"].as_str()).any(|name| name.ends_with("sidecar-injector.istio.io"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn versions_are_known_or_refused() {
        for (minor, state) in [
            ("33", State::Good),
            ("35+", State::Good),
            ("37", State::Good),
            ("32", State::Bad),
            ("38", State::Bad),
            ("x", State::Bad),
        ] {
            assert_eq!(judge_version("1", minor, "v").state, state, "{minor}");
        }
        assert_eq!(judge_version("2", "33", "v").state, State::Bad);
    }

    #[test]
    fn clocks_differ_by_a_minute_at_most() {
        assert_eq!(judge_clock(1060, 1000).state, State::Good);
        assert_eq!(judge_clock(939, 1000).state, State::Bad);
        assert!(judge_clock(2000, 1000).message.contains("1000 s ahead"));
        assert!(judge_clock(0, 1000).message.contains("1000 s behind"));
    }
}
