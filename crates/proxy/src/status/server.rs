//! The two listeners and their paths.

use super::app_metrics;
use super::app_probes::{HOOKS, PROBES};
use crate::admin::{Admin, stats};
use crate::options::ProxyOptions;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Connections to one of the ports at once: a kubelet and some scrapers need a few, and whoever reaches the pod can make them.
const CONNECTIONS: usize = 64;
/// How long one may last, unless a hook is called by it; kubelets and scrapers make new ones.
const LONGEST: Duration = Duration::from_secs(60);
/// Hooks that are called at once: they may last, and probes need connections too.
const CALLING: usize = 16;
/// And by one caller: a kubelet calls one or two, and nobody else is to take its place.
const EACH_CALLING: usize = 4;

/// What a kubelet asks.
pub struct Status {
    options: Arc<ProxyOptions>,
    /// Set when the proxy has its certificate and runs.
    admin: OnceLock<Arc<Admin>>,
    bound: Vec<(&'static str, SocketAddr)>,
    quit: watch::Sender<bool>,
    /// The program's metrics are held for one scraper at a time.
    scraping: Semaphore,
    calling: Calling,
}

/// A hook failed. What tells a kubelet of it is that there is no answer: it looks at no status.
#[derive(Debug, thiserror::Error)]
#[error("the hook was not answered")]
struct Unanswered;

/// What a listener answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Ready,
    Merged,
}

impl Status {
    /// Binds what the options ask for and serves it; a port that is taken costs that listener only.
    pub async fn serve(options: Arc<ProxyOptions>) -> Arc<Self> {
        let doors = [("ready", options.serve.ready, Door::Ready), ("merged", options.serve.merged, Door::Merged)];
        let mut listeners = Vec::new();
        let mut bound = Vec::new();
        for (name, address, door) in doors {
            let Some(address) = address else { continue };
            match fairlead_transport::socket::listen_on_all(address, 128) {
                Ok(of_this) => {
                    bound.extend(of_this.first().and_then(|l| l.local_addr().ok()).map(|local| (name, local)));
                    listeners.extend(of_this.into_iter().map(|listener| (listener, door)));
                }
                Err(error) => tracing::error!(name, %error, "not served"),
            }
        }
        let status = Arc::new(Self {
            options,
            admin: OnceLock::new(),
            bound,
            quit: watch::Sender::new(false),
            scraping: Semaphore::new(1),
            calling: Calling::default(),
        });
        for (listener, door) in listeners {
            tokio::spawn(accept(listener, status.clone(), door));
        }
        status
    }

    /// The proxy runs: from now on its state is told.
    pub fn attach(&self, admin: Arc<Admin>) {
        for (name, local) in &self.bound {
            admin.shared.addresses.bound(name, *local);
        }
        // It is attached once, by whoever starts the proxy.
        let _ = self.admin.set(admin);
    }

    /// What is bound, by name.
    #[cfg(test)]
    pub fn bound(&self) -> &[(&'static str, SocketAddr)] {
        &self.bound
    }

    /// Ends when somebody on the pod's loopback has asked the proxy to end.
    pub async fn asked_to_quit(&self) {
        // The sender lives in `self`, so the channel cannot close under us.
        let _ = self.quit.subscribe().wait_for(|quit| *quit).await;
    }
}

async fn accept(listener: TcpListener, status: Arc<Status>, door: Door) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let status = status.clone();
        tokio::spawn(async move {
            let _place = place;
            let lasts = Arc::new(AtomicBool::new(false));
            let hook = lasts.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, hook) = (status.clone(), hook.clone());
                async move {
                    let path = request.uri().path();
                    if door == Door::Merged && path.starts_with(HOOKS) {
                        return call(&status, path, peer, &request, &hook).await;
                    }
                    Ok(answer(&status, door, peer, &request).await)
                }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
            let serving = http.serve_connection(TokioIo::new(stream), service);
            let _ = bounded(serving, LONGEST, &lasts).await;
        });
    }
}

/// Ends what lasts too long, unless it may by then.
pub(super) async fn bounded<T>(what: impl Future<Output = T>, longest: Duration, lasts: &AtomicBool) -> Option<T> {
    tokio::pin!(what);
    match tokio::time::timeout(longest, &mut what).await {
        Ok(done) => Some(done),
        Err(_) if lasts.load(Ordering::Relaxed) => Some(what.await),
        Err(_) => None,
    }
}

async fn answer(status: &Status, door: Door, peer: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match (door, request.uri().path()) {
        (_, "/ready" | "/healthz/ready") => match status.admin.get() {
            Some(admin) => match admin.readiness() {
                Ok(()) => text(StatusCode::OK, "LIVE\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            None => text(StatusCode::SERVICE_UNAVAILABLE, "PRE_INITIALIZING\ncertificate: not there yet\n"),
        },
        (Door::Merged, "/stats/prometheus" | "/metrics") => {
            let mut metrics = status.admin.get().map(|admin| stats::prometheus(admin)).unwrap_or_default();
            if let Some(wanted) = &status.options.app_metrics {
                let _turn = status.scraping.acquire().await;
                metrics.push_str(&app_metrics::scrape(wanted, &status.options, request.headers()).await);
            }
            text(StatusCode::OK, metrics)
        }
        (Door::Merged, "/quitquitquit") if request.method() != Method::POST => {
            text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
        }
        (Door::Merged, "/quitquitquit") if !peer.ip().to_canonical().is_loopback() => {
            text(StatusCode::FORBIDDEN, "only from inside the pod, by 127.0.0.1\n")
        }
        (Door::Merged, "/quitquitquit") => {
            status.quit.send_replace(true);
            text(StatusCode::OK, "draining\n")
        }
        (Door::Merged, path) if path.starts_with(PROBES) => match status.options.app_probes.0.get(path) {
            Some(probe) => match probe.ask(&status.options, agent(request)).await {
                Ok(()) => text(StatusCode::OK, "OK\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            None => text(StatusCode::NOT_FOUND, "this pod has no such probe\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// Calls a hook of the program; the connection ends with it, and lasts as long.
async fn call(
    status: &Status,
    path: &str,
    peer: SocketAddr,
    request: &Request<Incoming>,
    lasts: &AtomicBool,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    let closing = |mut response: Response<Full<Bytes>>| {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(response)
    };
    let Some(hook) = status.options.app_probes.0.get(path) else {
        return closing(text(StatusCode::NOT_FOUND, "this pod has no such hook\n"));
    };
    let Some(_place) = status.calling.enter(peer.ip().to_canonical()) else {
        tracing::warn!(path, %peer, "not called: {CALLING} hooks are, or {EACH_CALLING} by this caller");
        return Err(Unanswered);
    };
    lasts.store(true, Ordering::Relaxed);
    match hook.call(&status.options, agent(request)).await {
        Ok(answered) => {
            let answered = if answered.is_informational() { StatusCode::OK } else { answered };
            closing(text(answered, "called\n"))
        }
        Err(why) => {
            tracing::warn!(path, %why, "the program did not answer its hook");
            Err(Unanswered)
        }
    }
}

/// Who calls hooks, and how many.
#[derive(Default)]
struct Calling(Mutex<BTreeMap<IpAddr, usize>>);

/// A call under way.
struct Called<'a> {
    calling: &'a Calling,
    by: IpAddr,
}

impl Calling {
    fn enter(&self, by: IpAddr) -> Option<Called<'_>> {
        let mut counts = self.0.lock();
        if counts.values().sum::<usize>() >= CALLING || counts.get(&by).is_some_and(|count| *count >= EACH_CALLING) {
            return None;
        }
        *counts.entry(by).or_default() += 1;
        Some(Called { calling: self, by })
    }
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        let mut counts = self.calling.0.lock();
        if let Some(count) = counts.get_mut(&self.by) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.by);
            }
        }
    }
}

fn agent(request: &Request<Incoming>) -> Option<&str> {
    request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok())
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_takes_no_place_of_the_kubelet() {
        let calling = Calling::default();
        let [stranger, kubelet] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        let held: Vec<_> = std::iter::from_fn(|| calling.enter(stranger)).collect();
        assert_eq!(held.len(), EACH_CALLING);
        let of_kubelet = calling.enter(kubelet);
        assert!(of_kubelet.is_some());
        drop(held);
        assert!(calling.enter(stranger).is_some());
        drop(of_kubelet);
        let all: Vec<_> = (0..=255).filter_map(|n| calling.enter(IpAddr::from([198, 51, 100, n]))).collect();
        assert_eq!(all.len(), CALLING);
    }
}
