//! `fairlead probe`: what the network looks like from inside a pod. `fairlead check` runs it in the control plane's by exec.
//!
//! It asks the control plane for its peers and its trust, looks names up, connects, and makes handshakes as nobody: it has no
//! certificate and needs none to see whom it reaches. Must never judge, nor change anything. Invariant: it prints one JSON object,
//! whatever fails.

mod dial;
pub mod seen;

use crate::cli::admin::ask;
use anyhow::Context as _;
use clap::Args;
use dial::{connect, path};
use fairlead_identity::verifier::{Expected, PeerVerifier};
use fairlead_identity::{JoinToken, SpiffeId, TrustBundleSet, tls};
use fairlead_model::listing::{ClusterRow, EndpointRow, PeerRow};
use rustls::ClientConfig;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use seen::{Connection, NameSeen, PathSeen, PeerSeen, PodSeen, Question, Seen, TokenSeen};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// ALPN of mesh TCP, which a gateway takes, and of control planes.
const MESH: &[&[u8]] = &[b"istio-peer-exchange", b"istio"];
const CONTROL: &[&[u8]] = &[b"h2"];
/// Endpoints of one peer that are tried in a flat network.
const MOST_ENDPOINTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(3);

/// Try the ways out of this pod and print what was seen, as JSON; the question is read from standard input.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// Unix socket of the control plane.
    #[arg(long)]
    socket: PathBuf,
}

pub async fn run(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::stdin(), &mut text).context("cannot read the question")?;
    let question: Question = serde_json::from_str(&text).context("the question cannot be read")?;
    println!("{}", serde_json::to_string(&look(&args.socket, question).await)?);
    Ok(ExitCode::SUCCESS)
}

/// What the control plane knows: whom to try, and whom to believe.
struct Known {
    trust: Arc<TrustBundleSet>,
    clusters: Vec<ClusterRow>,
    peers: Vec<PeerRow>,
    endpoints: Vec<EndpointRow>,
}

async fn look(socket: &Path, question: Question) -> Seen {
    let mut seen = Seen { now: now(), mtu: mtu(), ..Seen::default() };
    for name in &question.names {
        seen.names.push(lookup(name).await);
    }
    match known(socket) {
        Ok(known) => {
            let mut tries = tokio::task::JoinSet::new();
            for (place, task) in doors(Arc::new(known), question.gateway.as_deref()).into_iter().enumerate() {
                tries.spawn(async move { (place, task.await) });
            }
            let mut found = tries.join_all().await;
            found.sort_by_key(|(place, _)| *place);
            seen.peers = found.into_iter().map(|(_, peer)| peer).collect();
        }
        Err(error) => seen.silent = Some(format!("{error:#}")),
    }
    let mut pods = tokio::task::JoinSet::new();
    for pod in question.pods {
        pods.spawn(async move {
            let connection = connect(pod.address).await.err().unwrap_or(Connection::Accepted);
            PodSeen { pod: pod.pod, connection }
        });
    }
    seen.pods = pods.join_all().await;
    seen.pods.sort_by(|a, b| a.pod.cmp(&b.pod));
    if let Some(text) = &question.token {
        seen.token = Some(token(socket, text).await);
    }
    seen
}

fn known(socket: &Path) -> anyhow::Result<Known> {
    Ok(Known {
        trust: Arc::new(TrustBundleSet::from_json(&ask(socket, "/trust", None)?.to_string())?),
        clusters: serde_json::from_value(ask(socket, "/clusters", None)?)?,
        peers: serde_json::from_value(ask(socket, "/peers", None)?)?,
        endpoints: serde_json::from_value(ask(socket, "/endpoints", None)?)?,
    })
}

type Task = std::pin::Pin<Box<dyn Future<Output = PeerSeen> + Send>>;

/// One task a cluster: the own gateway, and every peer.
fn doors(known: Arc<Known>, gateway: Option<&str>) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let own = known.clusters.iter().find(|row| row.stream == "self").cloned();
    let networks = own.as_ref().map(|row| row.networks.clone()).unwrap_or_default();
    if let (Some(own), Some(gateway)) = (own, gateway.map(str::to_owned)) {
        let known = Arc::clone(&known);
        tasks.push(Box::pin(async move {
            let config = config(&known.trust, &own.trust_domain, "gateway", MESH);
            let name = format!("probe_.{}", own.cluster);
            let gateways = vec![tried(&gateway, config.as_ref(), &name).await];
            PeerSeen { cluster: own.cluster, own: true, gateways, ..PeerSeen::default() }
        }));
    }
    for peer in known.peers.clone() {
        let row = known.clusters.iter().find(|row| row.cluster == peer.cluster);
        let gateways = row.map(|row| row.gateways.clone()).unwrap_or_default();
        let near = endpoints(&known.endpoints, &peer.cluster, &networks);
        let known = Arc::clone(&known);
        tasks.push(Box::pin(async move {
            let mut seen =
                PeerSeen { cluster: peer.cluster.clone(), version: peer.version.clone(), ..PeerSeen::default() };
            let control = config(&known.trust, &peer.trust_domain, "control", CONTROL);
            for address in &peer.addresses {
                seen.control.push(tried(address, control.as_ref(), "fairlead-control").await);
            }
            let config = config(&known.trust, &peer.trust_domain, "gateway", MESH);
            for address in &gateways {
                seen.gateways.push(tried(address, config.as_ref(), &format!("probe_.{}", peer.cluster)).await);
            }
            for address in &near {
                seen.endpoints.push(path(address, None).await);
            }
            seen
        }));
    }
    tasks
}

async fn tried(address: &str, config: Option<&Arc<ClientConfig>>, name: &str) -> PathSeen {
    path(address, config.map(|config| (config.as_ref(), name))).await
}

/// Addresses of a peer's endpoints in a network that this cluster is in.
fn endpoints(rows: &[EndpointRow], cluster: &str, networks: &[String]) -> Vec<String> {
    let theirs = rows.iter().filter(|row| row.workload.split('/').next() == Some(cluster));
    let near = theirs.filter(|row| networks.contains(&row.network) && row.health == "healthy");
    let mut all: Vec<String> = near
        .filter_map(|row| {
            let address: std::net::IpAddr = row.address.as_ref()?.parse().ok()?;
            Some(std::net::SocketAddr::new(address, *row.ports.values().next()?).to_string())
        })
        .collect();
    all.sort();
    all.dedup();
    all.truncate(MOST_ENDPOINTS);
    all
}

fn config(trust: &Arc<TrustBundleSet>, domain: &str, reserved: &str, alpn: &[&[u8]]) -> Option<Arc<ClientConfig>> {
    let expected: SpiffeId = format!("spiffe://{domain}/fairlead/{reserved}").parse().ok()?;
    let trust = Arc::clone(trust);
    let verifier = PeerVerifier::new(Arc::new(move || Arc::clone(&trust)), Expected::one(expected));
    tls::client_config(None, verifier, &clock(), alpn).ok()
}

fn clock() -> Arc<dyn TimeProvider> {
    Arc::new(DefaultTimeProvider)
}

async fn lookup(name: &str) -> NameSeen {
    let mut seen = NameSeen { name: name.to_owned(), ..NameSeen::default() };
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => seen.addresses = found.map(|address| address.ip()).collect(),
        Ok(Err(error)) => seen.error = Some(error.to_string()),
        Err(_) => seen.error = Some(format!("no name server answers within {} s", PATIENCE.as_secs())),
    }
    seen.addresses.sort_unstable();
    seen.addresses.dedup();
    seen
}

async fn token(socket: &Path, text: &str) -> TokenSeen {
    let token: JoinToken = match text.trim().parse() {
        Ok(token) => token,
        Err(error) => return TokenSeen { unreadable: Some(format!("{error}")), ..TokenSeen::default() },
    };
    let mut seen = TokenSeen {
        cluster: token.cluster.clone(),
        expires: i64::try_from(token.expires).unwrap_or(i64::MAX),
        ..TokenSeen::default()
    };
    let config = tls::joining_config(token.root, &clock(), CONTROL).ok();
    for address in &token.addresses {
        let way = tried(address, config.as_ref(), "control.fairlead.invalid").await;
        let good = way.handshake == Some(seen::Handshake::Good);
        seen.paths.push(way);
        if good && seen.rehearsal.is_none() {
            let question = json!({"token": text.trim(), "address": address});
            let said = ask(socket, "/rehearse", Some(&question));
            match said.and_then(|said| Ok(serde_json::from_value(said)?)) {
                Ok(rehearsal) => seen.rehearsal = Some(rehearsal),
                Err(error) => seen.error = Some(format!("{error:#}")),
            }
        }
    }
    seen
}

/// Of the interfaces that lead out, the smallest.
fn mtu() -> Option<u32> {
    let interfaces = std::fs::read_dir("/sys/class/net").ok()?;
    let out = interfaces.flatten().filter(|entry| entry.file_name() != "lo");
    out.filter_map(|entry| std::fs::read_to_string(entry.path().join("mtu")).ok()?.trim().parse().ok()).min()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
