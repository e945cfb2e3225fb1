//! Addresses behind the names of DNS Envoy clusters (STRICT_DNS, LOGICAL_DNS), looked up again and again.
//!
//! One small task a name asks and tells the conductor; nothing waits for it. Invariant: a name that cannot be looked up keeps
//! the addresses it had, and equal answers give the very same endpoints, so that nothing is rebuilt for them.

use super::conductor::Command;
use crate::dns::{Upstreams, lookup};
use ahash::AHashMap;
use fairlead_engine::Snapshot;
use fairlead_engine::upstream::{ClusterKind, Endpoints, EnvoyCluster};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

/// What is known of names.
#[derive(Default)]
pub struct Names {
    known: AHashMap<Arc<str>, Known>,
    /// Endpoints made of names, by Envoy cluster, with what they were made of.
    made: AHashMap<Arc<str>, (Arc<Endpoints>, Arc<Endpoints>)>,
}

struct Known {
    addresses: Vec<IpAddr>,
    asking: JoinHandle<()>,
}

impl Names {
    /// Looks up the names that a snapshot has, from now on and every refresh; forgets those it has no more.
    pub fn watch(&mut self, snapshot: &Snapshot, upstreams: &Upstreams, commands: &UnboundedSender<Command>) {
        let mut before = std::mem::take(&mut self.known);
        for cluster in snapshot.clusters() {
            let ClusterKind::Dns { endpoints, or_v6, refresh, .. } = &cluster.kind else { continue };
            for name in endpoints.names() {
                if self.known.contains_key(name) {
                    continue;
                }
                let known = before.remove(name).unwrap_or_else(|| Known {
                    addresses: Vec::new(),
                    asking: tokio::spawn(ask(name.clone(), *or_v6, *refresh, upstreams.clone(), commands.clone())),
                });
                self.known.insert(name.clone(), known);
            }
        }
        for gone in before.into_values() {
            gone.asking.abort();
        }
        self.made.retain(|cluster, _| snapshot.cluster(cluster).is_some());
    }

    /// Takes an answer; `true` when the addresses are others now.
    pub fn learn(&mut self, name: &str, addresses: Vec<IpAddr>) -> bool {
        let Some(known) = self.known.get_mut(name) else { return false };
        let changed = known.addresses != addresses;
        known.addresses = addresses;
        changed
    }

    /// The endpoints of an Envoy cluster with addresses in the place of names.
    pub fn endpoints(&mut self, snapshot: &Snapshot, cluster: &EnvoyCluster) -> Arc<Endpoints> {
        let ClusterKind::Dns { endpoints, first_only, .. } = &cluster.kind else {
            return snapshot.endpoints_of(cluster).cloned().unwrap_or_default();
        };
        let known = &self.known;
        let resolved = endpoints.resolved(*first_only, |name| known.get(name).map_or(&[], |known| &known.addresses));
        if let Some((of, made)) = self.made.get(&cluster.name)
            && Arc::ptr_eq(of, endpoints)
            && made.iter().map(|e| &e.key).eq(resolved.iter().map(|e| &e.key))
        {
            return made.clone();
        }
        let made = Arc::new(resolved);
        self.made.insert(cluster.name.clone(), (endpoints.clone(), made.clone()));
        made
    }
}

async fn ask(name: Arc<str>, or_v6: bool, refresh: Duration, upstreams: Upstreams, commands: UnboundedSender<Command>) {
    loop {
        if let Some(addresses) = lookup(&upstreams, &name, or_v6).await
            && commands.send(Command::Resolved { name: name.clone(), addresses }).is_err()
        {
            // The conductor has ended.
            return;
        }
        tokio::time::sleep(refresh).await;
    }
}
