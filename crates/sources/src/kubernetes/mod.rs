//! A cluster's objects from its API server, as one stream of states: the sibling of a directory.
//!
//! Never interprets an object and never writes one. Invariants: before everything that is there was listed once, the cluster is
//! unknown (or what was kept over a restart), never half of itself; from then on an API server that is away, slow, restarted or
//! forbids something costs changes and never objects; a kind that cannot be read costs itself, unless it says what there is or
//! guards access.

mod cluster;
mod convert;
mod discover;
mod follow;
mod health;
mod kinds;
mod received;
mod tables;
mod timings;

use crate::objects::ClusterObjects;
use cluster::Cluster;
use fairlead_model::{ClusterId, ObjectKey};
use follow::{Change, Follower};
use health::Health;
use kinds::{WATCHED, Watched};
use kube::api::ApiResource;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use timings::Timings;

/// What is watched, and with what.
pub struct KubernetesSource {
    pub client: kube::Client,
    pub cluster: ClusterId,
    /// The system namespace: of `Mesh` and `Peer` objects only those in it are read.
    pub namespace: String,
    /// Good versions of before the start, as [`Keep`] was given them.
    pub kept: Vec<Vec<u8>>,
    /// Who keeps good versions over a restart.
    pub keep: Option<Arc<dyn Keep>>,
    pub timings: Timings,
}

/// Keeps the last good version of each object over a restart.
pub trait Keep: Send + Sync {
    /// A new good version.
    fn keep(&self, key: &ObjectKey, json: Vec<u8>);
    /// The object is gone.
    fn forget(&self, key: &ObjectKey);
}

/// Changes in flight between those who read and the one who keeps tables.
const IN_FLIGHT: usize = 1024;

/// Sends each state when it differs from the one before; ends when the receiver is gone.
pub async fn watch_kubernetes(source: KubernetesSource, states: mpsc::Sender<ClusterObjects>) {
    let KubernetesSource { client, cluster: name, namespace, kept, keep, timings } = source;
    let keeps = keep.is_some();
    let mut cluster = Cluster::new(name.clone(), timings, keep, &kept, Instant::now());
    drop(kept);
    let (health, mut healths) = watch::channel(Health::default());
    let (served, mut serveds) = watch::channel(None);
    let mut around = JoinSet::new();
    around.spawn(health::probe(client.clone(), timings, health));
    around.spawn(discover::discover(client.clone(), timings, cluster.kept_kinds(), served));
    let (changes, mut changed) = mpsc::channel::<(Watched, Change)>(IN_FLIGHT);
    let mut followers = Followers::default();
    let health = healths.clone();
    let start = |watched: &Watched, resource: ApiResource| Follower {
        client: client.clone(),
        cluster: name.clone(),
        namespace: namespace.clone(),
        watched: *watched,
        resource,
        timings,
        keep: keeps,
        health: health.clone(),
        changes: changes.clone(),
    };
    for watched in WATCHED.iter().filter(|w| !w.is_custom()) {
        followers.start(start(watched, watched.resource(watched.kind.versions()[0])));
        cluster.exists(watched.kind);
    }
    loop {
        if let Some(state) = cluster.state(Instant::now())
            && states.send(state).await.is_err()
        {
            return;
        }
        let deadline = cluster.deadline().map(tokio::time::Instant::from_std);
        tokio::select! {
            change = changed.recv() => {
                let Some((watched, change)) = change else { return };
                cluster.take(watched, change, Instant::now());
                let until = tokio::time::Instant::now() + timings.coalesce;
                // The clock is asked too: there may always be something to take.
                while tokio::time::Instant::now() < until
                    && let Ok(Some((watched, change))) = tokio::time::timeout_at(until, changed.recv()).await
                {
                    cluster.take(watched, change, Instant::now());
                }
            }
            Ok(()) = serveds.changed() => {
                let served: Option<discover::Served> = serveds.borrow_and_update().clone();
                let served = served.unwrap_or_default();
                for watched in WATCHED.iter().filter(|w| w.is_custom()) {
                    match served.get(&watched.kind) {
                        Some(resource) if !followers.follows(resource) => {
                            followers.start(start(watched, resource.clone()));
                            cluster.exists(watched.kind);
                        }
                        Some(_) => {}
                        None => {
                            followers.stop(watched);
                            cluster.vanished(watched.kind);
                        }
                    }
                }
                cluster.discovered();
            }
            Ok(()) = healths.changed() => cluster.health(healths.borrow_and_update().clone()),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)), if deadline.is_some() => {}
            () = states.closed() => return,
        }
    }
}

/// The tasks that follow one kind each; they end with this.
#[derive(Default)]
struct Followers {
    running: Vec<(ApiResource, JoinSet<()>)>,
}

impl Followers {
    /// Takes the place of one that follows another version of the kind.
    fn start(&mut self, follower: Follower) {
        self.stop(&follower.watched);
        let resource = follower.resource.clone();
        let mut task = JoinSet::new();
        task.spawn(follower.run());
        self.running.push((resource, task));
    }

    fn follows(&self, resource: &ApiResource) -> bool {
        self.running.iter().any(|(running, _)| running == resource)
    }

    fn stop(&mut self, watched: &Watched) {
        self.running
            .retain(|(running, _)| running.kind != watched.kind.as_str() || running.group != watched.kind.group());
    }
}
