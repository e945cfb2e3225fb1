//! How long resolving takes at scale, and the proof that work follows the change.
//!
//! The real world and publisher inputs over an in-memory store: no sockets, no files. Invariant: the same arguments make the same mesh.

use crate::authority::{Authority, Opening};
use crate::options::ControlTimings;
use crate::publisher::describe;
use crate::store::Store;
use crate::world::World;
use fairlead_model::{ClientKind, ClusterId, ProxyDescription, WorkloadRef};
use fairlead_proto::ResourceType;
use fairlead_resources::decode;
use fairlead_sources::{ClusterObjects, SourceObject};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A cluster with many services, each with as many workloads of its own.
pub struct Scale {
    world: World,
    cluster: ClusterId,
    endpoints: usize,
    proxies: Vec<WorkloadRef>,
}

/// What one resolution and generation for the proxies took.
#[derive(Clone, Debug)]
pub struct Took {
    pub resolve: Duration,
    /// For all proxies, one after the other.
    pub generate: Duration,
    /// Resources made anew, by type; the rest came from the memo.
    pub generated: BTreeMap<ResourceType, u64>,
}

impl Scale {
    /// `services` × `endpoints` workloads, of which `proxies` have a sidecar that is generated for.
    pub fn new(services: usize, endpoints: usize, proxies: usize) -> anyhow::Result<Self> {
        let opening = Opening::plain("east", "east.scale.example");
        let authority = Arc::new(Authority::open(&opening, Arc::new(Store::in_memory()?))?);
        let mut world = World::new(authority, "scale".into(), ControlTimings::default())?;
        let cluster: ClusterId = "east".into();
        let mut objects = Vec::new();
        for service in 0..services {
            objects.extend(written(&cluster, service, endpoints, 0));
        }
        world.objects = ClusterObjects { objects: sorted(objects), ..ClusterObjects::default() };
        let workload = |n: usize| WorkloadRef {
            cluster: cluster.clone(),
            namespace: "scale".into(),
            name: format!("s{:04}-0", n % services.max(1)).into(),
        };
        let proxies = (0..proxies).map(workload).collect();
        Ok(Self { world, cluster, endpoints, proxies })
    }

    /// Moves one endpoint of a service to another address.
    pub fn move_endpoint(&mut self, service: usize, times: usize) {
        let changed = written(&self.cluster, service, self.endpoints, times);
        for object in changed {
            if let Ok(at) = self.world.objects.objects.binary_search_by(|o| o.key().cmp(object.key())) {
                self.world.objects.objects[at] = object;
            }
        }
    }

    /// Resolves and generates for every proxy.
    pub fn publish(&mut self) -> Took {
        let before = self.world.memo.counters();
        let begun = Instant::now();
        self.world.resolve(begun);
        let resolve = begun.elapsed();
        let begun = Instant::now();
        if let Some(resolved) = &self.world.resolved {
            for proxy in self.proxies.iter().filter_map(|p| self.describe(p)) {
                fairlead_xdsgen::generate(&resolved.mesh, &proxy, &self.world.memo);
            }
        }
        let generate = begun.elapsed();
        let after = self.world.memo.counters().by_type.into_iter();
        let earlier = |kind: &ResourceType| before.by_type.get(kind).map_or(0, |c| c.generated);
        let generated = after.map(|(kind, c)| (kind, c.generated - earlier(&kind))).filter(|(_, n)| *n > 0).collect();
        Took { resolve, generate, generated }
    }

    /// Number of the resolution that holds.
    pub fn generation(&self) -> u64 {
        self.world.resolved.as_ref().map_or(0, |r| r.mesh.generation)
    }

    fn describe(&self, workload: &WorkloadRef) -> Option<ProxyDescription> {
        let mesh = &self.world.resolved.as_ref()?.mesh;
        let identity = mesh.workloads.get(workload)?.identity.clone().unwrap_or_default();
        describe(mesh, workload, &identity, ClientKind::Fairlead)
    }
}

/// A service and its workloads; `moved` changes the address of its last.
fn written(cluster: &ClusterId, service: usize, endpoints: usize, moved: usize) -> Vec<SourceObject> {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{service:04}, namespace: scale}}\n\
         spec: {{selector: {{app: s{service:04}}}, ports: [{{name: http, port: 80}}]}}\n"
    );
    for endpoint in 0..endpoints {
        let host = if endpoint + 1 == endpoints { 100 + moved % 100 } else { endpoint };
        let _ = write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: s{service:04}-{endpoint}, namespace: scale}}\n\
             spec: {{address: 10.{}.{}.{host}, labels: {{app: s{service:04}}}}}\n",
            service / 250,
            service % 250,
        );
    }
    let file: Arc<str> = format!("clusters/east/s{service:04}.yaml").into();
    let decoding = decode(cluster, &file, text.as_bytes());
    let object = |decoded| SourceObject { decoded: Arc::new(decoded), file: file.clone(), stale: false };
    decoding.objects.into_iter().map(object).collect()
}

fn sorted(mut objects: Vec<SourceObject>) -> Vec<SourceObject> {
    objects.sort_by(|a, b| a.key().cmp(b.key()));
    objects
}
