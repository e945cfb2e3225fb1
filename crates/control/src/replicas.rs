//! What proxies report to this control plane, told to the other replicas of it as it comes, and theirs to this one.
//!
//! A proxy reports to one replica, and each of them must judge by it: paths that gateways see, workloads without a kubelet. Every replica
//! calls every other (its pods are among the cluster's objects) and passes on what its own proxies say, on the stream that proxies
//! report on. Invariants: what came from a replica is passed on to nobody; what a replica passed on ends with its stream, and the grace
//! after it, like the stream of the proxy itself; nothing waits for another replica.

use crate::authority::Authority;
use crate::dial;
use fairlead_model::report::ProxyStatus;
use fairlead_proto::JsonMessage;
use fairlead_proto::reports::ReportsClient;
use fairlead_resources::Object;
use fairlead_runtime::Backoff;
use fairlead_sources::SourceObject;
use fairlead_xds::client::{ChannelOptions, Connect, channel};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::Code;

/// `JsonMessage.kind` of the first message between replicas: the caller's name for itself.
pub const REPLICA: &str = "replica";
/// `JsonMessage.kind` of what is passed on.
pub const PASSED: &str = "passed";
/// Label `app` of control planes' pods, of every revision.
const APP: &str = "fairlead-control";
/// The container port of proxies and peers.
const PORT: &str = "tls-xds";
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
/// Messages to one replica that are on their way; more wait here, and only there.
const QUEUE: usize = 64;

/// A proxy's report, or the end of its stream, as one replica tells it to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Passed {
    /// `cluster/namespace/name`
    pub workload: String,
    /// The teller's number for the proxy's stream.
    pub stream: u64,
    pub status: Option<ProxyStatus>,
}

/// What the proxies that report here say, for whoever is to be told.
pub struct Direct {
    /// This process among the replicas.
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By stream: what its proxy said last.
    said: BTreeMap<u64, Passed>,
    followers: Vec<mpsc::UnboundedSender<Passed>>,
}

impl Default for Direct {
    fn default() -> Self {
        Self { name: format!("{:032x}", fastrand::u128(..)), state: Mutex::default() }
    }
}

impl Direct {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A proxy said something here, or its stream ended.
    pub fn tell(&self, passed: Passed) {
        let mut state = self.state.lock();
        state.followers.retain(|follower| follower.send(passed.clone()).is_ok());
        match passed.status {
            Some(_) => drop(state.said.insert(passed.stream, passed)),
            None => drop(state.said.remove(&passed.stream)),
        }
    }

    /// Everything that holds, oldest stream first, and what comes after it.
    fn follow(&self) -> mpsc::UnboundedReceiver<Passed> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        for passed in state.said.values() {
            // The receiver is here.
            let _ = sender.send(passed.clone());
        }
        state.followers.push(sender);
        receiver
    }
}

/// Calls to the other replicas, by address.
pub struct Replicas {
    authority: Arc<Authority>,
    direct: Arc<Direct>,
    links: BTreeMap<String, AbortHandle>,
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.links.values().for_each(AbortHandle::abort);
    }
}

impl Replicas {
    pub fn new(authority: Arc<Authority>, direct: Arc<Direct>) -> Self {
        Self { authority, direct, links: BTreeMap::new() }
    }

    /// Calls those that came and leaves those that went.
    pub fn follow(&mut self, addresses: &BTreeSet<String>) {
        self.links.retain(|address, link| {
            let stays = addresses.contains(address);
            if !stays {
                link.abort();
            }
            stays
        });
        for address in addresses {
            if !self.links.contains_key(address) {
                let link = tokio::spawn(link(self.authority.clone(), self.direct.clone(), address.clone()));
                self.links.insert(address.clone(), link.abort_handle());
            }
        }
    }
}

/// Where the control planes of a Kubernetes cluster listen for proxies, this one among them. `namespace`: the system namespace.
pub fn addresses(objects: &[SourceObject], namespace: &str) -> BTreeSet<String> {
    let address = |object: &SourceObject| match &object.decoded.object {
        Object::Pod(pod) if pod.metadata.namespace == namespace && pod.metadata.label("app") == Some(APP) => {
            let ip: std::net::IpAddr = pod.status.pod_ip.parse().ok()?;
            Some(std::net::SocketAddr::new(ip, pod.named_port(PORT)?).to_string())
        }
        _ => None,
    };
    objects.iter().filter_map(address).collect()
}

/// Tells one replica, for as long as it is one.
async fn link(authority: Arc<Authority>, direct: Arc<Direct>, address: String) {
    let own = authority.ca().trust_domain().control();
    let connect = dial::control_plane(authority, own);
    let mut attempt = 0;
    loop {
        match once(&connect, &direct, &address).await {
            // Nobody needs to tell itself.
            Err(status) if status.code() == Code::AlreadyExists => return,
            Err(status) => {
                tracing::debug!(address, "another replica is not told: {}", status.message());
                attempt += 1;
            }
            Ok(()) => attempt = 0,
        }
        tokio::time::sleep(BACKOFF.sample(attempt)).await;
    }
}

/// One stream, until it ends.
async fn once(connect: &Connect, direct: &Direct, address: &str) -> Result<(), tonic::Status> {
    let unavailable = |e: tonic::transport::Error| tonic::Status::unavailable(format!("{e:?}"));
    let channel = channel(address, connect.clone(), ChannelOptions::default()).await.map_err(unavailable)?;
    let (sender, outgoing) = mpsc::channel(QUEUE);
    let gone = |_| tonic::Status::unavailable("the stream ended");
    sender.send(JsonMessage::new(REPLICA, direct.name().as_bytes().to_vec())).await.map_err(gone)?;
    let mut answers = ReportsClient::new(channel).stream(tokio_stream::wrappers::ReceiverStream::new(outgoing)).await?;
    tracing::info!(address, "tells another replica what proxies report here");
    let mut told = direct.follow();
    loop {
        tokio::select! {
            passed = told.recv() => {
                let Some(passed) = passed else { return Ok(()) };
                let json = serde_json::to_vec(&passed).map_err(|e| tonic::Status::internal(e.to_string()))?;
                if sender.send(JsonMessage::new(PASSED, json)).await.is_err() {
                    return Ok(());
                }
            }
            // Nothing is said back; the stream's end is heard here.
            answer = answers.message() => if !matches!(answer, Ok(Some(_))) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(stream: u64, ready: Option<bool>) -> Passed {
        let status = ready.map(|ready| ProxyStatus { ready, ..ProxyStatus::default() });
        Passed { workload: format!("east/shop/w-{stream}"), stream, status }
    }

    #[test]
    fn who_comes_later_hears_what_holds_and_what_follows() {
        let direct = Direct::default();
        for said in [passed(1, Some(true)), passed(2, Some(true)), passed(1, Some(false)), passed(2, None)] {
            direct.tell(said);
        }
        let mut told = direct.follow();
        direct.tell(passed(1, None));
        assert_eq!(told.try_recv().unwrap(), passed(1, Some(false)));
        assert_eq!(told.try_recv().unwrap(), passed(1, None));
        assert!(told.try_recv().is_err());
        drop(told);
        direct.tell(passed(3, Some(true)));
        assert!(direct.state.lock().followers.is_empty(), "and nobody is told who has gone");
        assert_ne!(direct.name(), Direct::default().name());
    }

    #[test]
    fn replicas_are_the_control_planes_pods() {
        let pod = |name: &str, namespace: &str, app: &str, address: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}\n\
                 spec: {{containers: [{{name: control, ports: [{{name: tls-xds, containerPort: 15012}}]}}]}}\n\
                 status: {{podIP: {address}}}\n---\n"
            )
        };
        let text = pod("a", "fairlead-system", APP, "10.1.0.1")
            + &pod("b", "fairlead-system", APP, "fd00::2")
            + &pod("starts", "fairlead-system", APP, "''")
            + &pod("gateway", "fairlead-system", "fairlead-eastwest", "10.1.0.3")
            + &pod("stranger", "shop", APP, "10.1.0.4");
        let decoding = fairlead_resources::decode(&"east".into(), &"pods.yaml".into(), text.as_bytes());
        let objects: Vec<SourceObject> = decoding
            .objects
            .into_iter()
            .map(|decoded| SourceObject { decoded: Arc::new(decoded), file: "".into(), stale: false })
            .collect();
        assert_eq!(objects.len(), 5);
        let expected = ["10.1.0.1:15012", "[fd00::2]:15012"].map(str::to_owned);
        assert_eq!(addresses(&objects, "fairlead-system"), BTreeSet::from(expected));
    }
}
