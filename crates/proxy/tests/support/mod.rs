//! What component tests are made of: identities, Envoy resources, a program to call. Loopback only, ports by the kernel.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails
#![allow(dead_code)] // each test binary uses its part

pub mod client;
pub mod control_plane;
pub mod echo;
pub mod resources;

use fairlead_identity::{
    Ca, CertHandle, DomainTrust, LeafRequest, MeshTls, SpiffeId, SystemRandom, TrustBundleSet, TrustDomain, WorkloadKey,
};
use fairlead_model::{ProxyRole, WorkloadRef};
use fairlead_proxy::{AccessLogTarget, MeshIdentity, ProxyOptions, ServeAddresses, StaticProxy, StaticResource};
use fairlead_runtime::Published;
use rustls::pki_types::UnixTime;
use rustls::time_provider::DefaultTimeProvider;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Certificate authorities that believe each other.
pub struct Pki {
    pub cas: BTreeMap<String, Ca>,
    pub bundles: TrustBundleSet,
}

impl Pki {
    pub fn new(clusters: &[&str]) -> Self {
        let now = UnixTime::now();
        let root = |cluster: &&str| Ca::create_root(cluster, &domain(cluster), now, &mut SystemRandom).unwrap();
        let cas: BTreeMap<String, Ca> = clusters.iter().map(|c| ((*c).to_owned(), root(c))).collect();
        let trust = |(cluster, ca): (&String, &Ca)| {
            (ca.trust_domain().clone(), DomainTrust::new(ca.bundle().clone(), Some(cluster.clone())))
        };
        let bundles = TrustBundleSet::new(cas.iter().map(trust)).unwrap();
        Self { cas, bundles }
    }

    pub fn handle(&self, cluster: &str, account: &str) -> CertHandle {
        let identity = id(cluster, account);
        let key = WorkloadKey::generate().unwrap();
        let request = LeafRequest {
            csr_der: &key.csr().unwrap(),
            identity: &identity,
            workload: None,
            pod_uid: None,
            lifetime: Duration::from_secs(3600),
            now: UnixTime::now(),
        };
        let chain = self.cas[cluster].issue(&request, &mut SystemRandom).unwrap();
        CertHandle::new(key.certified(chain).unwrap())
    }

    pub fn tls(&self, handle: CertHandle) -> (MeshTls, Published<TrustBundleSet>) {
        let trust = Published::new(self.bundles.clone());
        let source = trust.clone();
        (MeshTls::new(handle, Arc::new(move || source.load()), Arc::new(DefaultTimeProvider)), trust)
    }

    pub fn identity(&self, cluster: &str, account: &str) -> MeshIdentity {
        let (tls, trust) = self.tls(self.handle(cluster, account));
        MeshIdentity::new(tls, trust).unwrap()
    }
}

pub fn domain(cluster: &str) -> TrustDomain {
    TrustDomain::new(&format!("{cluster}.shop.example")).unwrap()
}

pub fn id(cluster: &str, account: &str) -> SpiffeId {
    domain(cluster).service_account("shop", account).unwrap()
}

pub fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Options of a proxy in a test: nothing but its listeners, and every call recorded.
pub fn options(cluster: &str, workload: &str) -> ProxyOptions {
    let workload = WorkloadRef { cluster: cluster.into(), namespace: "shop".into(), name: workload.into() };
    let mut options = ProxyOptions::new(ProxyRole::Sidecar, workload);
    options.serve = ServeAddresses { admin: Some(any_port()), metrics: None, ready: None, merged: None, dns: None };
    options.access_log = AccessLogTarget::Off;
    options.records = 1000;
    options.drain.limit = std::time::Duration::from_secs(2);
    options
}

pub async fn start(
    options: ProxyOptions,
    resources: Vec<StaticResource>,
    identity: Option<MeshIdentity>,
) -> StaticProxy {
    fairlead_proxy::start_static(options, &resources, identity).await.unwrap()
}

/// The first `count` records and whatever followed. A record is told when its exchange or connection has ended, which a
/// caller may see first.
pub async fn told(proxy: &StaticProxy, count: usize) -> Vec<fairlead_proxy::CallRecord> {
    while proxy.records().len() < count {
        tokio::task::yield_now().await;
    }
    proxy.records()
}
