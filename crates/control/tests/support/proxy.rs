//! A proxy as the control plane sees one: a certificate by token, a discovery stream, a report stream.

use super::{Plane, SOON};
use fairlead_identity::{
    CertHandle, Expected, MeshTls, PeerVerifier, SpiffeId, TrustBundleSet, TrustSource, VerifyError, WorkloadKey,
    certificate, verdict,
};
use fairlead_model::listing::WorkloadCredential;
use fairlead_model::report::{ProxyStatus, STATUS};
use fairlead_proto::certificates::{CertificatesClient, SignRequest};
use fairlead_proto::reports::ReportsClient;
use fairlead_proto::{JsonMessage, ResourceType};
use fairlead_xds::client::{
    ChannelOptions, Client, ClientConfig, ClientStatus, Connect, Handler, Rejection, Saved, Update, channel, client,
    connector,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::DefaultTimeProvider;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

/// Who a proxy is, after its first certificate.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: WorkloadKey,
    pub trust: Arc<TrustBundleSet>,
    connect: Connect,
    address: String,
}

/// What arrived, by type and name.
#[derive(Default)]
pub struct Received {
    pub versions: BTreeMap<(String, String), String>,
    pub bodies: BTreeMap<(String, String), bytes::Bytes>,
    /// Resources sent by the server, restored ones not counted.
    pub sent: usize,
}

pub struct Proxy {
    pub received: Arc<Mutex<Received>>,
    pub client: Client,
    _runtime: tokio::runtime::Runtime,
}

struct Take(Arc<Mutex<Received>>);

impl Handler for Take {
    fn apply(&mut self, update: Update<'_>) -> Vec<Rejection> {
        let mut received = self.0.lock().unwrap();
        for resource in update.upserts {
            let key = (update.type_url.to_owned(), resource.name.to_string());
            received.versions.insert(key.clone(), resource.version.to_string());
            received.bodies.insert(key, resource.body.clone());
            received.sent += usize::from(!update.restored);
        }
        for name in update.removed {
            received.versions.remove(&(update.type_url.to_owned(), name.to_string()));
        }
        Vec::new()
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl Identity {
    /// A first certificate for a workload, by a token from the admin API.
    pub fn of(plane: &Plane, workload: &str) -> Self {
        let answer = plane.post("/workload-token", json!({"workload": workload}));
        let credential: WorkloadCredential =
            serde_json::from_value(answer.clone()).unwrap_or_else(|e| panic!("{e}: {answer}"));
        Self::with(plane, &credential).unwrap()
    }

    pub fn with(plane: &Plane, credential: &WorkloadCredential) -> Result<Self, tonic::Status> {
        let trust = Arc::new(TrustBundleSet::from_json(&credential.trust).unwrap());
        let key = WorkloadKey::generate().unwrap();
        let stranger = dialler(&trust, None);
        let (chain, trust) = sign(&stranger, &plane.address, &key, &credential.token)?;
        let connect = dialler(&trust, Some((&key, &chain)));
        Ok(Self { chain, key, trust, connect, address: plane.address.clone() })
    }

    /// A first certificate for a key that the caller keeps, as PEM.
    pub fn chain_for(plane: &Plane, workload: &str, csr_der: Vec<u8>) -> (String, Arc<TrustBundleSet>) {
        let answer = plane.post("/workload-token", json!({"workload": workload}));
        let credential: WorkloadCredential =
            serde_json::from_value(answer.clone()).unwrap_or_else(|e| panic!("{e}: {answer}"));
        let trust = Arc::new(TrustBundleSet::from_json(&credential.trust).unwrap());
        let request = SignRequest { csr_der: csr_der.into(), credential: credential.token, ..SignRequest::default() };
        let (chain, trust) = ask(&dialler(&trust, None), &plane.address, request).unwrap();
        (certificate::certificates_to_pem(&chain), trust)
    }

    /// Whether a token and a signing request are answered with a certificate.
    pub fn ask(plane: &Plane, credential: &WorkloadCredential, csr_der: &[u8]) -> Result<(), tonic::Status> {
        let trust = Arc::new(TrustBundleSet::from_json(&credential.trust).unwrap());
        let request = SignRequest {
            csr_der: csr_der.to_vec().into(),
            credential: credential.token.clone(),
            ..SignRequest::default()
        };
        ask(&dialler(&trust, None), &plane.address, request).map(|_| ())
    }

    /// A new certificate by the current one.
    pub fn renew(&self) -> Result<(), tonic::Status> {
        sign(&self.connect, &self.address, &self.key, "").map(|_| ())
    }

    pub fn verify_by(&self, trust: &TrustBundleSet) -> Result<(), VerifyError> {
        verdict(&self.chain, trust, UnixTime::now()).map(|_| ())
    }

    /// Opens a discovery stream.
    pub fn subscribe(&self, saved: Option<Saved>) -> Proxy {
        self.subscribe_as("fairlead", saved)
    }

    /// As another kind of client.
    pub fn subscribe_as(&self, user_agent: &str, saved: Option<Saved>) -> Proxy {
        let runtime = runtime();
        let received = Arc::new(Mutex::new(Received::default()));
        let mut config = ClientConfig::new([self.address.clone()]).node_id("test");
        config.node.user_agent_name = user_agent.into();
        config.saved = saved;
        let (handle, run) = client(config, self.connect.clone(), Take(received.clone()));
        for kind in ResourceType::OF_DATA_PLANES {
            handle.subscribe_all(kind.url());
        }
        runtime.spawn(run);
        Proxy { received, client: handle, _runtime: runtime }
    }

    /// This identity, calling another control plane.
    pub fn at(&self, plane: &Plane) -> Self {
        let connect = dialler(&self.trust, Some((&self.key, &self.chain)));
        let key = WorkloadKey::generate().unwrap();
        Self { chain: self.chain.clone(), key, trust: self.trust.clone(), connect, address: plane.address.clone() }
    }

    /// Opens a report stream; what is sent into it is reported, and it ends with the sender.
    pub fn report(&self) -> (mpsc::Sender<JsonMessage>, tokio::runtime::Runtime) {
        let runtime = runtime();
        let (sender, messages) = mpsc::channel(8);
        let (address, connect) = (self.address.clone(), self.connect.clone());
        let opened = runtime.block_on(async move {
            let client = ReportsClient::new(open(&address, connect).await);
            client.stream(tokio_stream::wrappers::ReceiverStream::new(messages)).await
        });
        let mut answers = opened.unwrap();
        runtime.spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
        (sender, runtime)
    }

    /// Whether the control plane lets this identity have a discovery stream at all.
    pub fn is_refused(&self) -> bool {
        let proxy = self.subscribe(None);
        let begun = Instant::now();
        loop {
            let status = proxy.status();
            if status.responses > 0 {
                return false;
            }
            if status.last_error.is_some() {
                return true;
            }
            assert!(begun.elapsed() < SOON, "neither served nor refused");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub fn status(ready: bool, paths: &[(&str, bool)]) -> JsonMessage {
    let status = ProxyStatus {
        ready,
        paths: paths.iter().map(|(cluster, up)| ((*cluster).into(), *up)).collect(),
        ..ProxyStatus::default()
    };
    JsonMessage::new(STATUS, serde_json::to_vec(&status).unwrap())
}

impl Proxy {
    pub fn status(&self) -> ClientStatus {
        self.client.status().borrow().clone()
    }

    /// Waits until what was received is as wanted.
    pub fn until(&self, what: &str, wanted: impl Fn(&Received) -> bool) {
        let begun = Instant::now();
        while !wanted(&self.received.lock().unwrap()) {
            assert!(begun.elapsed() < SOON, "never {what}: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn synced(&self) {
        let begun = Instant::now();
        while !self.status().synced {
            assert!(begun.elapsed() < SOON, "never in step: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn versions(&self) -> BTreeMap<(String, String), String> {
        self.received.lock().unwrap().versions.clone()
    }

    pub fn version(&self, kind: ResourceType, name: &str) -> Option<String> {
        self.received.lock().unwrap().versions.get(&(kind.url().to_owned(), name.to_owned())).cloned()
    }

    /// The endpoints of an Envoy cluster.
    pub fn endpoints(&self, name: &str) -> Vec<fairlead_proto::envoy::endpoint::LbEndpoint> {
        use fairlead_proto::envoy::endpoint::ClusterLoadAssignment;
        let received = self.received.lock().unwrap();
        let key = (ResourceType::ClusterLoadAssignment.url().to_owned(), name.to_owned());
        let Some(body) = received.bodies.get(&key) else { return Vec::new() };
        let assignment: ClusterLoadAssignment = fairlead_proto::any::unpack_bytes(body).unwrap();
        assignment.endpoints.into_iter().flat_map(|l| l.lb_endpoints).collect()
    }

    pub fn saved(&self) -> Saved {
        self._runtime.block_on(self.client.saved()).unwrap()
    }
}

pub async fn open(address: &str, connect: Connect) -> Channel {
    channel(address, connect, ChannelOptions::default()).await.unwrap()
}

fn sign(
    connect: &Connect,
    address: &str,
    key: &WorkloadKey,
    credential: &str,
) -> Result<(Vec<CertificateDer<'static>>, Arc<TrustBundleSet>), tonic::Status> {
    let request =
        SignRequest { csr_der: key.csr().unwrap().into(), credential: credential.into(), ..SignRequest::default() };
    ask(connect, address, request)
}

fn ask(
    connect: &Connect,
    address: &str,
    request: SignRequest,
) -> Result<(Vec<CertificateDer<'static>>, Arc<TrustBundleSet>), tonic::Status> {
    let answer = runtime().block_on(async {
        let client = CertificatesClient::new(open(address, connect.clone()).await);
        client.sign(request).await
    })?;
    let chain = answer.chain_pem.iter().flat_map(|pem| certificate::certificates_from_pem(pem).unwrap()).collect();
    let trust = TrustBundleSet::from_json(std::str::from_utf8(&answer.bundles_json).unwrap()).unwrap();
    Ok((chain, Arc::new(trust)))
}

/// TLS to the control plane: as nobody, or with a certificate.
fn dialler(trust: &Arc<TrustBundleSet>, own: Option<(&WorkloadKey, &[CertificateDer<'static>])>) -> Connect {
    let source: TrustSource = {
        let trust = trust.clone();
        Arc::new(move || trust.clone())
    };
    let expected = Expected::matching("a control plane", |id: &SpiffeId| id.path() == "/fairlead/control");
    let config = match own {
        Some((key, chain)) => {
            let handle = CertHandle::new(key.certified(chain.to_vec()).unwrap());
            let tls = MeshTls::new(handle, source, Arc::new(DefaultTimeProvider));
            tls.client_config(&expected, &[b"h2"]).unwrap()
        }
        None => {
            let verifier = PeerVerifier::new(source, expected);
            fairlead_identity::tls::client_config(None, verifier, &(Arc::new(DefaultTimeProvider) as _), &[b"h2"])
                .unwrap()
        }
    };
    connector(move |address: String| {
        let config = config.clone();
        async move {
            let stream = TcpStream::connect(&address).await?;
            let name = ServerName::try_from("control.fairlead.invalid").map_err(std::io::Error::other)?;
            TlsConnector::from(config).connect(name, stream).await
        }
    })
}
