//! What a scrape of a control plane shows: how much it holds and whether it hears of changes.
//!
//! Never kept between scrapes: each is read off the owner's state. Invariant: series are bounded by clusters, not by objects.

use crate::world::World;
use fairlead_model::diagnostic::Severity;
use fairlead_runtime::metrics::Registry;
use std::time::Instant;

pub fn render(world: &World) -> String {
    let registry = Registry::with_shards(1);
    let gauge = |name: &str, help: &str, value: usize| {
        registry.gauge(name, help, &[]).with(&[]).set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    let up = usize::from(world.objects.unavailable.is_none());
    gauge("fairlead_source_up", "Whether the source of this cluster's objects answers.", up);
    gauge("fairlead_objects", "Objects of this cluster that are held.", world.objects.objects.len());
    let stale = world.objects.objects.iter().filter(|o| o.stale).count();
    gauge("fairlead_objects_stale", "Objects whose last good version serves.", stale);
    gauge("fairlead_proxies_connected", "Proxies with a discovery stream.", world.streams.proxies().count());
    gauge("fairlead_proxies_held_back", "Proxies that know more than this control plane.", world.held_back.len());
    let now = Instant::now();
    let fresh = registry.gauge("fairlead_peer_fresh", "Whether a peer's control plane is heard.", &["cluster"]);
    for (cluster, peer) in &world.peers {
        fresh.with(&[cluster.as_str()]).set(i64::from(!peer.lease.is_stale(now)));
    }
    let Some(resolved) = &world.resolved else { return registry.render() };
    let mesh = &resolved.mesh;
    gauge("fairlead_generation", "The generation of the mesh that is published.", mesh.generation as usize);
    gauge("fairlead_services", "Services of the whole mesh.", mesh.services.len());
    let endpoints = mesh.services.values().map(|s| s.endpoints.len()).sum();
    gauge("fairlead_endpoints", "Endpoints of the whole mesh.", endpoints);
    let diagnostics =
        registry.gauge("fairlead_diagnostics", "Problems in this cluster's objects, by severity.", &["severity"]);
    for severity in [Severity::Error, Severity::Warning, Severity::Info] {
        let found = resolved.diagnostics.iter().filter(|d| d.severity == severity).count();
        diagnostics.with(&[&format!("{severity:?}").to_lowercase()]).set(i64::try_from(found).unwrap_or(i64::MAX));
    }
    registry.render()
}
