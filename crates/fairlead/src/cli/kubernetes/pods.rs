//! Pods of an installation: which are ready, and what keeps the others.
//!
//! Invariant: a pod that is not ready is named with a reason, the kubelet's or scheduler's own where there is one.

use super::{Cluster, Kind};
use anyhow::bail;
use fairlead_install::NAMESPACE;
use fairlead_install::control::CONTROL;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// Why a pod is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTrouble {
    pub pod: String,
    pub reason: String,
}

/// Names of the ready pods of the control plane, of every revision.
pub async fn control_pods(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let pods = cluster.list(&Kind::new("v1", "Pod"), Some(&cluster.control), &format!("app={CONTROL}")).await?;
    let ready: Vec<String> = pods.iter().filter(|p| is_ready(p)).map(name).collect();
    if ready.is_empty() {
        let why = trouble(&pods);
        match why.first() {
            Some(first) => {
                bail!("cluster {}: control plane pod {} is not ready: {}", cluster.name, first.pod, first.reason)
            }
            None => bail!(
                "cluster {}: no control plane in namespace {}; install one: fairlead install --context {} --cluster NAME",
                cluster.name,
                cluster.control,
                cluster.name
            ),
        }
    }
    Ok(ready)
}

/// Waits until our namespace has no pod with these labels.
pub async fn no_pods(cluster: &Cluster, labels: &str, timeout: Duration) -> anyhow::Result<()> {
    no_pods_in(cluster, NAMESPACE, labels, timeout).await
}

/// Waits until a namespace has no pod with these labels.
pub async fn no_pods_in(cluster: &Cluster, namespace: &str, labels: &str, timeout: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    while !cluster.list(&Kind::new("v1", "Pod"), Some(namespace), labels).await?.is_empty() {
        if started.elapsed() > timeout {
            let seconds = timeout.as_secs();
            bail!("pods ({labels}) are still there after {seconds} s; see kubectl get pods -n {namespace} -l {labels}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

/// What keeps these pods; those that are ready or on their way out are left out.
pub fn trouble(pods: &[Value]) -> Vec<PodTrouble> {
    pods.iter()
        .filter(|p| !is_ready(p) && p["metadata"]["deletionTimestamp"].is_null())
        .map(|p| PodTrouble { pod: name(p), reason: reason(p) })
        .collect()
}

fn reason(pod: &Value) -> String {
    if let Some(scheduled) = condition(pod, "PodScheduled").filter(|c| c["status"] == "False") {
        return format!("not scheduled: {}", text(&scheduled["message"]));
    }
    let statuses = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|list| pod["status"][list].as_array())
        .flatten();
    for status in statuses {
        let container = text(&status["name"]);
        let waiting = &status["state"]["waiting"];
        let last = &status["lastState"]["terminated"];
        let ended = |t: &Value| format!("exit code {}{}", t["exitCode"], note(&t["message"]));
        match text(&waiting["reason"]).as_str() {
            "" => {}
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                let image = text(&status["image"]);
                return format!(
                    "image {image} cannot be pulled ({}); push it where nodes find it, or name another with --image",
                    text(&waiting["message"])
                );
            }
            "CrashLoopBackOff" => {
                return format!("container {container} ends at once: {}; see kubectl logs -p", ended(last));
            }
            "ContainerCreating" | "PodInitializing" => return "its containers are being created".into(),
            other => return format!("container {container}: {other}{}", note(&waiting["message"])),
        }
        if !status["state"]["terminated"].is_null() && status["ready"] != true {
            return format!("container {container} ended: {}", ended(&status["state"]["terminated"]));
        }
        if status["ready"] == false && !status["state"]["running"].is_null() {
            let restarts = status["restartCount"].as_u64().unwrap_or(0);
            let again = if restarts > 0 {
                format!(" (restarted {restarts} times, last: {})", ended(last))
            } else {
                String::new()
            };
            return format!("container {container} runs and does not say that it is ready yet{again}");
        }
    }
    format!("phase {}", text(&pod["status"]["phase"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn note(value: &Value) -> String {
    value.as_str().filter(|t| !t.is_empty()).map(|t| format!(", {}", t.trim())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: Value) -> Value {
        json!({"metadata": {"name": "p"}, "status": status})
    }

    #[test]
    fn reasons_are_those_of_the_scheduler_and_the_kubelet() {
        let of = |status: Value| trouble(&[pod(status)]).first().map(|t| t.reason.clone());
        let condition =
            |kind: &str, status: &str| json!([{"type": kind, "status": status, "message": "0/1 nodes are available"}]);
        assert_eq!(of(json!({"conditions": condition("Ready", "True")})), None);
        assert_eq!(
            of(json!({"conditions": condition("PodScheduled", "False")})).unwrap(),
            "not scheduled: 0/1 nodes are available"
        );
        let waiting = |reason: &str| {
            json!({"containerStatuses": [{"name": "control", "image": "x:1", "ready": false,
            "state": {"waiting": {"reason": reason, "message": "not found"}},
            "lastState": {"terminated": {"exitCode": 2}}}]})
        };
        assert!(of(waiting("ImagePullBackOff")).unwrap().starts_with("image x:1 cannot be pulled (not found)"));
        assert_eq!(
            of(waiting("CrashLoopBackOff")).unwrap(),
            "container control ends at once: exit code 2; see kubectl logs -p"
        );
        let running = json!({"containerStatuses": [{"name": "control", "ready": false, "restartCount": 0, "state": {"running": {}}}]});
        assert_eq!(of(running).unwrap(), "container control runs and does not say that it is ready yet");
    }

    #[test]
    fn a_pod_that_goes_away_is_no_trouble() {
        let leaving = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {}});
        assert_eq!(trouble(&[leaving]), []);
    }
}
