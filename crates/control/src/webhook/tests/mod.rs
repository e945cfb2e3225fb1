//! The webhooks as an API server calls them: over TLS, with reviews as it writes them.

mod ca_bundle;
mod connections;
mod reviews;

use super::certificate::Serving;
use super::injection::Injector;
use super::profile::CurrentProfile;
use super::server::{self, Limits, Webhooks};
use super::validation::Validator;
use crate::authority::{Authority, Opening};
use crate::store::Store;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const NAME: &str = "fairlead-control.fairlead-system.svc";

struct Served {
    address: SocketAddr,
    serving: Arc<Serving>,
    client: TlsConnector,
}

async fn serve(settings: Option<PathBuf>) -> Served {
    serve_within(settings, Limits::default()).await
}

async fn serve_within(settings: Option<PathBuf>, limits: Limits) -> Served {
    fairlead_identity::provider::install_process_default();
    let opening = Opening::plain("east", "east.shop.example");
    let authority = Arc::new(Authority::open(&opening, Arc::new(Store::in_memory().unwrap())).unwrap());
    let injector = Injector::new(settings, "east", "east.shop.example");
    let (service, namespace) = injector.service();
    let serving = Arc::new(Serving::new(authority, &service, &namespace).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody is there to be asked: what is known at the start holds.
    let profile = CurrentProfile::new(tokio::sync::mpsc::unbounded_channel().0);
    let webhooks = Webhooks { injector, validator: Validator::new("east"), profile };
    tokio::spawn(server::serve(listener, serving.config().unwrap(), Arc::new(webhooks), limits));
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(serving.ca_bundle().as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // As Go's: a resumed session would show the certificate of the first.
    config.resumption = Resumption::disabled();
    Served { address, serving, client: TlsConnector::from(Arc::new(config)) }
}

impl Served {
    async fn connect(&self, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_from("127.0.0.1", name).await
    }

    async fn connect_from(&self, source: &str, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source.parse::<IpAddr>().unwrap(), 0).into())?;
        let stream = socket.connect(self.address).await?;
        self.client.connect(ServerName::try_from(name).unwrap(), stream).await
    }

    async fn review(&self, path: &str, request: Value) -> Value {
        let mut stream = self.connect(NAME).await.unwrap();
        let (status, body) = post(&mut stream, path, review(request).to_string().as_bytes()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
        assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        answer["response"].clone()
    }
}

/// One request on a connection that stays.
async fn post(stream: &mut TlsStream<TcpStream>, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let head = format!("POST {path}?timeout=10s HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (status, body)
}

/// As an API server of 1.35 writes it, with what it puts around every request.
fn review(mut request: Value) -> Value {
    let common = json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "dryRun": false, "options": null,
        "userInfo": {"username": "admin", "groups": ["system:masters"]},
    });
    for (key, value) in common.as_object().unwrap() {
        request[key] = value.clone();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

fn creating_pod(metadata: Value, spec: Value) -> Value {
    json!({
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "shop", "operation": "CREATE", "oldObject": null,
        "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": {}},
    })
}

fn pod() -> Value {
    creating_pod(json!({"generateName": "web-"}), json!({"containers": [{"name": "web", "image": "web"}]}))
}
