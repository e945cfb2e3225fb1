//! Listeners and paths of the admin interface.

use super::{clusters, config_dump, stats};
use crate::assembly::Assembly;
use crate::dns::{DnsServer, Upstreams};
use crate::shared::Shared;
use crate::status::Status;
use crate::worker::{Stage, WorkerEvent};
use bytes::Bytes;
use fairlead_runtime::Readiness;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc::UnboundedSender;

/// What the endpoints need.
pub struct Admin {
    pub shared: Arc<Shared>,
    pub readiness: Readiness,
    pub draining: fairlead_runtime::Drain,
    pub workers: Vec<UnboundedSender<WorkerEvent>>,
    pub started: std::time::Instant,
}

/// What a listener answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Admin,
    Metrics,
}

/// Binds and serves everything the options ask for; a port that is taken costs that endpoint only. `status` tells of this proxy from
/// now on.
pub async fn serve(assembly: &Assembly, status: &Status) {
    let admin = Arc::new(Admin {
        shared: assembly.shared.clone(),
        readiness: assembly.readiness.clone(),
        draining: assembly.drain.clone(),
        workers: assembly.events(),
        started: std::time::Instant::now(),
    });
    status.attach(admin.clone());
    let wanted = &assembly.options.serve;
    let doors = [("admin", wanted.admin, Door::Admin), ("metrics", wanted.metrics, Door::Metrics)];
    for (name, address, door) in doors {
        let Some(address) = address else { continue };
        match fairlead_transport::socket::listen_on_all(address, 128) {
            Ok(listeners) => {
                if let Some(local) = listeners.first().and_then(|listener| listener.local_addr().ok()) {
                    assembly.shared.addresses.bound(name, local);
                }
                for listener in listeners {
                    tokio::spawn(accept(listener, admin.clone(), door));
                }
            }
            Err(error) => tracing::error!(name, %error, "not served"),
        }
    }
    if let Some(address) = wanted.dns {
        let upstreams = Upstreams { servers: assembly.options.resolvers.clone(), mark: assembly.options.mark };
        let server = DnsServer::new(assembly.names.clone(), upstreams);
        let mark = assembly.options.mark;
        match serve_dns(server.clone(), address, mark).await {
            Ok(local) => {
                assembly.shared.addresses.bound("dns", local);
                // Captured questions over IPv6 arrive at the other loopback address; a machine without it has none.
                if local.ip() == Ipv4Addr::LOCALHOST
                    && let Err(error) = serve_dns(server, (Ipv6Addr::LOCALHOST, local.port()).into(), mark).await
                {
                    tracing::debug!(%error, "no DNS over IPv6");
                }
            }
            Err(error) => tracing::error!(%address, %error, "DNS not served"),
        }
    }
}

/// Capture rules know answers by the mark: one without it would not be taken for the answer to a redirected question.
async fn serve_dns(server: Arc<DnsServer>, address: SocketAddr, mark: Option<u32>) -> std::io::Result<SocketAddr> {
    let tcp = fairlead_transport::socket::listen(address, 128, false, mark)?;
    // The same port for both, also where the kernel chooses it.
    let local = tcp.local_addr()?;
    let udp = UdpSocket::bind(local).await?;
    if let Some(mark) = mark {
        fairlead_transport::socket::mark(&udp, mark)?;
    }
    let both = server.clone();
    tokio::spawn(async move {
        if let Err(error) = both.serve_udp(udp).await {
            tracing::error!(%error, "DNS over UDP ended");
        }
    });
    tokio::spawn(async move {
        if let Err(error) = server.serve_tcp(tcp).await {
            tracing::error!(%error, "DNS over TCP ended");
        }
    });
    Ok(local)
}

async fn accept(listener: TcpListener, admin: Arc<Admin>, door: Door) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(answer(&admin, door, &request)) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(admin: &Admin, door: Door, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let json = query.split('&').any(|pair| pair == "format=json");
    match (door, path) {
        (Door::Admin, "/ready" | "/healthz/ready") => match admin.readiness() {
            Ok(()) => status(StatusCode::OK, "LIVE\n"),
            Err(why) => status(StatusCode::SERVICE_UNAVAILABLE, &why),
        },
        (Door::Admin | Door::Metrics, "/stats/prometheus" | "/metrics") => text(stats::prometheus(admin)),
        (Door::Admin, "/stats") => text(stats::plain(
            admin,
            query.split('&').find_map(|pair| pair.strip_prefix("filter=")).unwrap_or_default(),
        )),
        (Door::Admin, "/" | "/help") => text(PAGES.into()),
        (Door::Admin, "/clusters") if json => as_json(&clusters::json(&admin.shared)),
        (Door::Admin, "/clusters") => text(clusters::text(&admin.shared)),
        (Door::Admin, "/config_dump") => as_json(&config_dump::dump(&admin.shared)),
        (Door::Admin, "/listeners") => as_json(&config_dump::listeners(&admin.shared)),
        (Door::Admin, "/server_info") => as_json(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "state": if admin.draining.phase() == fairlead_runtime::Phase::Running { "LIVE" } else { "DRAINING" },
            "uptime_current_epoch": format!("{}s", admin.started.elapsed().as_secs()),
        })),
        (Door::Admin, "/fairlead/records") => records(admin, query),
        (Door::Admin, "/fairlead/paths") => as_json(&serde_json::json!(admin.shared.paths.view())),
        (Door::Admin, "/drain" | "/undrain") if request.method() != Method::POST => {
            status(StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
        }
        (Door::Admin, "/drain") => {
            admin.shared.drained.store(true, Ordering::Relaxed);
            tell(admin, &WorkerEvent::Drain(Stage::Leaving))
        }
        (Door::Admin, "/undrain") => {
            admin.shared.drained.store(false, Ordering::Relaxed);
            tell(admin, &WorkerEvent::Undrain)
        }
        _ => status(StatusCode::NOT_FOUND, "not found\n"),
    }
}

impl Admin {
    /// Whether it serves; if not, why not, in lines.
    pub fn readiness(&self) -> Result<(), String> {
        if self.draining.phase() != fairlead_runtime::Phase::Running {
            return Err("DRAINING\n".to_owned());
        }
        let mut missing: Vec<String> = self
            .readiness
            .status()
            .into_iter()
            .filter_map(|condition| condition.missing.map(|why| format!("{}: {why}", condition.name)))
            .collect();
        let world = self.shared.world.load();
        for listener in world.snapshot.listeners().filter(|listener| listener.bind_to_port) {
            if self.shared.addresses.get(&listener.name).is_none() {
                missing.push(format!("listener {}: not bound", listener.name));
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("PRE_INITIALIZING\n{}\n", missing.join("\n"))),
        }
    }
}

/// What `/help` answers.
const PAGES: &str = "admin pages:
  /clusters [?format=json]   Envoy clusters, their endpoints and counters
  /config_dump               resources as received, with versions
  /drain, /undrain           POST: take this proxy out of service, and back
  /fairlead/paths            whether paths to other networks are alive
  /fairlead/records?since=N  per-call records, where they are kept
  /help                      this page
  /listeners                 listeners and their addresses
  /ready                     whether it serves
  /server_info               version, role and state
  /stats                     counters
  /stats/prometheus          metrics
";

fn records(admin: &Admin, query: &str) -> Response<Full<Bytes>> {
    let Some(records) = &admin.shared.records else {
        return status(StatusCode::NOT_FOUND, "per-call records are off; start the proxy with records enabled\n");
    };
    let since = query.split('&').find_map(|pair| pair.strip_prefix("since=")?.parse().ok()).unwrap_or(0);
    as_json(&serde_json::json!(records.since(since)))
}

fn tell(admin: &Admin, event: &WorkerEvent) -> Response<Full<Bytes>> {
    for worker in &admin.workers {
        let _ = worker.send(event.clone());
    }
    status(StatusCode::OK, "OK\n")
}

fn text(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn as_json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = text(body.to_owned());
    *response.status_mut() = status;
    response
}
