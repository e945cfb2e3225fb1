//! The program's own metrics behind the proxy's, so that one scrape of a pod gets both although its ports take mutual TLS only.
//!
//! Must never hold back the proxy's own: a program that does not answer costs its part, and a number says so. Invariant: what is added is
//! text of Prometheus' format, whatever a program would have preferred to send.

use crate::options::ProxyOptions;
use bytes::Bytes;
use fairlead_transport::{DialOptions, dial};
use http::header::{ACCEPT, HOST};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Where the program's metrics are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppMetrics {
    pub port: u16,
    /// With its leading slash.
    pub path: String,
}

impl FromStr for AppMetrics {
    type Err = String;

    /// Reads `PORT` or `PORT/PATH`; without a path it is `/metrics`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (port, path) = text.find('/').map_or((text, "/metrics"), |at| text.split_at(at));
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("`{text}`: write PORT or PORT/PATH, such as 9090/metrics"))?;
        Ok(Self { port, path: path.to_owned() })
    }
}

/// Scrapers wait 10 s by default.
const LIMIT: Duration = Duration::from_secs(9);
const MAX_BYTES: usize = 8 << 20;
/// A scraper's own limit, in seconds.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

/// The program's metrics, after a line that says whether it gave them.
pub async fn scrape(wanted: &AppMetrics, options: &ProxyOptions, asked_with: &HeaderMap) -> String {
    let own: Option<f64> = asked_with.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.parse().ok());
    let limit = own
        .filter(|s| s.is_finite() && *s > 0.0)
        .map_or(LIMIT, |s| Duration::from_secs_f64((s * 0.9).min(LIMIT.as_secs_f64())));
    let got = match tokio::time::timeout(limit, fetch(wanted, options)).await {
        Ok(got) => got,
        Err(_) => Err(format!("no answer within {limit:?}")),
    };
    let up = |value: u8| format!("# TYPE fairlead_app_scrape_up gauge\nfairlead_app_scrape_up {value}\n");
    match got {
        Ok(text) => {
            let mut out = up(1);
            // The end mark of OpenMetrics would end the whole.
            text.lines().filter(|line| line.trim() != "# EOF").for_each(|line| {
                out.push_str(line);
                out.push('\n');
            });
            out
        }
        Err(why) => {
            tracing::debug!(port = wanted.port, %why, "the program's metrics are missing");
            up(0)
        }
    }
}

async fn fetch(wanted: &AppMetrics, options: &ProxyOptions) -> Result<String, String> {
    // As Istio: by the loopback address, of the pod's family.
    let address = match options.pod_address {
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let address = SocketAddr::new(address, wanted.port);
    let dialled = dial(address, DialOptions { connect_timeout: LIMIT, mark: options.mark, source: None }).await;
    let stream = dialled.map_err(|e| e.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // Its end is the scrape's end.
        let _ = connection.await;
    });
    let request = Request::get(wanted.path.as_str())
        .header(HOST, address.to_string())
        .header(ACCEPT, "text/plain;version=0.0.4")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    if !response.status().is_success() {
        return Err(format!("answered {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|e| e.to_string())?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_metrics_are() {
        let read = |text: &str| text.parse::<AppMetrics>().map(|m| (m.port, m.path));
        assert_eq!(read("9090"), Ok((9090, "/metrics".into())));
        assert_eq!(read("9090/stats?all"), Ok((9090, "/stats?all".into())));
        for text in ["", "0", "x/metrics", "70000"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
