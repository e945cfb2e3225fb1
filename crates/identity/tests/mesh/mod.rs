//! A mesh of certificate authorities for tests, and TLS handshakes over memory. No sockets, no real clock.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails
#![allow(dead_code)] // each test binary uses its part

pub mod control;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_identity::{
    Ca, CertHandle, DomainTrust, LeafRequest, MeshTls, SpiffeId, SystemRandom, TrustBundleSet, TrustDomain,
    TrustSource, VerifyError, WorkloadKey,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

pub const START: u64 = 1_800_000_000;

/// A clock that moves when told.
#[derive(Debug)]
pub struct Clock(AtomicU64);

impl Clock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(START)))
    }

    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn now(&self) -> UnixTime {
        at(self.0.load(Ordering::SeqCst))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}

pub fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub fn domain(cluster: &str) -> TrustDomain {
    TrustDomain::new(&format!("{cluster}.shop.example")).unwrap()
}

pub fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// A trust set that a test can exchange while configurations live.
#[derive(Clone)]
pub struct Trust(Arc<Mutex<Arc<TrustBundleSet>>>);

impl Trust {
    pub fn new(set: TrustBundleSet) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(set))))
    }

    pub fn set(&self, set: TrustBundleSet) {
        *self.0.lock().unwrap() = Arc::new(set);
    }

    pub fn get(&self) -> Arc<TrustBundleSet> {
        Arc::clone(&self.0.lock().unwrap())
    }

    pub fn source(&self) -> TrustSource {
        let shared = self.clone();
        Arc::new(move || shared.get())
    }
}

/// Clusters with a root each, that believe each other.
pub struct Mesh {
    pub clock: Arc<Clock>,
    pub cas: BTreeMap<String, Ca>,
    pub trust: Trust,
}

impl Mesh {
    pub fn per_cluster(clusters: &[&str]) -> Self {
        let clock = Clock::new();
        let cas: BTreeMap<String, Ca> = clusters
            .iter()
            .map(|cluster| {
                let ca = Ca::create_root(cluster, &domain(cluster), clock.now(), &mut SystemRandom).unwrap();
                ((*cluster).to_owned(), ca)
            })
            .collect();
        let set = TrustBundleSet::new(cas.iter().map(|(cluster, ca)| {
            (ca.trust_domain().clone(), DomainTrust::new(ca.bundle().clone(), Some(cluster.clone())))
        }))
        .unwrap();
        Self { clock, cas, trust: Trust::new(set) }
    }

    pub fn ca(&self, cluster: &str) -> &Ca {
        &self.cas[cluster]
    }

    /// A service account's identity, with a certificate for `lifetime` from now.
    pub fn handle(&self, cluster: &str, account: &str, lifetime: u64) -> CertHandle {
        let identity = domain(cluster).service_account("shop", account).unwrap();
        CertHandle::new(issue(self.ca(cluster), &identity, lifetime, self.clock.now()))
    }

    pub fn tls(&self, handle: &CertHandle) -> MeshTls {
        MeshTls::new(handle.clone(), self.trust.source(), self.clock.clone())
    }
}

pub fn issue(
    ca: &Ca,
    identity: &SpiffeId,
    lifetime: u64,
    now: UnixTime,
) -> fairlead_identity::credentials::Credentials {
    let key = WorkloadKey::generate().unwrap();
    let csr = key.csr().unwrap();
    let request = LeafRequest {
        csr_der: &csr,
        identity,
        workload: None,
        pod_uid: None,
        lifetime: Duration::from_secs(lifetime),
        now,
    };
    let chain = if identity.is_reserved() {
        ca.issue_reserved(&request, &mut SystemRandom)
    } else {
        ca.issue(&request, &mut SystemRandom)
    };
    key.certified(chain.unwrap()).unwrap()
}

/// Both ends after a handshake that may have failed.
pub struct Handshake {
    pub client: ClientConnection,
    pub server: ServerConnection,
    pub client_error: Option<rustls::Error>,
    pub server_error: Option<rustls::Error>,
}

impl Handshake {
    pub fn run(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Self {
        Self::named(client, server, "outbound_.9080_.ep-7_.reviews.shop.svc.cluster.local")
    }

    pub fn named(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, sni: &str) -> Self {
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let mut this = Self {
            client: ClientConnection::new(Arc::clone(client), name).unwrap(),
            server: ServerConnection::new(Arc::clone(server)).unwrap(),
            client_error: None,
            server_error: None,
        };
        this.pump();
        this
    }

    /// Carries bytes both ways until neither end has more to say.
    pub fn pump(&mut self) {
        loop {
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            let up = wire.len();
            let mut bytes = wire.as_slice();
            while !bytes.is_empty() && self.server.read_tls(&mut bytes).unwrap() > 0 {
                if let Err(error) = self.server.process_new_packets() {
                    self.server_error.get_or_insert(error);
                    break;
                }
            }
            let mut wire = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut wire).unwrap();
            }
            let down = wire.len();
            let mut bytes = wire.as_slice();
            while !bytes.is_empty() && self.client.read_tls(&mut bytes).unwrap() > 0 {
                if let Err(error) = self.client.process_new_packets() {
                    self.client_error.get_or_insert(error);
                    break;
                }
            }
            if up == 0 && down == 0 {
                return;
            }
        }
    }

    pub fn is_good(&self) -> bool {
        self.client_error.is_none()
            && self.server_error.is_none()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }

    pub fn resumed(&self) -> bool {
        let client = self.client.handshake_kind() == Some(HandshakeKind::Resumed);
        let server = self.server.handshake_kind() == Some(HandshakeKind::Resumed);
        assert_eq!(client, server, "both ends agree on resumption");
        client
    }

    pub fn server_reason(&self) -> Option<VerifyError> {
        self.server_error.as_ref().and_then(VerifyError::find)
    }

    pub fn client_reason(&self) -> Option<VerifyError> {
        self.client_error.as_ref().and_then(VerifyError::find)
    }

    /// What the server remembers of the client, also after a resumption.
    pub fn client_chain(&self) -> Vec<CertificateDer<'static>> {
        self.server.peer_certificates().unwrap_or_default().to_vec()
    }
}
