//! Streams to the peers: one client for each other member, kept while it is one.
//!
//! Invariant: a peer is dialled with our control identity and believed only as the control plane of its own trust domain.

use crate::authority::{Authority, now};
use crate::dial;
use crate::event::Event;
use crate::keeper::Keeper;
use crate::store::Bucket;
use fairlead_identity::{Member, SpiffeId};
use fairlead_model::ClusterId;
use fairlead_peering::{KINDS, Receiver};
use fairlead_xds::client::{Client, ClientConfig, Saved, client};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What a peer told is kept this long after it came: changes come in bursts.
const KEEP_AFTER: Duration = Duration::from_millis(300);

pub struct Peers {
    authority: Arc<Authority>,
    keeper: Arc<Keeper>,
    events: mpsc::UnboundedSender<Event>,
    links: BTreeMap<String, Link>,
}

struct Link {
    addresses: Vec<String>,
    identity: SpiffeId,
    /// Dropping it ends the client.
    _client: Client,
    tasks: Vec<AbortHandle>,
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Peers {
    pub fn new(authority: Arc<Authority>, keeper: Arc<Keeper>, events: mpsc::UnboundedSender<Event>) -> Self {
        Self { authority, keeper, events, links: BTreeMap::new() }
    }

    /// Opens links to new members and closes those to former ones.
    pub fn follow(&mut self, members: &[Member]) {
        self.links.retain(|cluster, link| {
            members.iter().any(|m| {
                m.cluster == *cluster
                    && m.control_addresses == link.addresses
                    && m.trust_domain().control() == link.identity
            })
        });
        for member in members {
            if !member.control_addresses.is_empty() && !self.links.contains_key(&member.cluster) {
                let link = self.link(member);
                self.links.insert(member.cluster.clone(), link);
            }
        }
    }

    fn link(&self, member: &Member) -> Link {
        let cluster = ClusterId::from(member.cluster.clone());
        let identity = member.trust_domain().control();
        let connect = dial::control_plane(self.authority.clone(), identity.clone());
        let (updates, mut told) = mpsc::unbounded_channel();
        let receiver = Receiver::new(cluster.clone(), || now().as_secs().cast_signed(), updates);
        let mut config = ClientConfig::new(member.control_addresses.clone()).node_id(self.authority.ca().cluster());
        if let Some(saved) = self.saved(&member.cluster) {
            config = config.saved(saved);
        }
        let (handle, run) = client(config, connect, receiver);
        for kind in KINDS {
            handle.subscribe_all(kind.url());
        }
        let events = self.events.clone();
        let forward = tokio::spawn(async move {
            while let Some(update) = told.recv().await {
                let _ = events.send(Event::Peer(update));
            }
        });
        let (events, mut status, watched) = (self.events.clone(), handle.status(), cluster.clone());
        let watch = tokio::spawn(async move {
            let mut connected = None;
            loop {
                let now = status.borrow_and_update().server.is_some();
                if connected != Some(now) {
                    connected = Some(now);
                    let _ = events.send(Event::PeerLink { cluster: watched.clone(), connected: now });
                }
                if status.changed().await.is_err() {
                    return;
                }
            }
        });
        let keep = tokio::spawn(keep(handle.clone(), self.keeper.clone(), member.cluster.clone()));
        let tasks =
            vec![tokio::spawn(run).abort_handle(), forward.abort_handle(), watch.abort_handle(), keep.abort_handle()];
        Link { addresses: member.control_addresses.clone(), identity, _client: handle, tasks }
    }

    /// What the stream before a restart had told.
    fn saved(&self, cluster: &str) -> Option<Saved> {
        let report =
            |e: String| tracing::error!(peer = cluster, "what it had told cannot be read and is asked for anew: {e}");
        let bytes = self.authority.store().load_bytes(Bucket::PeerStreams, cluster);
        let bytes = bytes.inspect_err(|e| report(format!("{e:#}"))).ok()??;
        Saved::decode(&bytes).inspect_err(|e| report(e.to_string())).ok()
    }
}

/// Writes what the stream has told whenever that changes.
async fn keep(client: Client, keeper: Arc<Keeper>, cluster: String) {
    let mut status = client.status();
    let mut kept = status.borrow_and_update().revision;
    while status.changed().await.is_ok() {
        let revision = status.borrow_and_update().revision;
        if revision == kept {
            continue;
        }
        tokio::time::sleep(KEEP_AFTER).await;
        kept = status.borrow_and_update().revision;
        let Some(saved) = client.saved().await else { return };
        keeper.save_bytes(Bucket::PeerStreams, cluster.clone(), saved.encode());
    }
}
