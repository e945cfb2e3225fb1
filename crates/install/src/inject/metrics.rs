//! Metrics of proxy and program by one scrape: the program's ports take mutual TLS, and scrapers have no certificate.
//!
//! As in Istio the pod's `prometheus.io` annotations are turned to the proxy's port, which asks the program where they pointed. Invariant:
//! what cannot be asked over plain HTTP, and what is not to be scraped, stays as it was.

use super::codes;
use super::fields::{annotation, object};
use super::findings::Findings;
use super::options::Options;
use serde_json::{Value, json};

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const SCHEME: &str = "prometheus.io/scheme";
/// Where the proxy serves them.
const MERGED: (&str, &str) = ("15020", "/stats/prometheus");

/// Turns the annotations; where the program's own metrics are, as `PORT/PATH`.
pub(super) fn merge(pod: &mut Value, options: &Options, findings: &mut Findings) -> Option<String> {
    let scraped = annotation(pod, SCRAPE);
    if !options.merge_metrics || scraped == Some("false") || annotation(pod, SCHEME) == Some("https") {
        return None;
    }
    let metrics = if scraped.is_some() {
        let port = annotation(pod, PORT).and_then(|port| port.trim().parse::<u16>().ok()).filter(|port| *port > 0);
        let Some(port) = port else {
            let message = format!("{PORT} is no port: the program's metrics are not served with the proxy's");
            let hint = "write the port's number, or prometheus.istio.io/merge-metrics: \"false\"";
            findings.warn(codes::NOT_HONOURED, &format!("metadata.annotations[{PORT}]"), message, hint);
            return None;
        };
        // What leads to the proxy itself, as Istio's gateways have it written.
        let own = super::probes::is_own(port);
        let path = annotation(pod, PATH).filter(|path| !path.is_empty()).unwrap_or("/metrics");
        (!own).then(|| format!("{port}/{}", path.trim_start_matches('/')))
    } else {
        None
    };
    let annotations = object(&mut pod["metadata"], "annotations");
    for (key, value) in [(SCRAPE, "true"), (PORT, MERGED.0), (PATH, MERGED.1)] {
        annotations.insert(key.into(), json!(value));
    }
    metrics
}
