//! Simulated proxies: mutual TLS, HTTP/2 and delta discovery as a proxy speaks them, and nothing behind.
//!
//! Each takes what a proxy takes and acks it at once; one of each namespace keeps names and versions, so that others of it can come
//! back with them.
//! Invariant: a change counts as acked by a proxy when the ack of the response that carried it was handed to the connection.

use super::mesh::{NAMESPACES, namespace, pod_name, service_of};
use super::plane::{CLUSTER, DOMAIN, Plane};
use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use fairlead_identity::ca::LeafRequest;
use fairlead_identity::workload_key::WorkloadKey;
use fairlead_identity::{CertHandle, Expected, PeerVerifier, SystemRandom, TrustBundleSet, TrustDomain, tls};
use fairlead_proto::ResourceType;
use fairlead_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, HeldVersion};
use fairlead_proto::envoy::core::Node;
use fairlead_proto::envoy::protobuf::{Struct, Value, value::Kind};
use prost::Message as _;
use rustls::ClientConfig;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::task::AbortHandle;

const DELTA: &str =
    "http://fairlead.invalid/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// A failed try is repeated after this, and half as much again each time.
const AGAIN: Duration = Duration::from_millis(100);

/// What all simulated proxies of one control plane share.
pub struct Board {
    begun: Instant,
    address: SocketAddr,
    /// Proxies that have answered for everything since they (re)connected.
    pub ready: AtomicUsize,
    /// When the last became so, in nanoseconds.
    ready_at: AtomicU64,
    /// Tries to connect that failed.
    failed: AtomicUsize,
    /// Why, of the last.
    failure: Mutex<String>,
    /// Bytes of responses.
    pub bytes: AtomicU64,
    /// By service: acks of its endpoints, and when the last was.
    acked: Vec<(AtomicUsize, AtomicU64)>,
    /// By namespace: what its first proxy has. What others of it have is the same, but for their own listeners.
    held: [Mutex<Held>; NAMESPACES],
}

/// What a proxy has: names and versions by type, and how new it was told that it is.
#[derive(Clone, Default)]
struct Held {
    versions: BTreeMap<String, BTreeMap<String, String>>,
    freshness: String,
}

fn locked(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// What a proxy that has this says first, as it goes over the wire.
    fn requests(&self) -> Vec<Bytes> {
        let one = |(at, kind): (usize, ResourceType)| {
            framed(&DeltaDiscoveryRequest {
                node: (at == 0).then(|| node(&self.freshness)),
                type_url: kind.url().to_owned(),
                resource_names_subscribe: vec!["*".to_owned()],
                initial_resource_versions: self
                    .versions
                    .get(kind.url())
                    .into_iter()
                    .flatten()
                    .map(|(name, version)| HeldVersion::new(name, version))
                    .collect(),
                ..Default::default()
            })
        };
        ResourceType::OF_DATA_PLANES.into_iter().enumerate().map(one).collect()
    }
}

/// One pod's proxy.
#[derive(Clone)]
pub struct Proxy {
    number: usize,
    tls: Arc<ClientConfig>,
}

/// Connected proxies; they end with it.
pub struct Fleet {
    pub board: Arc<Board>,
    tasks: Vec<AbortHandle>,
}

impl Board {
    pub fn new(address: SocketAddr, services: usize) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            address,
            ready: AtomicUsize::new(0),
            ready_at: AtomicU64::new(0),
            failed: AtomicUsize::new(0),
            failure: Mutex::default(),
            bytes: AtomicU64::new(0),
            acked: (0..services).map(|_| Default::default()).collect(),
            held: Default::default(),
        })
    }

    /// How many tries failed, and of the last why.
    pub fn failures(&self) -> String {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let why = if failure.is_empty() { String::new() } else { format!(", the last: {failure}") };
        format!("{} tries failed{why}", self.failed.load(Ordering::SeqCst))
    }

    pub fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Nobody has acked anything of this service.
    pub fn forget(&self, service: usize) {
        self.acked[service].0.store(0, Ordering::SeqCst);
    }

    /// How many have acked endpoints of this service, and when the last did.
    pub fn acked(&self, service: usize) -> (usize, u64) {
        let (count, at) = &self.acked[service];
        (count.load(Ordering::SeqCst), at.load(Ordering::SeqCst))
    }

    /// Waits until so many are ready; when the last was.
    pub fn until_ready(&self, wanted: usize, patience: Duration) -> anyhow::Result<u64> {
        let begun = Instant::now();
        while self.ready.load(Ordering::SeqCst) < wanted {
            ensure!(
                begun.elapsed() < patience,
                "{} of {wanted} proxies are ready after {patience:?}; {}",
                self.ready.load(Ordering::SeqCst),
                self.failures()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(self.ready_at.load(Ordering::SeqCst))
    }

    /// Knows what another's proxies knew.
    pub fn adopt(&self, other: &Board) {
        for (own, theirs) in self.held.iter().zip(&other.held) {
            *locked(own) = locked(theirs).clone();
        }
    }

    fn take(&self, response: &DeltaDiscoveryResponse, proxy: usize) {
        let Some(held) = self.held.get(proxy) else { return };
        let mut held = locked(held);
        let versions = held.versions.entry(response.type_url.clone()).or_default();
        for name in &response.removed_resources {
            versions.remove(name);
        }
        versions.extend(response.resources.iter().map(|r| (r.name.clone(), r.version.clone())));
        held.freshness.clone_from(&response.system_version_info);
    }

    fn count(&self, response: &DeltaDiscoveryResponse) {
        if response.type_url != ResourceType::ClusterLoadAssignment.url() {
            return;
        }
        let now = self.now();
        for service in response.resources.iter().filter_map(|r| service_of(&r.name)) {
            if let Some((count, at)) = self.acked.get(service) {
                count.fetch_add(1, Ordering::SeqCst);
                at.fetch_max(now, Ordering::SeqCst);
            }
        }
    }
}

/// Certificates for the proxies of pods: of each service one pod before of any service two.
pub fn proxies(plane: &Plane, services: usize, many: usize) -> anyhow::Result<Vec<Proxy>> {
    let domain = TrustDomain::new(DOMAIN)?;
    let trust = Arc::new(TrustBundleSet::new([(
        domain.clone(),
        fairlead_identity::DomainTrust::new(plane.ca.bundle().clone(), Some(CLUSTER.into())),
    )])?);
    let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
    let one = |number: usize| {
        let (namespace, name) = (namespace(number % services), pod_name(number % services, number / services));
        let key = WorkloadKey::generate()?;
        let csr = key.csr()?;
        let identity = domain.service_account(&namespace, "default")?;
        let workload = format!("{CLUSTER}/{namespace}/{name}");
        let request = LeafRequest {
            csr_der: &csr,
            identity: &identity,
            workload: Some(&workload),
            pod_uid: None,
            lifetime: Duration::from_secs(3600),
            now: UnixTime::now(),
        };
        let credentials = key.certified(plane.ca.issue(&request, &mut SystemRandom)?)?;
        let trust = trust.clone();
        let verifier = PeerVerifier::new(Arc::new(move || trust.clone()), Expected::one(domain.control()));
        let tls = tls::client_config(Some(&CertHandle::new(credentials)), verifier, &clock, &[b"h2"])?;
        Ok(Proxy { number, tls })
    };
    (0..many).map(one).collect()
}

impl Fleet {
    pub fn new(board: Arc<Board>) -> Self {
        Self { board, tasks: Vec::new() }
    }

    /// Starts these; each comes back whenever its connection ends. `knowing`: with what its namespace had.
    pub fn add(&mut self, runtime: &tokio::runtime::Handle, proxies: &[Proxy], knowing: bool) {
        let known = |held: &Mutex<Held>| if knowing { locked(held).requests() } else { Held::default().requests() };
        let first: Vec<Arc<Vec<Bytes>>> = self.board.held.iter().map(|held| Arc::new(known(held))).collect();
        for proxy in proxies {
            let (board, first, proxy) = (self.board.clone(), first[proxy.namespace()].clone(), proxy.clone());
            self.tasks.push(runtime.spawn(proxy.run(board, first)).abort_handle());
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Proxy {
    fn namespace(&self) -> usize {
        self.number % NAMESPACES
    }

    async fn run(self, board: Arc<Board>, mut first: Arc<Vec<Bytes>>) {
        let mut pause = AGAIN;
        loop {
            let mut ready = false;
            // Whatever ended it: it comes back, and who waits for it tells when it does not.
            let ended = self.stream(&board, &first, &mut ready).await;
            if let (Err(e), false) = (ended, ready) {
                *board.failure.lock().unwrap_or_else(PoisonError::into_inner) = format!("{e:#}");
            }
            if ready {
                board.ready.fetch_sub(1, Ordering::SeqCst);
                pause = AGAIN;
            } else {
                board.failed.fetch_add(1, Ordering::SeqCst);
            }
            if let Some(held) = board.held.get(self.number) {
                first = Arc::new(locked(held).requests());
            }
            tokio::time::sleep(pause).await;
            pause += pause / 2;
        }
    }

    async fn stream(&self, board: &Board, first: &[Bytes], ready: &mut bool) -> anyhow::Result<()> {
        let socket = TcpSocket::new_v4()?;
        // As pods have addresses of their own.
        let [high, low] = (self.number as u16 + 1).to_be_bytes();
        socket.bind((Ipv4Addr::new(127, 1, high, low), 0).into())?;
        let tcp = socket.connect(board.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("control.fairlead.invalid")?;
        let tls = tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
            .handshake::<_, Bytes>(tls)
            .await?;
        let driver = AbortOnDrop(tokio::spawn(connection).abort_handle());
        let request = http::Request::post(DELTA).header("content-type", "application/grpc").header("te", "trailers");
        let (response, mut requests) = client.ready().await?.send_request(request.body(())?, false)?;
        for request in first {
            requests.send_data(request.clone(), false)?;
        }
        let response = response.await?;
        ensure!(response.status() == 200, "{}", response.status());
        if let Some(message) = response.headers().get("grpc-message") {
            anyhow::bail!("refused: {message:?}");
        }
        let mut body = response.into_body();
        let mut buffer = BytesMut::new();
        let mut heard: Vec<String> = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            board.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            buffer.extend_from_slice(&data);
            while let Some(message) = unframed(&mut buffer) {
                let response = DeltaDiscoveryResponse::decode(message)?;
                let ack = DeltaDiscoveryRequest {
                    type_url: response.type_url.clone(),
                    response_nonce: response.nonce.clone(),
                    ..Default::default()
                };
                requests.send_data(framed(&ack), false)?;
                board.take(&response, self.number);
                board.count(&response);
                if !heard.contains(&response.type_url) {
                    heard.push(response.type_url);
                    if heard.len() == ResourceType::OF_DATA_PLANES.len() {
                        *ready = true;
                        board.ready_at.fetch_max(board.now(), Ordering::SeqCst);
                        board.ready.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        }
        drop(driver);
        let trailers = body.trailers().await?.unwrap_or_default();
        anyhow::bail!("ended: {:?}", trailers.get("grpc-message"));
    }
}

fn node(freshness: &str) -> Node {
    let mut node = Node { user_agent_name: "fairlead".into(), ..Default::default() };
    if !freshness.is_empty() {
        let token = Value { kind: Some(Kind::StringValue(freshness.to_owned())) };
        let mut metadata = Struct::default();
        metadata.fields.insert(fairlead_xds::FRESHNESS_KEY.to_owned(), token);
        node.metadata = Some(metadata);
    }
    node
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A message as gRPC sends it.
fn framed(message: &DeltaDiscoveryRequest) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The next whole message, if there is one.
fn unframed(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..5)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(length).freeze())
}

/// The runtime that all simulated proxies share.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("a runtime")
}
