//! Streams to the peers: one client for each other member, kept while it is one.
//!
//! One that nobody can dial holds lines ready here, which its client uses; and where nobody can dial us, we hold some at every peer.
//! Invariant: a peer is dialled with our control identity and believed only as the control plane of its own trust domain.

use crate::authority::{Authority, now};
use crate::dial;
use crate::event::Event;
use crate::keeper::Keeper;
use crate::lines::{Holder, Lines};
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
    lines: Arc<Lines>,
    holder: Holder,
    /// By cluster: the lines that are held ready there.
    held: BTreeMap<String, Held>,
}

struct Held {
    addresses: Vec<String>,
    identity: SpiffeId,
    _task: Tasks,
}

struct Link {
    addresses: Vec<String>,
    identity: SpiffeId,
    /// Dropping it ends the client.
    _client: Client,
    _tasks: Tasks,
}

/// They end with their owner.
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Peers {
    pub fn new(
        authority: Arc<Authority>,
        keeper: Arc<Keeper>,
        events: mpsc::UnboundedSender<Event>,
        lines: Arc<Lines>,
        holder: Holder,
    ) -> Self {
        Self { authority, keeper, events, links: BTreeMap::new(), lines, holder, held: BTreeMap::new() }
    }

    /// Opens links to new members and closes those to former ones.
    pub fn follow(&mut self, members: &[Member]) {
        self.links.retain(|cluster, link| members.iter().any(|m| is_at(m, cluster, &link.addresses, &link.identity)));
        for member in members {
            if !self.links.contains_key(&member.cluster) {
                let link = self.link(member);
                self.links.insert(member.cluster.clone(), link);
            }
        }
        self.hold(members);
    }

    /// Holds lines ready at all who can be dialled, as long as nobody can dial us.
    fn hold(&mut self, members: &[Member]) {
        let undiallable = self.authority.me().control_addresses.is_empty();
        let wanted: Vec<&Member> = members.iter().filter(|m| undiallable && !m.control_addresses.is_empty()).collect();
        self.held.retain(|cluster, held| wanted.iter().any(|m| is_at(m, cluster, &held.addresses, &held.identity)));
        for member in wanted {
            if !self.held.contains_key(&member.cluster) {
                let (addresses, identity) = (member.control_addresses.clone(), member.trust_domain().control());
                let holding = self.holder.clone().hold(addresses.clone(), identity.clone());
                let task = Tasks(vec![tokio::spawn(holding).abort_handle()]);
                self.held.insert(member.cluster.clone(), Held { addresses, identity, _task: task });
            }
        }
    }

    fn link(&self, member: &Member) -> Link {
        let cluster = ClusterId::from(member.cluster.clone());
        let identity = member.trust_domain().control();
        let (servers, connect) = match member.control_addresses.is_empty() {
            false => (member.control_addresses.clone(), dial::control_plane(self.authority.clone(), identity.clone())),
            true => (vec![member.cluster.clone()], dial::line(self.lines.clone(), member.cluster.clone())),
        };
        let (updates, mut told) = mpsc::unbounded_channel();
        let receiver = Receiver::new(cluster.clone(), || now().as_secs().cast_signed(), updates);
        let mut config = ClientConfig::new(servers).node_id(self.authority.ca().cluster());
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
        Link { addresses: member.control_addresses.clone(), identity, _client: handle, _tasks: Tasks(tasks) }
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

/// Whether a member is still what was dialled.
fn is_at(member: &Member, cluster: &str, addresses: &[String], identity: &SpiffeId) -> bool {
    member.cluster == cluster && member.control_addresses == addresses && member.trust_domain().control() == *identity
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
