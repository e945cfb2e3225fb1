//! `fairlead control`: the control plane of one cluster.

use anyhow::anyhow;
use clap::Args;
use fairlead_control::{ControlOptions, ControlTimings, HomeOptions, KubernetesOptions, Source};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Run the control plane of one cluster: of a mesh directory, or of Kubernetes.
///
/// It watches its cluster's objects (`mesh.yaml` and `clusters/<cluster>/` of a directory, or an API server), issues certificates,
/// tells proxies what to do, and exchanges summaries with its peers. `fairlead up DIR` starts one for each cluster of a directory,
/// `fairlead install` one in a Kubernetes cluster.
///
/// Example: fairlead control --cluster east --directory shop --state /var/lib/fairlead/east --admin /run/fairlead/east.sock
///
/// Example: fairlead control --cluster east --kubernetes --kubeconfig kubeconfig --context east --state east --admin east.sock
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("source").required(true)))]
pub struct ControlArgs {
    /// This cluster; in a mesh directory a folder under clusters/.
    #[arg(long)]
    cluster: String,
    /// The mesh directory.
    #[arg(long, group = "source")]
    directory: Option<PathBuf>,
    /// Read objects from the API server of the cluster that this runs in, or that --kubeconfig names.
    #[arg(long, group = "source")]
    kubernetes: bool,
    /// The kubeconfig; by default the pod's service account, else $KUBECONFIG or ~/.kube/config.
    #[arg(long, conflicts_with = "directory")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; by default its current one.
    #[arg(long, conflicts_with = "directory")]
    context: Option<String>,
    /// Where Mesh, Peer and the control plane's own objects are.
    #[arg(long, conflicts_with = "directory", default_value = "fairlead-system")]
    namespace: String,
    /// Serve a remote cluster: --kubeconfig leads to it, and this namespace of the cluster that this runs in keeps what must last.
    /// `fairlead install --primary` writes such a control plane.
    #[arg(long, requires = "kubeconfig", value_name = "NAMESPACE")]
    home_namespace: Option<String>,
    /// The kubeconfig of the cluster with --home-namespace; by default the pod's service account.
    #[arg(long, requires = "home_namespace")]
    home_kubeconfig: Option<PathBuf>,
    /// How long a token for the remote cluster's API server is asked for; it is renewed at half of that.
    #[arg(long, requires = "home_namespace", default_value = "24h", value_parser = duration)]
    token_lifetime: Duration,
    /// Where proxies and peers connect; may be given several times.
    #[arg(long, default_value = "0.0.0.0:15012")]
    listen: Vec<SocketAddr>,
    /// What peers are told to dial, HOST:PORT; may be given several times.
    #[arg(long)]
    advertise: Vec<String>,
    /// Unix socket of the admin API; only its owner can open it.
    #[arg(long)]
    admin: PathBuf,
    /// Answers /ready and /metrics over plain HTTP.
    #[arg(long)]
    status: Option<SocketAddr>,
    /// Serves the admission webhooks /inject and /validate over TLS.
    #[arg(long)]
    webhook: Option<SocketAddr>,
    /// The injector's settings, a JSON file; it may change at any time.
    #[arg(long, requires = "webhook")]
    injection: Option<PathBuf>,
    /// Where state is kept over restarts.
    #[arg(long)]
    state: PathBuf,
    /// A CA to issue with, in Istio's cacerts layout, instead of an own root.
    #[arg(long)]
    cacerts: Option<PathBuf>,
    /// Longest life of a workload's certificate.
    #[arg(long, default_value = "24h", value_parser = duration)]
    certificate_lifetime: Duration,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: ControlArgs) -> anyhow::Result<()> {
    super::logging()?;
    let source = match args.directory {
        Some(directory) => Source::Directory(directory),
        None => Source::Kubernetes(KubernetesOptions {
            namespace: args.namespace,
            kubeconfig: args.kubeconfig,
            context: args.context,
            home: args.home_namespace.map(|namespace| HomeOptions {
                namespace,
                kubeconfig: args.home_kubeconfig,
                token_lifetime: args.token_lifetime,
            }),
        }),
    };
    fairlead_control::run(ControlOptions {
        cluster: args.cluster,
        source,
        status: args.status,
        webhook: args.webhook,
        injection: args.injection,
        listen: args.listen,
        advertise: args.advertise,
        admin: args.admin,
        state: args.state,
        cacerts: args.cacerts,
        certificate_lifetime: args.certificate_lifetime,
        timings: ControlTimings::default(),
    })
    .await
}

/// A duration as call tables and Go write it.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    fairlead_calls::given::duration(text).map_err(|e| anyhow!(e))
}
