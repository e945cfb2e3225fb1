//! From an accepted socket to the handler of its filter chain: sniff, choose, terminate TLS, dispatch.
//!
//! Invariant: no byte is answered before a filter chain was chosen; a connection that no chain takes is closed in silence.

use super::connection::Connection;
use super::drain::Stage;
use super::run::Worker;
use crate::telemetry::{Flags, TcpRecord};
use fairlead_engine::decide;
use fairlead_engine::listener::{FilterChain, Listener, Mode, NetworkFilter, Sniffed as SniffedView, Transport};
use fairlead_identity::{ClientAuth, Expected, verdict};
use fairlead_transport::{Accepted, ClientHello, HttpKind, SniffWant, Sniffed, Stream, sniff, tls};
use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// ALPN that a mesh caller may bring without HTTP being meant.
const MESH_ALPN: [&str; 2] = ["istio-peer-exchange", "istio"];

/// Serves one connection to its end.
pub async fn serve(worker: Rc<Worker>, name: &str, accepted: Accepted) {
    let world = worker.world();
    let Some(accepting) = world.snapshot.listener(name).cloned() else { return };
    let listener = decide::listener(&world.snapshot, &accepting, accepted.original).clone();
    drop(world);
    let Accepted { io: mut raw, peer, local, original } = accepted;
    let want = SniffWant { tls: listener.tls_inspector, http: listener.http_inspector };
    let sniffed = match sniff(&mut raw, want, listener.sniff_timeout).await {
        // Who says nothing speaks a server-first protocol only where the listener says so.
        Ok(sniffed) if sniffed.silent && !listener.continue_on_sniff_timeout => return,
        Ok(sniffed) => sniffed,
        Err(_) => return,
    };
    let Some(chain) = choose(&listener, &sniffed, peer, original) else {
        tracing::debug!(listener = %listener.name, %peer, %original, "no filter chain matches");
        let chain = Arc::new(empty_chain());
        let connection = Rc::new(Connection::new(listener.clone(), chain, peer, local, original));
        let log = worker.telemetry.logs.logger(&worker.telemetry.sink, &listener.access_log);
        let mut record = TcpRecord::begin(&worker, &connection, log);
        record.flags.insert(Flags::NO_ROUTE);
        record.details = Cow::Borrowed("filter_chain_not_found");
        return;
    };
    let mut connection = Connection::new(listener.clone(), chain.clone(), peer, local, original);
    connection.sni = sniffed.tls.as_ref().and_then(|hello| hello.sni.clone());
    let stream = match &chain.tls {
        None => Stream::Plain(raw),
        Some(context) => match terminate(&worker, raw, context, sniffed.tls.as_ref(), &mut connection).await {
            Ok(stream) => stream,
            Err(reason) => {
                tracing::debug!(listener = %listener.name, %peer, reason, "TLS refused");
                let log = worker.telemetry.logs.logger(&worker.telemetry.sink, &listener.access_log);
                let mut record = TcpRecord::begin(&worker, &Rc::new(connection), log);
                record.flags.insert(Flags::DOWNSTREAM_PROTOCOL_ERROR);
                record.termination = Some(Cow::Owned(reason.replace(' ', "_")));
                return;
            }
        },
    };
    let connection = Rc::new(connection);
    let close = connection.close.clone();
    let http = sniffed.http;
    let serving = async {
        match chain.terminal() {
            Some(NetworkFilter::Http(manager)) => {
                crate::http::serve(worker.clone(), connection, manager.clone(), stream, http).await;
            }
            Some(NetworkFilter::TcpProxy(proxy)) => {
                crate::tcp::serve(worker.clone(), connection, proxy.clone(), stream).await;
            }
            // A probe chain: the handshake was the answer.
            _ => shut(stream).await,
        }
    };
    tokio::select! {
        biased;
        () = serving => {}
        () = close.notified() => {}
        () = worker.drain.reached(Stage::Cut) => {}
    }
}

fn choose(
    listener: &Listener,
    sniffed: &Sniffed,
    peer: std::net::SocketAddr,
    original: std::net::SocketAddr,
) -> Option<Arc<FilterChain>> {
    let mut protocols: Vec<&[u8]> = Vec::new();
    if let Some(hello) = &sniffed.tls {
        protocols.extend(hello.alpn.iter().map(String::as_bytes));
    }
    match sniffed.http {
        Some(HttpKind::Http10) => protocols.push(b"http/1.0"),
        Some(HttpKind::Http11) => protocols.push(b"http/1.1"),
        Some(HttpKind::Http2) => protocols.push(b"h2c"),
        None => {}
    }
    let view = SniffedView {
        destination: original,
        source: peer,
        transport: if sniffed.tls.is_some() { Transport::Tls } else { Transport::RawBuffer },
        server_name: sniffed.tls.as_ref().and_then(|hello| hello.sni.as_deref()),
        application_protocols: &protocols,
    };
    decide::filter_chain(listener, &view).cloned()
}

async fn terminate(
    worker: &Rc<Worker>,
    raw: fairlead_transport::Raw,
    context: &Arc<fairlead_engine::listener::TlsContext>,
    hello: Option<&ClientHello>,
    connection: &mut Connection,
) -> Result<Stream, String> {
    let identity = worker.shared.identity.as_ref().ok_or("this proxy has no identity")?;
    let config = worker.server_configs.of(context, |context| {
        let auth = if context.require_client_certificate { ClientAuth::Required } else { ClientAuth::Optional };
        let mut alpn: Vec<&[u8]> = context.alpn.iter().map(|name| name.as_bytes()).collect();
        if !alpn.is_empty() && context.mode == Mode::Mesh {
            for mesh in MESH_ALPN {
                if !alpn.contains(&mesh.as_bytes()) {
                    alpn.push(mesh.as_bytes());
                }
            }
        }
        identity.tls().server_config(auth, Expected::Any, &alpn).map_err(|e| e.to_string())
    })?;
    let config = without_foreign_alpn(config, hello);
    let (stream, facts) = tls::accept(raw, config).await.map_err(|e| e.to_string())?;
    connection.tls = true;
    connection.alpn = facts.alpn;
    if facts.sni.is_some() {
        connection.sni = facts.sni;
    }
    if !facts.chain.is_empty() {
        // Taken anew even after a full handshake: a resumed session was never shown to the verifier.
        let peer = verdict(&facts.chain, &identity.current_trust(), UnixTime::now()).map_err(|e| e.to_string())?;
        if !context.accepts_uri(peer.spiffe_id.as_str()) {
            return Err(format!("{} is not among the identities this listener accepts", peer.spiffe_id.as_str()));
        }
        connection.set_leaf(facts.chain.first());
        worker.live.watch(peer.clone(), &connection.close);
        connection.peer = Some(peer);
    } else if context.require_client_certificate {
        return Err("the client showed no certificate".to_owned());
    }
    Ok(stream)
}

/// A client whose protocols are all unknown here is served without one, as Envoy does: rustls would refuse it (RFC 7301 §3.2 lets a
/// server do either).
fn without_foreign_alpn(config: Arc<ServerConfig>, hello: Option<&ClientHello>) -> Arc<ServerConfig> {
    let offered = hello.map(|hello| &hello.alpn[..]).unwrap_or_default();
    let common = offered.iter().any(|name| config.alpn_protocols.iter().any(|own| own == name.as_bytes()));
    if offered.is_empty() || common {
        return config;
    }
    let mut without = ServerConfig::clone(&config);
    without.alpn_protocols.clear();
    Arc::new(without)
}

async fn shut(mut stream: Stream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _ = stream.shutdown().await;
    // Waits for the prober's own end, so that it sees a clean close and not a reset.
    let mut rest = [0; 256];
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), async {
        while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
    })
    .await;
}

fn empty_chain() -> FilterChain {
    FilterChain { name: "".into(), matching: Default::default(), tls: None, filters: Vec::new(), origin: None }
}
