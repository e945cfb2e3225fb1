//! `fairlead proxy-static`: a proxy with fixed resources from a file and, if asked, an identity from files.
//!
//! For benchmarks and experiments; a proxy of a mesh gets both from its control plane. Invariant: nothing but the data plane
//! runs: no admin, no metrics, no DNS listener.

use anyhow::{Context as _, anyhow};
use clap::Args;
use fairlead_identity::credentials::Credentials;
use fairlead_identity::{CertHandle, MeshTls, TrustBundle, TrustBundleSet, TrustDomain};
use fairlead_model::ProxyRole;
use fairlead_proxy::{MeshIdentity, ProxyOptions, ServeAddresses};
use fairlead_runtime::Published;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Run a proxy with fixed resources.
#[derive(Args)]
pub struct ProxyStaticArgs {
    /// JSON list of {type_url, name, body: base64 of the encoded Any}.
    resources: PathBuf,
    /// Data-plane workers.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// PEM chain of the proxy's own certificate, leaf first.
    #[arg(long, requires_all = ["key", "roots", "trust_domain"])]
    certificate: Option<PathBuf>,
    /// PEM of its key.
    #[arg(long)]
    key: Option<PathBuf>,
    /// PEM of the roots of the trust domain.
    #[arg(long)]
    roots: Option<PathBuf>,
    #[arg(long)]
    trust_domain: Option<String>,
}

pub fn run(args: &ProxyStaticArgs) -> anyhow::Result<()> {
    fairlead_identity::provider::install_process_default();
    let resources = fairlead_proxy::read_static(&args.resources)?;
    let identity = match (&args.certificate, &args.key, &args.roots, &args.trust_domain) {
        (Some(certificate), Some(key), Some(roots), Some(domain)) => Some(identity(certificate, key, roots, domain)?),
        _ => None,
    };
    let workload = fairlead_model::endpoint::WorkloadRef {
        cluster: "static".into(),
        namespace: "static".into(),
        name: "static".into(),
    };
    let mut options = ProxyOptions::new(ProxyRole::Sidecar, workload);
    options.serve = ServeAddresses { admin: None, metrics: None, ready: None, merged: None, dns: None };
    options.concurrency = args.concurrency;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fairlead_proxy::run_static(options, &resources, identity))?;
    Ok(())
}

fn identity(certificate: &Path, key: &Path, roots: &Path, domain: &str) -> anyhow::Result<MeshIdentity> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .with_context(|| certificate.display().to_string())?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    let credentials = Credentials::new(chain, key)?;
    let text = std::fs::read_to_string(roots).with_context(|| roots.display().to_string())?;
    let bundle = TrustBundle::from_pem(TrustDomain::new(domain)?, 1, &text)?;
    let trust = Published::new(TrustBundleSet::of(bundle, None)?);
    let source = trust.clone();
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let tls = MeshTls::new(CertHandle::new(credentials), Arc::new(move || source.load()), clock);
    MeshIdentity::new(tls, trust).map_err(|e| anyhow!(e))
}
