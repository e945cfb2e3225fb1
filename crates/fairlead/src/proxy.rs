//! `fairlead proxy`: the data plane as a sidecar or gateway.
//!
//! Its first credential comes from a file, or is asked of the control plane's admin socket where that can be opened: whoever can
//! open it runs that cluster's workloads anyway. Invariant: no credential is ever an argument.

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use fairlead_model::{ProxyRole, WorkloadRef};
use fairlead_proxy::{
    AccessLogTarget, AppMetrics, AppProbes, Bootstrap, CredentialFiles, ProbeKind, ProbeSpec, ProxyOptions,
};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Run a proxy: a sidecar beside a program, an ingress gateway, or a gateway between clusters.
///
/// Example: fairlead proxy --role sidecar --workload east/shop/frontend --control 192.0.2.1:15012 --bootstrap first.json
#[derive(Args, Debug)]
pub struct ProxyArgs {
    /// What it is.
    #[arg(long, value_enum, default_value_t = Role::Sidecar)]
    role: Role,
    /// Whose proxy, as CLUSTER/NAMESPACE/WORKLOAD.
    #[arg(long)]
    workload: String,
    /// Istio's canonical service of the workload; default: its name.
    #[arg(long)]
    canonical_service: Option<String>,
    /// Istio's canonical revision of the workload.
    #[arg(long, default_value = "latest")]
    canonical_revision: String,
    /// Control plane, HOST:PORT; may be given several times, tried in order.
    #[arg(long, required = true)]
    control: Vec<String>,
    /// SPIFFE ID that the control plane must show (with --credentials-from and --token-file).
    #[arg(long)]
    control_identity: Option<String>,
    /// A file with the first credential: {token, controlIdentity, trustBundles}.
    #[arg(long, required_unless_present_any = ["credentials_from", "token_file"])]
    bootstrap: Option<PathBuf>,
    /// Admin socket of the control plane, to ask for the first credential.
    #[arg(long, conflicts_with = "bootstrap", requires = "control_identity")]
    credentials_from: Option<PathBuf>,
    /// In a pod: its projected service-account token of the audience fairlead.dev/CLUSTER, read anew at each use.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bootstrap", "credentials_from"], requires_all = ["control_identity", "trust_file"])]
    token_file: Option<PathBuf>,
    /// In a pod: bundles.json of the ConfigMap fairlead-trust, read anew at each use.
    #[arg(long, value_name = "FILE", requires = "token_file")]
    trust_file: Option<PathBuf>,
    /// Socket mark of the proxy's own traffic (1337 where capture rules tell it by mark).
    #[arg(long)]
    mark: Option<u32>,
    /// Where the last configuration is kept, without keys.
    #[arg(long)]
    state: Option<PathBuf>,
    /// How to ask whether the program is ready: tcp:PORT, http:PORT/PATH or https:PORT/PATH.
    #[arg(long, value_parser = probe_kind)]
    probe: Option<ProbeKind>,
    /// Where to ask that.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    probe_address: IpAddr,
    /// Address that these questions come from.
    #[arg(long)]
    probe_source: Option<IpAddr>,
    /// A header of these questions, NAME: VALUE; may be given several times.
    #[arg(long, value_parser = header)]
    probe_header: Vec<(String, String)>,
    /// Before the first question.
    #[arg(long, default_value = "0s", value_parser = crate::control::duration)]
    probe_delay: Duration,
    /// Between two questions.
    #[arg(long, default_value = "1s", value_parser = crate::control::duration)]
    probe_period: Duration,
    /// For an answer.
    #[arg(long, default_value = "1s", value_parser = crate::control::duration)]
    probe_timeout: Duration,
    /// Bad answers in a row that make it unready. (Kubernetes' defaults would leave a dead program in rotation for 30 s.)
    #[arg(long, default_value_t = 2)]
    probe_failures: u32,
    /// Good answers in a row that make it ready.
    #[arg(long, default_value_t = 1)]
    probe_successes: u32,
    /// Name server for names that are not the mesh's; may be given several times.
    #[arg(long = "resolver")]
    resolvers: Vec<SocketAddr>,
    /// A resolv.conf whose name servers are asked as well, read once at the start; in a pod /etc/resolv.conf.
    #[arg(long, value_name = "FILE")]
    resolvers_from: Option<PathBuf>,
    /// Data-plane threads.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Per-call records kept for the admin interface; 0: none.
    #[arg(long, default_value_t = 0)]
    records: usize,
    /// Where `/healthz/ready` is answered; merged metrics and probes are on port 15020 of the same address (on any, if the port is 0).
    #[arg(long, default_value = "0.0.0.0:15021")]
    status: SocketAddr,
    /// The program's probes that a kubelet asks through the proxy, as the injector writes them (JSON).
    #[arg(long, value_parser = AppProbes::read, env = "FAIRLEAD_APP_PROBES", hide_env_values = true)]
    app_probes: Option<AppProbes>,
    /// Where the program's own metrics are, PORT or PORT/PATH: they are served with the proxy's.
    #[arg(long)]
    app_metrics: Option<AppMetrics>,
    /// The pod's own address, where its program is asked.
    #[arg(long, env = "POD_IP")]
    pod_ip: Option<IpAddr>,
    /// All access-log lines to this file.
    #[arg(long)]
    access_log: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Sidecar,
    Gateway,
    EastWest,
}

/// Istio's port of an agent: metrics of proxy and program, and the program's probes.
const MERGED_PORT: u16 = 15020;
/// Questions one after the other without a pause would be load.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);
/// A control plane that starts at the same time is waited for.
const CREDENTIAL_PAUSE: Duration = Duration::from_millis(100);

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(args: ProxyArgs, hooks: crate::Hooks) -> anyhow::Result<()> {
    super::logging()?;
    let workload = workload_ref(&args.workload)?;
    let files = args.token_file.zip(args.trust_file).map(|(token, trust)| CredentialFiles { token, trust });
    let bootstrap = match (&args.bootstrap, &args.credentials_from) {
        _ if files.is_some() => {
            Bootstrap { control_identity: args.control_identity.unwrap_or_default(), ..Bootstrap::default() }
        }
        (Some(file), _) => {
            let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no bootstrap file", file.display()))?
        }
        (None, Some(socket)) => {
            ask(socket, &args.workload, args.control_identity.as_deref().unwrap_or_default()).await?
        }
        (None, None) => bail!("--bootstrap FILE, --credentials-from SOCKET or --token-file FILE is needed"),
    };
    let role = match args.role {
        Role::Sidecar => ProxyRole::Sidecar,
        Role::Gateway => ProxyRole::Gateway,
        Role::EastWest => ProxyRole::EastWest,
    };
    let mut options = ProxyOptions::new(role, workload);
    if let Some(service) = args.canonical_service {
        options.canonical_service = service;
    }
    options.canonical_revision = args.canonical_revision;
    options.control = args.control;
    options.bootstrap = bootstrap;
    options.credential_files = files;
    options.mark = args.mark;
    options.state = args.state;
    options.probe = args.probe.map(|mut kind| {
        if let ProbeKind::Http { headers, .. } = &mut kind {
            *headers = args.probe_header;
        }
        ProbeSpec {
            kind,
            address: args.probe_address,
            source: args.probe_source,
            delay: args.probe_delay,
            period: args.probe_period.max(SHORTEST_PERIOD),
            timeout: args.probe_timeout,
            failure_threshold: args.probe_failures,
            success_threshold: args.probe_successes,
        }
    });
    options.resolvers = args.resolvers;
    if let Some(file) = args.resolvers_from {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        options.resolvers.extend(fairlead_proxy::name_servers(&text));
    }
    options.serve.ready = Some(args.status);
    let merged = if args.status.port() == 0 { 0 } else { MERGED_PORT };
    options.serve.merged = Some(SocketAddr::new(args.status.ip(), merged));
    options.app_probes = args.app_probes.unwrap_or_default();
    options.app_metrics = args.app_metrics;
    options.pod_address = args.pod_ip;
    options.concurrency = args.concurrency.max(1);
    options.records = args.records;
    if let Some(file) = args.access_log {
        options.access_log = AccessLogTarget::File(file);
    }
    if let Some(prepare) = hooks.proxy {
        prepare(&mut options);
    }
    fairlead_proxy::run(options).await?;
    Ok(())
}

/// Asks until it is given: the control plane may be starting, or may not have read the workload yet.
async fn ask(socket: &Path, workload: &str, control_identity: &str) -> anyhow::Result<Bootstrap> {
    let mut told = false;
    loop {
        match fairlead_lab::live::admin::post(socket, "/workload-token", &json!({"workload": workload})).await {
            Ok(credential) => {
                let text = |field: &str| {
                    credential[field]
                        .as_str()
                        .map(str::to_owned)
                        .with_context(|| format!("the credential has no {field}"))
                };
                let trust: Value =
                    serde_json::from_str(&text("trust")?).context("the trust of the credential is no JSON")?;
                return Ok(Bootstrap {
                    token: text("token")?,
                    control_identity: control_identity.to_owned(),
                    trust_bundles: trust,
                });
            }
            Err(e) => {
                if !told {
                    tracing::info!("no credential yet: {e}");
                    told = true;
                }
                tokio::time::sleep(CREDENTIAL_PAUSE).await;
            }
        }
    }
}

fn workload_ref(text: &str) -> anyhow::Result<WorkloadRef> {
    let parts: Vec<&str> = text.split('/').collect();
    let [cluster, namespace, name] = parts[..] else {
        bail!("--workload `{text}`: write CLUSTER/NAMESPACE/WORKLOAD");
    };
    Ok(WorkloadRef { cluster: cluster.into(), namespace: namespace.into(), name: name.into() })
}

fn probe_kind(text: &str) -> anyhow::Result<ProbeKind> {
    let wrong = || anyhow!("`{text}`: write tcp:PORT, http:PORT/PATH or https:PORT/PATH");
    let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (port, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let port = port.parse().map_err(|_| wrong())?;
    match kind {
        "tcp" => Ok(ProbeKind::Tcp { port }),
        "http" | "https" => {
            Ok(ProbeKind::Http { port, path: path.to_owned(), tls: kind == "https", headers: Vec::new() })
        }
        _ => Err(wrong()),
    }
}

/// Reads `NAME: VALUE`.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(": ").ok_or("write NAME: VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_workloads() {
        assert_eq!(probe_kind("tcp:9080").unwrap(), ProbeKind::Tcp { port: 9080 });
        let http = |tls| ProbeKind::Http { port: 80, path: "/ready?x".into(), tls, headers: Vec::new() };
        assert_eq!(probe_kind("http:80/ready?x").unwrap(), http(false));
        assert_eq!(probe_kind("https:80/ready?x").unwrap(), http(true));
        assert_eq!(header("x-probe: a: b").unwrap(), ("x-probe".into(), "a: b".into()));
        assert!(probe_kind("exec:ls").is_err());
        assert_eq!(workload_ref("a/b/c").unwrap().to_string(), "a/b/c");
        assert!(workload_ref("a/b").is_err());
    }
}
