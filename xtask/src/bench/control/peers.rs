//! Simulated peers: control planes that join by a token and tell of exported services, as a peer tells them, and nothing behind.
//!
//! Each has a CA and a trust domain of its own, and serves the product's peering resources over mutual TLS. Invariant: what crosses
//! the wire is counted at the peer's socket, encryption and framing included.

use super::plane::Plane;
use anyhow::{Context as _, ensure};
use fairlead_identity::ca::LeafRequest;
use fairlead_identity::workload_key::WorkloadKey;
use fairlead_identity::{
    Ca, CertHandle, ClientAuth, DomainTrust, Expected, JoinAnswer, JoinToken, Member, MeshTls, SystemRandom,
    TrustBundleSet, TrustDomain, join, tls,
};
use fairlead_model::endpoint::{Endpoint, Health, WorkloadRef};
use fairlead_model::ids::{ClusterId, Locality};
use fairlead_model::mesh::MemberState;
use fairlead_model::service::{Protocol, ServicePort};
use fairlead_model::summary::{ClusterSummary, MemberSummary, ServiceSummary};
use fairlead_peering::Sender;
use fairlead_proto::JsonMessage;
use fairlead_proto::join::JoinClient;
use fairlead_xds::ResourceView;
use fairlead_xds::client::{ChannelOptions, channel, connector};
use fairlead_xds::server::{
    Discovery, DiscoveryService, Ended, Event, Hello, Identified, Refusal, ServiceConfig, StreamId, Views, builder,
};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Joining is limited to a few a second.
const AGAIN: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);

/// One simulated peer; it ends with its runtime.
pub struct Peer {
    number: usize,
    services: usize,
    pods: usize,
    state: Arc<State>,
}

struct State {
    views: watch::Sender<Arc<dyn ResourceView>>,
    sender: Mutex<(Sender, ClusterSummary, u64)>,
    /// The newest state that the control plane has taken all of.
    settled: AtomicU64,
    bytes: Arc<AtomicU64>,
}

/// The number that a service of a peer has in its name: those of the cluster itself come first.
pub fn number(own: usize, peer: usize, services: usize, service: usize) -> usize {
    own + peer * services + service
}

impl Peer {
    /// Joins, and serves from now on. `first` is the number of its first service.
    pub async fn join(
        plane: &Plane,
        number: usize,
        first: usize,
        services: usize,
        pods: usize,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let cluster = format!("peer-{number}");
        let domain = TrustDomain::new(&format!("{cluster}.bench.example"))?;
        let ca = Ca::create_root(&cluster, &domain, UnixTime::now(), &mut SystemRandom)?;
        let me = Member {
            cluster: cluster.clone(),
            incarnation: UnixTime::now().as_secs(),
            revision: 0,
            state: Default::default(),
            bundle: ca.bundle().clone(),
            issuing_keys: BTreeSet::from([ca.issuing_key()]),
            control_addresses: vec![listener.local_addr()?.to_string()],
            networks: BTreeMap::new(),
            version: String::new(),
            capabilities: BTreeSet::new(),
        };
        let theirs = ask(plane, &me).await?;
        let tls = own_tls(&ca, &domain, &theirs)?;
        let summary = summary(&cluster, first, services, pods, &domain, me.incarnation);
        let mut sender = Sender::at(UnixTime::now().as_secs().cast_signed());
        let view = sender.view(1, &summary, &[]).context("a first view")?;
        let state = Arc::new(State {
            views: watch::Sender::new(Arc::new(view)),
            sender: Mutex::new((sender, summary, 1)),
            settled: AtomicU64::new(0),
            bytes: Arc::default(),
        });
        serve(listener, &tls, state.clone())?;
        Ok(Self { number, services, pods, state })
    }

    /// Waits until the control plane has taken all of it.
    pub fn until_told(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let newest = self.state.sender.lock().unwrap_or_else(PoisonError::into_inner).2;
        while self.state.settled.load(Ordering::SeqCst) < newest {
            ensure!(begun.elapsed() < PATIENCE, "peer {} was not heard within {PATIENCE:?}", self.number);
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Bytes of its connections so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }

    /// One of the endpoints of a service (counted within this peer) is otherwise now.
    pub fn change(&self, first: usize, service: usize, turn: usize) -> anyhow::Result<()> {
        let mut sender = self.state.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, summary, sequence) = &mut *sender;
        let key = key(first + service % self.services);
        let endpoints = summary.endpoints.get_mut(&key).context("a service of its own")?;
        let endpoint = Arc::make_mut(&mut endpoints[turn % self.pods]);
        endpoint.weight = 1 + endpoint.weight % 7;
        *sequence += 1;
        let view = sender.view(*sequence, summary, &[]).context("a view that differs")?;
        self.state.views.send_replace(Arc::new(view));
        Ok(())
    }
}

/// Joins by a token of the control plane's; what it says of itself.
async fn ask(plane: &Plane, me: &Member) -> anyhow::Result<Member> {
    let begun = Instant::now();
    loop {
        match try_to_join(plane, me).await {
            Ok(member) => return Ok(member),
            Err(e) if begun.elapsed() > PATIENCE => return Err(e.context("joining")),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn try_to_join(plane: &Plane, me: &Member) -> anyhow::Result<Member> {
    let address = plane.address.to_string();
    let token = plane.post("/token", &serde_json::json!({"addresses": [address]}))?;
    let token: JoinToken = token["token"].as_str().context("a token")?.parse()?;
    let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
    let config = tls::joining_config(token.root, &clock, &[b"h2"])?;
    let stream = TcpStream::connect(plane.address).await?;
    stream.set_nodelay(true)?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name()?, stream).await?;
    let mut exporter = [0; join::EXPORTER_BYTES];
    stream.get_ref().1.export_keying_material(&mut exporter, join::EXPORTER_LABEL, None)?;
    let ready = Arc::new(tokio::sync::Mutex::new(Some(stream)));
    let connect = connector(move |_| {
        let ready = ready.clone();
        async move { ready.lock().await.take().ok_or_else(|| std::io::Error::other("the connection ended")) }
    });
    let (request, pending) = join::request(&token, exporter, me, &mut SystemRandom)?;
    let client = JoinClient::new(channel(&address, connect, ChannelOptions::default()).await?);
    let answer = client.join(JsonMessage::new("join", serde_json::to_vec(&request)?)).await;
    let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let answer: JoinAnswer = serde_json::from_slice(&answer.json)?;
    Ok(pending.finish(&answer)?.member)
}

fn name() -> anyhow::Result<ServerName<'static>> {
    Ok(ServerName::try_from("control.fairlead.invalid")?)
}

/// As the control plane of its own domain, which knows that of the other.
fn own_tls(ca: &Ca, domain: &TrustDomain, theirs: &Member) -> anyhow::Result<MeshTls> {
    let key = WorkloadKey::generate()?;
    let csr = key.csr()?;
    let request = LeafRequest {
        csr_der: &csr,
        identity: &domain.control(),
        workload: None,
        pod_uid: None,
        lifetime: Duration::from_secs(3600),
        now: UnixTime::now(),
    };
    let chain = ca.with_root(ca.issue_reserved(&request, &mut SystemRandom)?);
    let own = DomainTrust::new(ca.bundle().clone(), Some(ca.cluster().to_owned()));
    let other = DomainTrust::new(theirs.bundle.clone(), Some(theirs.cluster.clone()));
    let trust = TrustBundleSet::new([(domain.clone(), own), (theirs.trust_domain().clone(), other)])?;
    let trust = Arc::new(trust);
    let source = Arc::new(move || trust.clone());
    Ok(MeshTls::new(CertHandle::new(key.certified(chain)?), source, Arc::new(DefaultTimeProvider)))
}

fn serve(listener: TcpListener, tls: &MeshTls, state: Arc<State>) -> anyhow::Result<()> {
    let config = tls.server_config(ClientAuth::Required, Expected::Any, &[b"h2"])?;
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let (into, accepted) = mpsc::channel(4);
    let bytes = state.bytes.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, into) = (acceptor.clone(), into.clone());
            let stream = Counted { io: stream, bytes: bytes.clone() };
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(stream).await {
                    let _ = into.send(Ok::<_, std::io::Error>(Identified::new(tls, ()))).await;
                }
            });
        }
    });
    let service = DiscoveryService::new(Arc::new(Telling(state)), ServiceConfig::default());
    let router = builder().add_service(service.into_server());
    tokio::spawn(router.serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(accepted)));
    Ok(())
}

/// Everybody who is let in is the control plane that is measured.
struct Telling(Arc<State>);

#[tonic::async_trait]
impl Discovery<()> for Telling {
    async fn connect(&self, _: Hello<()>) -> Result<Views, Refusal> {
        Ok(self.0.views.subscribe())
    }

    fn event(&self, _: StreamId, event: Event) {
        if let Event::Settled { generation, .. } = event {
            self.0.settled.fetch_max(generation, Ordering::SeqCst);
        }
    }

    fn disconnected(&self, _: StreamId, _: Ended) {}
}

/// A connection whose bytes are counted.
struct Counted {
    io: TcpStream,
    bytes: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.bytes.fetch_add((buf.filled().len() - before) as u64, Ordering::SeqCst);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(many)) = &written {
            self.bytes.fetch_add(*many as u64, Ordering::SeqCst);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// `namespace/name` of a service by its number.
fn key(number: usize) -> String {
    format!("{}/s{number:04}", super::mesh::namespace(number))
}

/// What a peer on the same network exports.
fn summary(
    cluster: &str,
    first: usize,
    services: usize,
    pods: usize,
    domain: &TrustDomain,
    incarnation: u64,
) -> ClusterSummary {
    let id = ClusterId::from(cluster);
    let mut summary = ClusterSummary {
        member: MemberSummary {
            cluster: id.clone(),
            incarnation,
            state: MemberState::Active,
            trust_domain: domain.to_string(),
            networks: Vec::new(),
            gateways: Vec::new(),
            locality: Locality::default(),
            version: String::new(),
        },
        services: BTreeMap::new(),
        endpoints: BTreeMap::new(),
    };
    for number in first..first + services {
        let (namespace, name) = (super::mesh::namespace(number), format!("s{number:04}"));
        let identity = format!("spiffe://{domain}/ns/{namespace}/sa/default");
        let service = ServiceSummary {
            namespace: namespace.clone(),
            name: name.clone(),
            ports: vec![ServicePort { number: 80, name: "http".into(), protocol: Protocol::Http }],
            headless: false,
            visibility: Default::default(),
            labels: Default::default(),
            service_accounts: BTreeSet::from([identity.clone()]),
            created: 1_700_000_000,
            capacity: BTreeMap::from([(String::new(), (pods as u32, pods as u32))]),
        };
        let endpoint = |pod: usize| {
            let workload = WorkloadRef {
                cluster: id.clone(),
                namespace: namespace.as_str().into(),
                name: format!("{name}-{pod}").into(),
            };
            let [_, a, b, c] = ((number * pods + pod) as u32).to_be_bytes();
            Arc::new(Endpoint {
                id: fairlead_resolve::registry::endpoint_id(&workload, &format!("{name}.{namespace}")),
                workload,
                network: Default::default(),
                locality: Locality::default().into(),
                address: Some([11 + a, b, c, 1].into()),
                additional_addresses: Vec::new(),
                hostname: None,
                ports: BTreeMap::from([(80, 8080)]).into(),
                labels: BTreeMap::from([("app".to_owned(), name.clone())]).into(),
                identity: Some(identity.as_str().into()),
                mutual_tls: BTreeSet::from([80]).into(),
                weight: 1,
                health: Health::Healthy,
            })
        };
        summary.services.insert(key(number), Arc::new(service));
        summary.endpoints.insert(key(number), (0..pods).map(endpoint).collect());
    }
    summary
}
