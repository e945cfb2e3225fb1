//! What a caller's proxy holds of its destinations: read from its admin interface.
//!
//! Invariant: a state holds when the caller's own proxy shows it, not when it was made.

use super::inside::Pod;
use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeMap;

/// An endpoint as a proxy holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// It gets requests.
    pub healthy: bool,
    /// It has all of its weight back.
    pub whole: bool,
}

/// By Envoy cluster and `cluster/namespace/workload`.
pub type Rotation = BTreeMap<(String, String), Held>;

/// What the proxy in a pod holds.
pub fn rotation(pod: &Pod) -> anyhow::Result<Rotation> {
    parse(&pod.admin("GET", "/clusters?format=json")?)
}

fn parse(text: &str) -> anyhow::Result<Rotation> {
    let told: Value = serde_json::from_str(text).context("/clusters is no JSON")?;
    let mut all = Rotation::new();
    for cluster in told["cluster_statuses"].as_array().into_iter().flatten() {
        let Some(name) = cluster["name"].as_str().filter(|name| name.starts_with("outbound|")) else { continue };
        for host in cluster["host_statuses"].as_array().into_iter().flatten() {
            let own = &host["fairlead"];
            let part = |field: &str| own[field].as_str().filter(|text| !text.is_empty());
            let (Some(of), Some(namespace), Some(workload)) = (part("cluster"), part("namespace"), part("workload"))
            else {
                continue;
            };
            let healthy = matches!(part("state"), Some("healthy" | "degraded"));
            let whole = own["ramp"].as_f64().is_none_or(|ramp| ramp > 0.95);
            all.insert((name.to_owned(), format!("{of}/{namespace}/{workload}")), Held { healthy, whole });
        }
    }
    Ok(all)
}

/// What is not as it was when all was well.
pub fn not_whole(now: &Rotation, before: &Rotation) -> Vec<String> {
    let wanted = before.iter().filter(|(_, held)| held.healthy).map(|(key, _)| key);
    wanted
        .filter(|key| !now.get(*key).is_some_and(|held| held.healthy && held.whole))
        .map(|key| format!("{} in {}", key.1, key.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_returns_is_not_whole_yet() {
        let text = |state: &str, ramp: f64| {
            serde_json::json!({"cluster_statuses": [{"name": "outbound|80||web", "host_statuses": [
                {"fairlead": {"cluster": "west", "namespace": "app", "workload": "web-0", "state": state, "ramp": ramp}}]}]})
            .to_string()
        };
        let before = parse(&text("healthy", 1.0)).unwrap();
        assert_eq!(not_whole(&before, &before), Vec::<String>::new());
        for (state, ramp) in [("healthy", 0.3), ("path-down", 1.0)] {
            assert_eq!(not_whole(&parse(&text(state, ramp)).unwrap(), &before).len(), 1);
        }
    }
}
