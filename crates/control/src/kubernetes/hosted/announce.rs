//! Tells a remote cluster where its control plane is: the EndpointSlices behind Service `fairlead-control` there, and peers likewise.
//!
//! Invariant: what the Service in the primary says is in the remote a moment later, and comes back if somebody deletes it.

use super::door::{Door, is_on_nodes, slice};
use super::{Hosting, SERVICE};
use crate::kubernetes::lease::Leadership;
use fairlead_install::control::{CONTROL, PEERING};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Names and nodes are looked up again, and slices that were deleted written, after this.
const AGAIN: Duration = Duration::from_secs(20);
/// One question.
const LIMIT: Duration = Duration::from_secs(5);
const MANAGER: &str = "fairlead-control";

impl Hosting {
    /// For ever.
    pub(super) async fn announce(&self, mut leadership: Leadership) {
        let home: Api<Service> = Api::namespaced(self.home.client.clone(), &self.home.namespace);
        let named = watcher::Config::default().fields(&format!("metadata.name={PEERING}"));
        let mut services = std::pin::pin!(watcher(home, named).default_backoff());
        let mut again = tokio::time::interval(AGAIN);
        let mut service: Option<Service> = None;
        let mut families = BTreeSet::from([false]);
        let mut told = String::new();
        loop {
            tokio::select! {
                Some(event) = services.next() => match event {
                    Ok(Event::Apply(now) | Event::InitApply(now)) => service = Some(now),
                    _ => continue,
                },
                _ = again.tick() => {}
                () = leadership.gained(), if !leadership.holds() => {}
            }
            let Some(service) = &service else { continue };
            let problem = self.tell(service, &leadership, &mut families).await.err().unwrap_or_default();
            if problem != told {
                if !problem.is_empty() {
                    tracing::warn!(
                        cluster = self.cluster,
                        "the remote is not told where its control plane is: {problem}"
                    );
                }
                told = problem;
            }
        }
    }

    async fn tell(
        &self,
        service: &Service,
        leadership: &Leadership,
        families: &mut BTreeSet<bool>,
    ) -> Result<(), String> {
        let nodes = if is_on_nodes(service) { self.nodes().await? } else { Vec::new() };
        let door = Door::of(service, &nodes);
        if door.hosts.is_empty() {
            // What it was told before may still be right.
            return Err(format!("Service {}/{PEERING} has no address yet", self.home.namespace));
        }
        self.door.send_if_modified(|held| {
            let is_new = held.as_ref() != Some(&door);
            if is_new {
                *held = Some(door.clone());
            }
            is_new
        });
        if !leadership.holds() {
            return Ok(());
        }
        let addresses = addresses(&door).await;
        if addresses.is_empty() {
            return Err(format!("no address is known of {}", door.hosts.join(", ")));
        }
        families.extend(addresses.iter().map(IpAddr::is_ipv6));
        let slices: Api<EndpointSlice> = Api::namespaced(self.remote.clone(), &self.namespace);
        let params = PatchParams::apply(MANAGER).force();
        for v6 in families.iter() {
            let wanted = slice(CONTROL, &self.namespace, *v6, &addresses, &door);
            let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let patch = Patch::Apply(&wanted);
            let write =
                async { tokio::time::timeout(LIMIT, slices.patch(&name, &params, &patch)).await.map_err(|_| silent()) };
            match leadership.while_held(write).await {
                None => return Ok(()),
                Some(written) => drop(written?.map_err(|e| format!("EndpointSlice {name}: {e}"))?),
            }
        }
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>, String> {
        let nodes: Api<Node> = Api::all(self.home.client.clone());
        let params = ListParams::default();
        let listed = tokio::time::timeout(LIMIT, nodes.list(&params)).await.map_err(|_| silent())?;
        listed.map(|list| list.items).map_err(|e| format!("nodes: {e}"))
    }

    /// Where peers dial, as long as that is known.
    pub fn advertised(&self) -> Option<Vec<String>> {
        self.door.borrow().as_ref().map(|door| door.at(SERVICE))
    }
}

fn silent() -> String {
    "no answer in 5 s".into()
}

/// Of the hosts; names are looked up.
async fn addresses(door: &Door) -> BTreeSet<IpAddr> {
    let mut all = BTreeSet::new();
    for host in &door.hosts {
        match host.parse() {
            Ok(address) => drop(all.insert(address)),
            Err(_) => {
                let found = tokio::time::timeout(LIMIT, tokio::net::lookup_host((host.as_str(), 0))).await;
                all.extend(found.into_iter().flatten().flatten().map(|a| a.ip()));
            }
        }
    }
    all
}
