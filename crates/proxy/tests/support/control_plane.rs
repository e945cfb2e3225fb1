//! A control plane of one cluster, as small as a proxy can live with: certificates, discovery, reports.

use super::Pki;
use base64::Engine as _;
use fairlead_identity::{CertHandle, ClientAuth, Expected, LeafRequest, SpiffeId, SystemRandom, WorkloadKey};
use fairlead_model::report::{ProxyStatus, STATUS};
use fairlead_proto::certificates::{
    BundlesRequest, BundlesResponse, Certificates, CertificatesServer, SignRequest, SignResponse,
};
use fairlead_proto::reports::{Reports, ReportsServer};
use fairlead_proto::{BoxStream, JsonMessage, ResourceType};
use fairlead_proxy::{Bootstrap, StaticResource};
use fairlead_xds::server::{
    Discovery, DiscoveryService, Ended, Event, Hello, Identified, Refusal, StreamId, Views, builder,
};
use fairlead_xds::{Resource, ResourceView, Snapshot};
use rustls::pki_types::UnixTime;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A running control plane.
pub struct ControlPlane {
    pub address: SocketAddr,
    views: watch::Sender<Arc<dyn ResourceView>>,
    generation: u64,
    pub settled: watch::Receiver<(u64, usize)>,
    pub status: watch::Receiver<Option<ProxyStatus>>,
    pub bootstrap: Bootstrap,
    /// Tokens that were taken, in order.
    pub redeemed: watch::Receiver<Vec<String>>,
    service: Arc<Service>,
    task: tokio::task::JoinHandle<()>,
}

/// The one thing that is known of a caller: whether it showed a certificate.
#[derive(Clone, Copy, Debug)]
struct Authenticated(bool);

struct Service {
    pki: Arc<Pki>,
    cluster: String,
    identity: SpiffeId,
    lifetime: Duration,
    tokens: Mutex<Vec<String>>,
    redeemed: watch::Sender<Vec<String>>,
    renews: AtomicBool,
    views: watch::Receiver<Arc<dyn ResourceView>>,
    settled: watch::Sender<(u64, usize)>,
    status: watch::Sender<Option<ProxyStatus>>,
}

impl ControlPlane {
    /// Serves proxies of `account` in `cluster`, certificates living `lifetime`.
    pub async fn start(pki: &Arc<Pki>, cluster: &str, account: &str, lifetime: Duration) -> Self {
        let domain = super::domain(cluster);
        let (views, watched) = watch::channel(Arc::new(Snapshot::new(0)) as Arc<dyn ResourceView>);
        let (settled, settled_seen) = watch::channel((0, 0));
        let (status, status_seen) = watch::channel(None);
        let service = Arc::new(Service {
            pki: pki.clone(),
            cluster: cluster.to_owned(),
            identity: super::id(cluster, account),
            lifetime,
            tokens: Mutex::new(vec!["first".to_owned()]),
            redeemed: watch::Sender::default(),
            renews: AtomicBool::new(true),
            views: watched,
            settled,
            status,
        });
        let key = WorkloadKey::generate().unwrap();
        let control = domain.control();
        let request = LeafRequest {
            csr_der: &key.csr().unwrap(),
            identity: &control,
            workload: None,
            pod_uid: None,
            lifetime: Duration::from_secs(3600),
            now: UnixTime::now(),
        };
        let chain = pki.cas[cluster].issue_reserved(&request, &mut SystemRandom).unwrap();
        let (tls, _) = pki.tls(CertHandle::new(key.certified(chain).unwrap()));
        let config = tls.server_config(ClientAuth::Optional, Expected::Any, &[b"h2"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (incoming, connections) = mpsc::channel::<std::io::Result<Identified<Authenticated>>>(4);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, incoming) = (tokio_rustls::TlsAcceptor::from(config.clone()), incoming.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let shown = stream.get_ref().1.peer_certificates().is_some();
                    let _ = incoming.send(Ok(Identified::new(stream, Authenticated(shown)))).await;
                });
            }
        });
        let discovery = DiscoveryService::new(service.clone(), Default::default()).into_server();
        let serving = builder()
            .add_service(discovery)
            .add_service(CertificatesServer::new(service.clone()))
            .add_service(ReportsServer::new(service.clone()))
            .serve_with_incoming(ReceiverStream::new(connections));
        let task = tokio::spawn(async move {
            let _ = serving.await;
        });
        let bootstrap = Bootstrap {
            token: "first".to_owned(),
            control_identity: control.as_str().to_owned(),
            trust_bundles: serde_json::from_str(&pki.bundles.to_json().unwrap()).unwrap(),
        };
        Self {
            address,
            views,
            generation: 0,
            settled: settled_seen,
            status: status_seen,
            bootstrap,
            redeemed: service.redeemed.subscribe(),
            service,
            task,
        }
    }

    /// Sends exactly these resources from now on.
    pub fn publish(&mut self, resources: &[StaticResource]) {
        self.generation += 1;
        let mut types: BTreeMap<&str, Vec<Resource>> = BTreeMap::new();
        for r in resources {
            let body = base64::engine::general_purpose::STANDARD.decode(&r.body).unwrap();
            let version = format!("{:x}", fairlead_proxy_hash(&r.body));
            types.entry(&r.type_url).or_default().push(Resource::new(r.name.as_str(), version.as_str(), body));
        }
        let mut view = Snapshot::new(self.generation);
        for (kind, list) in types {
            view = view.with(kind, list);
        }
        self.views.send_replace(Arc::new(view));
    }

    /// Waits until the proxy has taken what was published last; gives how many resources it refused.
    pub async fn taken(&mut self) -> usize {
        let generation = self.generation;
        self.settled.wait_for(|(seen, _)| *seen == generation).await.unwrap().1
    }

    /// Takes this token too, and no certificate any more.
    pub fn only_by_token(&self, token: &str) {
        self.service.tokens.lock().unwrap().push(token.to_owned());
        self.service.renews.store(false, Ordering::SeqCst);
    }

    pub fn kill(&self) {
        self.task.abort();
    }
}

fn fairlead_proxy_hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[tonic::async_trait]
impl Certificates for Service {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let shown = request.extensions().get::<Authenticated>().is_some_and(|a| a.0);
        let asked = request.into_inner();
        if asked.credential.is_empty() {
            if !shown {
                return Err(Status::unauthenticated("no certificate"));
            }
            if !self.renews.load(Ordering::SeqCst) {
                return Err(Status::unavailable("as if it were away"));
            }
        } else {
            let mut tokens = self.tokens.lock().unwrap();
            let at = tokens.iter().position(|token| *token == asked.credential);
            let token = tokens.remove(at.ok_or_else(|| Status::unauthenticated("bad token"))?);
            self.redeemed.send_modify(|redeemed| redeemed.push(token));
        }
        let request = LeafRequest {
            csr_der: &asked.csr_der,
            identity: &self.identity,
            workload: None,
            pod_uid: None,
            lifetime: self.lifetime,
            now: UnixTime::now(),
        };
        let chain = self.pki.cas[&self.cluster].issue(&request, &mut SystemRandom).unwrap();
        Ok(Response::new(SignResponse {
            chain_pem: vec![fairlead_identity::certificate::certificates_to_pem(&chain)],
            bundles_json: self.pki.bundles.to_json().unwrap().into(),
        }))
    }

    async fn bundles(&self, _: Request<BundlesRequest>) -> Result<Response<BundlesResponse>, Status> {
        Ok(Response::new(BundlesResponse { bundles_json: self.pki.bundles.to_json().unwrap().into() }))
    }
}

#[tonic::async_trait]
impl Discovery<Authenticated> for Service {
    async fn connect(&self, hello: Hello<Authenticated>) -> Result<Views, Refusal> {
        if !hello.client.0 || hello.node.user_agent_name != "fairlead" {
            return Err(Refusal::Denied("not for you".to_owned()));
        }
        Ok(self.views.clone())
    }

    fn event(&self, _: StreamId, event: Event) {
        if let Event::Settled { generation, rejected } = event {
            self.settled.send_replace((generation, rejected));
        }
    }

    fn disconnected(&self, _: StreamId, _: Ended) {}
}

#[tonic::async_trait]
impl Reports for Service {
    async fn stream(
        &self,
        request: Request<Streaming<JsonMessage>>,
    ) -> Result<Response<BoxStream<JsonMessage>>, Status> {
        let mut reports = request.into_inner();
        let status = self.status.clone();
        let (answers, outgoing) = mpsc::channel(1);
        tokio::spawn(async move {
            let _answers = answers;
            while let Some(Ok(message)) = reports.next().await {
                if message.kind == STATUS {
                    status.send_replace(Some(serde_json::from_slice(&message.json).unwrap()));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// A name table of one name.
pub fn names(host: &str, address: std::net::IpAddr) -> StaticResource {
    let entry = fairlead_model::names::NameEntry {
        namespace: "shop".to_owned(),
        name: host.split('.').next().unwrap().to_owned(),
        addresses: vec![address],
        ..Default::default()
    };
    let table = fairlead_model::names::NameTable { names: [(host.to_owned(), entry)].into() };
    let json = fairlead_proto::JsonResource::new(1, serde_json::to_vec(&table).unwrap());
    StaticResource::new(ResourceType::NameTable, "names", &json.to_any_bytes(ResourceType::NameTable))
}
