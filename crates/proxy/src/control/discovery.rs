//! Discovery: what the control plane sends becomes snapshots, and what was acked is kept on disk for the next start.
//!
//! Invariant: a resource that cannot be decoded is refused alone; the last good one of its name stays in use. Nothing
//! secret is ever in the file.

use crate::identity::MeshIdentity;
use fairlead_engine::{Change, Resource, Snapshot};
use fairlead_proto::{JsonResource, ResourceType};
use fairlead_xds::client::{Client, ClientConfig, Handler, Rejection, Saved, Update, client, connector};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How the control plane knows which encoding to send.
const USER_AGENT: &str = "fairlead";
/// Changes are written together; losing the last second costs a few resent resources.
const SAVE_PAUSE: Duration = Duration::from_secs(1);
const FILE: &str = "discovery.state";

/// A running discovery client.
pub struct Discovery {
    pub client: Client,
    /// Snapshots as they come; the first is empty.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// An earlier process's state was found and is complete enough to serve from.
    pub restored: bool,
}

/// Starts the client; it runs until the process ends.
pub fn start(
    planes: &super::ControlPlanes,
    identity: &MeshIdentity,
    control: &fairlead_identity::SpiffeId,
    node_id: String,
    state: Option<&Path>,
) -> Discovery {
    let saved = state.and_then(load);
    let restored = saved.as_ref().is_some_and(|saved| saved.resources().next().is_some());
    let mut config = ClientConfig::new(planes.addresses().iter().cloned()).node_id(node_id);
    config.node.user_agent_name = USER_AGENT.to_owned();
    if let Some(saved) = saved {
        config = config.saved(saved);
    }
    let (out, snapshots) = watch::channel(Arc::default());
    let taker = Taker { snapshot: Arc::default(), out, identity: identity.clone() };
    let (planes, identity, control) = (planes.clone(), identity.clone(), control.clone());
    let connect = connector(move |server: String| {
        let (planes, identity, control) = (planes.clone(), identity.clone(), control.clone());
        async move {
            let expected = fairlead_identity::Expected::one(control);
            let tls = identity.tls().client_config(&expected, &[b"h2"]).map_err(std::io::Error::other)?;
            planes.connect_to(&server, tls).await
        }
    });
    let (client, running) = client(config, connect, taker);
    tokio::spawn(running);
    for kind in ResourceType::OF_DATA_PLANES {
        client.subscribe_all(kind.url());
    }
    if let Some(directory) = state {
        tokio::spawn(keep(client.clone(), directory.join(FILE)));
    }
    Discovery { client, snapshots, restored }
}

struct Taker {
    snapshot: Arc<Snapshot>,
    out: watch::Sender<Arc<Snapshot>>,
    identity: MeshIdentity,
}

impl Taker {
    fn trust(&self, update: &Update<'_>) -> Vec<Rejection> {
        let mut refused = Vec::new();
        for resource in update.upserts {
            let bundles = JsonResource::from_any_bytes(&resource.body)
                .map_err(|e| e.to_string())
                .and_then(|(_, json)| super::read_bundles(&json.json));
            match bundles {
                // Trust of an earlier process is older than what came with the certificate.
                Ok(_) if update.restored => {}
                Ok(bundles) => self.identity.trust(bundles),
                Err(reason) => refused.push(Rejection::new(resource.name.clone(), reason)),
            }
        }
        refused
    }
}

impl Handler for Taker {
    fn apply(&mut self, update: Update<'_>) -> Vec<Rejection> {
        let Ok(kind) = update.type_url.parse::<ResourceType>() else { return Vec::new() };
        if kind == ResourceType::TrustBundles {
            return self.trust(&update);
        }
        let removals = update.removed.iter().map(|name| Change::Remove { kind, name: name.clone() });
        let upserts = update
            .upserts
            .iter()
            .map(|r| Change::Set(Resource::new(kind, r.name.clone(), r.version.to_string(), r.body.clone())));
        let (snapshot, rejected) = Snapshot::build(Some(&self.snapshot), removals.chain(upserts));
        self.snapshot = snapshot.clone();
        self.out.send_replace(snapshot);
        rejected.into_iter().map(|r| Rejection::new(r.name, r.error.to_string())).collect()
    }
}

async fn keep(client: Client, path: PathBuf) {
    let mut status = client.status();
    let mut written = status.borrow().revision;
    loop {
        if status.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SAVE_PAUSE).await;
        let revision = status.borrow_and_update().revision;
        if revision == written {
            continue;
        }
        let Some(saved) = client.saved().await else { return };
        let (bytes, path) = (saved.encode(), path.clone());
        let result = tokio::task::spawn_blocking(move || write(&path, &bytes)).await;
        match result {
            Ok(Ok(())) => written = revision,
            Ok(Err(error)) => tracing::warn!(%error, "discovery state not saved"),
            Err(_) => return,
        }
    }
}

/// Whole or not at all: a crash leaves the old file.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}

fn load(directory: &Path) -> Option<Saved> {
    let path = directory.join(FILE);
    let bytes = std::fs::read(&path).ok()?;
    match Saved::decode(&bytes) {
        Ok(saved) => Some(saved),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "saved discovery state not used");
            None
        }
    }
}
