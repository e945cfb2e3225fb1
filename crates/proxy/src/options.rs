//! What a proxy is started with.
//!
//! Everything a proxy does beyond this comes from the resources it is sent. Invariant: no secret is in here but the
//! bootstrap credential, which is good once.

use crate::rewrite::Rewrite;
use crate::status::{AppMetrics, AppProbes};
use fairlead_model::{ProxyRole, WorkloadRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How to run a proxy that is told by a control plane.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    pub role: ProxyRole,
    pub workload: WorkloadRef,
    /// Istio's canonical service and revision of the workload, for metrics.
    pub canonical_service: String,
    pub canonical_revision: String,
    /// `host:port` of control planes, tried in order (port 15012).
    pub control: Vec<String>,
    pub bootstrap: Bootstrap,
    /// A pod's projected files, in place of the token and the trust of `bootstrap`.
    pub credential_files: Option<CredentialFiles>,
    /// Addresses to bind instead of what a listener resource says, by listener name.
    pub bind: BTreeMap<String, SocketAddr>,
    pub serve: ServeAddresses,
    /// Resolvers for names that are not the mesh's.
    pub resolvers: Vec<SocketAddr>,
    /// `SO_MARK` of the proxy's own traffic; the lab uses 1337. None: capture tells it by its user.
    pub mark: Option<u32>,
    /// Where the last acked resources are kept, without keys.
    pub state: Option<PathBuf>,
    /// Readiness of the program behind a sidecar.
    pub probe: Option<ProbeSpec>,
    /// The workload's own address, where its program is asked and found; None: 127.0.0.1.
    pub pod_address: Option<IpAddr>,
    /// Probes of the program that a kubelet asks through the proxy.
    pub app_probes: AppProbes,
    /// Where the program's own metrics are.
    pub app_metrics: Option<AppMetrics>,
    pub drain: DrainTimes,
    /// Data-plane workers, each a thread of its own.
    pub concurrency: usize,
    pub access_log: AccessLogTarget,
    /// Per-call records kept for `/fairlead/records`; 0 turns them off.
    pub records: usize,
    /// Changes what came before it is used. Only tests that seed faults set it.
    pub rewrite: Option<Rewrite>,
}

/// How a proxy proves itself the first time: written by whoever starts it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bootstrap {
    /// Workload token, good once.
    pub token: String,
    /// SPIFFE ID the control plane must show.
    pub control_identity: String,
    /// JSON of the trust bundle set that verifies it.
    pub trust_bundles: serde_json::Value,
}

/// What a kubelet keeps fresh in a pod. Both are read anew each time they are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The projected service-account token; the kubelet replaces it before it ends.
    pub token: PathBuf,
    /// The trust bundle set, from the ConfigMap that the control plane keeps in each namespace.
    pub trust: PathBuf,
}

/// Where the proxy's own services listen; `None` turns one off.
#[derive(Clone, Debug)]
pub struct ServeAddresses {
    /// `/config_dump`, `/clusters`, `/stats`, `/drain`, …
    pub admin: Option<SocketAddr>,
    /// `/stats/prometheus`.
    pub metrics: Option<SocketAddr>,
    /// `/healthz/ready`.
    pub ready: Option<SocketAddr>,
    /// `/stats/prometheus` with the program's, `/app-health/…`, `/quitquitquit`.
    pub merged: Option<SocketAddr>,
    pub dns: Option<SocketAddr>,
}

/// Kubernetes' readiness probe. What is not written is a lab's: asked every second, so that a dead program is found in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSpec {
    pub kind: ProbeKind,
    #[serde(default = "loopback")]
    pub address: IpAddr,
    /// Address that questions come from; None: as the kernel chooses.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// Before the first question.
    #[serde(default)]
    pub delay: Duration,
    #[serde(default = "one_second")]
    pub period: Duration,
    #[serde(default = "one_second")]
    pub timeout: Duration,
    /// Bad answers in a row that make it unready.
    #[serde(default = "two")]
    pub failure_threshold: u32,
    /// Good answers in a row that make it ready.
    #[serde(default = "one")]
    pub success_threshold: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeKind {
    /// The port accepts.
    Tcp { port: u16 },
    /// gRPC's health service says SERVING, in plaintext.
    Grpc {
        port: u16,
        /// Empty: the whole server.
        #[serde(default)]
        service: String,
    },
    /// The path answers 200 to 399; with TLS the certificate is not verified, as a kubelet does not.
    Http {
        port: u16,
        path: String,
        #[serde(default)]
        tls: bool,
        /// `host` among them takes the place of the address.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
}

/// How long ending takes.
#[derive(Clone, Copy, Debug)]
pub struct DrainTimes {
    /// New work is still taken this long, marked as the last on its connection, so that callers can leave by themselves.
    pub grace: Duration,
    /// Work in flight is cut after this.
    pub limit: Duration,
}

/// Where access-log lines of a listener that asks for them go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// As the resource says (`/dev/stdout`, or a file).
    #[default]
    AsConfigured,
    /// All to one file.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl Default for ServeAddresses {
    fn default() -> Self {
        let any = |port| Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        Self {
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 15000))),
            metrics: any(15090),
            ready: any(15021),
            merged: any(15020),
            dns: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 15053))),
        }
    }
}

impl Default for DrainTimes {
    fn default() -> Self {
        // Istio's termination drain is 5 s.
        Self { grace: Duration::from_millis(500), limit: Duration::from_secs(5) }
    }
}

impl ProxyOptions {
    /// Options of a proxy of `workload` with every default.
    pub fn new(role: ProxyRole, workload: WorkloadRef) -> Self {
        Self {
            role,
            canonical_service: workload.name.to_string(),
            canonical_revision: "latest".to_owned(),
            workload,
            control: Vec::new(),
            bootstrap: Bootstrap::default(),
            credential_files: None,
            bind: BTreeMap::new(),
            serve: ServeAddresses::default(),
            resolvers: Vec::new(),
            mark: None,
            state: None,
            probe: None,
            pod_address: None,
            app_probes: AppProbes::default(),
            app_metrics: None,
            drain: DrainTimes::default(),
            concurrency: 1,
            access_log: AccessLogTarget::default(),
            records: 0,
            rewrite: None,
        }
    }
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn two() -> u32 {
    2
}

fn one() -> u32 {
    1
}
