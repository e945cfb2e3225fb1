//! Waiting until a proxy shows a state: `given` holds when the caller's own proxy has taken note of it, not when it was done.
//!
//! What is expected follows from what was broken and where the caller stands; what is, is read from the proxy's `/clusters`.
//! Invariant: waiting ends; a state that does not come is reported with the endpoint that is missing or too many.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::admin::{self, AdminError};
use super::given::State;
use super::lab::{Lab, LabError};
use super::start::rows;

/// A dead cluster leaves rotation within 10 s; a program's health within 10 s of grace; a lease is 15 s.
pub const LONGEST: Duration = Duration::from_secs(40);

/// An endpoint as a proxy holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Envoy cluster.
    pub cluster: String,
    /// `cluster/namespace/name`
    pub workload: String,
    /// It gets requests.
    pub healthy: bool,
    /// How far it has come back: tenths of its weight, 10 when all is well.
    pub tenths: u8,
    /// Outlier detection has put it out.
    pub ejected: bool,
}

/// What a proxy holds, by (Envoy cluster, workload).
pub type Rotation = BTreeMap<(String, String), Held>;

/// A way to a gateway or an endpoint of another cluster, as a proxy sees it.
#[derive(Debug, Deserialize)]
struct Way {
    address: SocketAddr,
    state: String,
}

/// Of the ways of a proxy, those that lead to gateways that are down and are not known to be.
async fn ways(lab: &Lab, one: &Watched, state: &State) -> Vec<String> {
    let told = admin::proxy(lab.handle(), &one.owner, "GET", "/fairlead/paths").await;
    let ways: Vec<Way> = told.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let unnoticed = ways.iter().filter(|way| state.is_dead_entrance(way.address.ip()) && way.state != "down");
    unnoticed.map(|way| format!("{}: its way to {} is {}", one.owner, way.address, way.state)).collect()
}

#[derive(Deserialize)]
struct Clusters {
    cluster_statuses: Vec<ClusterStatus>,
}

#[derive(Deserialize)]
struct ClusterStatus {
    name: String,
    #[serde(default)]
    host_statuses: Vec<Value>,
}

/// Reads a proxy's `/clusters?format=json`.
pub async fn rotation(lab: &Lab, owner: &str) -> Result<Rotation, AdminError> {
    const PATH: &str = "/clusters?format=json";
    let bytes = admin::proxy(lab.handle(), owner, "GET", PATH).await?;
    parse(&bytes).map_err(|reason| AdminError { what: format!("proxy of {owner}: {PATH}"), reason })
}

fn parse(bytes: &[u8]) -> Result<Rotation, String> {
    let clusters: Clusters = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let mut all = Rotation::new();
    for cluster in clusters.cluster_statuses.iter().filter(|c| c.name.starts_with("outbound|")) {
        for host in &cluster.host_statuses {
            let Some(held) = held(&cluster.name, host) else { continue };
            all.insert((held.cluster.clone(), held.workload.clone()), held);
        }
    }
    Ok(all)
}

fn held(cluster: &str, host: &Value) -> Option<Held> {
    let own = &host["fairlead"];
    let text = |name: &str| own[name].as_str().filter(|t| !t.is_empty());
    let workload = format!("{}/{}/{}", text("cluster")?, text("namespace")?, text("workload")?);
    let healthy = matches!(text("state"), Some("healthy" | "degraded"));
    let tenths = own["ramp"].as_f64().map_or(10, |ramp| (ramp * 10.0).round() as u8);
    let ejected = text("state") == Some("ejected");
    Some(Held { cluster: cluster.to_owned(), workload, healthy, tenths, ejected })
}

/// One caller's proxy and what it held while all was well.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Whose proxy: a name of the plan.
    pub owner: String,
    /// Its cluster.
    pub cluster: String,
    /// All that it held.
    pub baseline: BTreeSet<(String, String)>,
}

/// What a proxy may still know of what was broken before: weights that return step by step, ejections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// It may.
    Allowed,
    /// It must not.
    Gone,
}

/// Whether a proxy still knows of what was broken before.
pub async fn remembers(lab: &Lab, one: &Watched) -> bool {
    let rotation = rotation(lab, &one.owner).await.unwrap_or_default();
    rotation.values().any(|held| held.tenths < 10 || held.ejected)
}

/// Waits until these proxies show the state. Gives what was waited for last; the error names what is not so.
pub async fn settle(lab: &Lab, watched: &[Watched], state: &State, memory: Memory) -> Result<Option<String>, LabError> {
    let mut last = None;
    let deadline = Instant::now() + LONGEST + lab.spec().slowest_probe();
    loop {
        let mut wrong = Vec::new();
        for one in watched {
            match rotation(lab, &one.owner).await {
                Ok(rotation) => wrong.extend(differences(one, &rotation, state, memory)),
                Err(e) => wrong.push(e.to_string()),
            }
        }
        for one in watched {
            wrong.extend(ways(lab, one, state).await);
        }
        wrong.extend(streams(lab, watched, state).await);
        wrong.extend(believers(lab, state).await);
        if wrong.is_empty() {
            return Ok(last);
        }
        last = wrong.first().cloned();
        if Instant::now() > deadline {
            wrong.truncate(5);
            return Err(LabError::NotReady(wrong));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What a proxy holds otherwise than the state wants.
pub fn differences(one: &Watched, rotation: &Rotation, state: &State, memory: Memory) -> Vec<String> {
    let mut wrong = Vec::new();
    for (cluster, workload) in &one.baseline {
        // What runs only where all is drained goes on serving.
        let elsewhere = |(other, workload): &(String, String)| other == cluster && !state.is_drained(workload);
        if state.is_drained(workload) && !one.baseline.iter().any(elsewhere) {
            continue;
        }
        let found = rotation.get(&(cluster.clone(), workload.clone()));
        // An ejected endpoint is there: only this proxy will not have it for a while.
        let expected = state.expected(&one.cluster, workload);
        let excused = memory == Memory::Allowed && expected == Some(true);
        let healthy = found.is_some_and(|held| held.healthy || held.ejected && excused);
        if expected.is_some_and(|wanted| wanted != healthy) {
            let word = if healthy { "still gets requests" } else { "is not back" };
            wrong.push(format!("{}: {workload} {word} in {cluster}", one.owner));
        } else if memory == Memory::Gone && expected == Some(true) && found.is_some_and(|held| held.tenths < 10) {
            wrong.push(format!("{}: {workload} does not have its whole share yet in {cluster}", one.owner));
        }
    }
    wrong
}

/// A frozen stream shows at the control plane only.
async fn streams(lab: &Lab, watched: &[Watched], state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    let viewers: BTreeSet<&String> = watched.iter().map(|w| &w.cluster).collect();
    for viewer in viewers.into_iter().filter(|v| !state.control_down(v)) {
        let Ok(listing) = admin::get(&lab.layout().admin(viewer), "/clusters").await else {
            wrong.push(format!("{viewer}/control does not answer"));
            continue;
        };
        for peer in &state.stale {
            let stale = rows(&listing).any(|row| row["cluster"] == peer.as_str() && row["stream"] == "stale");
            if peer != viewer && !stale {
                wrong.push(format!("{viewer}: the stream of {peer} is not stale yet"));
            }
        }
        if state.is_whole() {
            for row in rows(&listing)
                .filter(|row| row["stream"] == "stale" || row["stream"] == "unknown" || row["path"] == "down")
            {
                wrong.push(format!("{viewer}: {} is {} and its path {}", row["cluster"], row["stream"], row["path"]));
            }
        }
    }
    wrong
}

/// Who is revoked is refused by every proxy of the others: what its own proxies hold tells nothing of that.
async fn believers(lab: &Lab, state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    if !state.revokes() {
        return wrong;
    }
    let mut others: Vec<String> = lab.spec().clusters.keys().cloned().collect();
    others.retain(|cluster| !state.is_revoked(cluster) && !state.control_down(cluster));
    for viewer in &others {
        let admin_socket = lab.layout().admin(viewer);
        let listings = (admin::get(&admin_socket, "/clusters").await, admin::get(&admin_socket, "/proxies").await);
        let (Ok(clusters), Ok(proxies)) = listings else {
            wrong.push(format!("{viewer}/control does not answer"));
            continue;
        };
        let believed =
            |row: &&Value| row["state"] != "revoked" && row["cluster"].as_str().is_some_and(|c| state.is_revoked(c));
        wrong.extend(
            rows(&clusters).filter(believed).map(|row| format!("{viewer}: {} is not revoked yet", row["cluster"])),
        );
        let behind = |row: &&Value| row["heldBack"].is_null() && row["generation"] != row["offered"];
        wrong.extend(
            rows(&proxies).filter(behind).map(|row| format!("{viewer}: {} has not heard yet", row["workload"])),
        );
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn clusters_are_read_as_envoy_writes_them() {
        let host = |cluster: &str, state: &str, ramp: f64| json!({"fairlead": {"cluster": cluster, "namespace": "shop", "workload": "a", "state": state, "ramp": ramp}});
        let hosts = [
            host("east", "healthy", 1.0),
            host("north", "ejected", 1.0),
            host("south", "healthy", 0.3),
            host("west", "path-down", 1.0),
        ];
        let text =
            json!({"cluster_statuses": [{"name": "outbound|80||a", "host_statuses": hosts}, {"name": "inbound|80||"}]})
                .to_string();
        let rotation = parse(text.as_bytes()).unwrap();
        let healthy: Vec<_> = rotation.values().map(|h| (h.workload.as_str(), h.healthy, h.tenths)).collect();
        assert_eq!(
            healthy,
            [
                ("east/shop/a", true, 10),
                ("north/shop/a", false, 10),
                ("south/shop/a", true, 3),
                ("west/shop/a", false, 10)
            ]
        );
    }
}
