//! Objects of an API server on their way to the owner, and their good versions on disk.
//!
//! Invariant: objects, the mesh's settings among them and what peers are told of this control plane's addresses are one event, so
//! that nothing is resolved of a half.

use super::{advertise, mesh_object};
use crate::codes::REMOTE_CREDENTIAL;
use crate::event::Event;
use crate::keeper::Keeper;
use crate::kubernetes::{Hosting, Kubernetes};
use crate::last_good;
use crate::store::{Bucket, Store};
use fairlead_model::{ClusterId, Diagnostic, ObjectKey, Origin};
use fairlead_resources::fairlead::Mesh;
use fairlead_resources::yaml::Node;
use fairlead_resources::{Object, decode_object};
use fairlead_sources::{ClusterObjects, Keep, KubernetesSource, KubernetesTimings, watch_kubernetes};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Good versions on disk: written soon, as everything that may be a moment old after a crash.
struct OnDisk(Arc<Keeper>);

impl Keep for OnDisk {
    fn keep(&self, key: &ObjectKey, json: Vec<u8>) {
        self.0.save_bytes(Bucket::LastGood, name(key), json);
    }

    fn forget(&self, key: &ObjectKey) {
        self.0.remove(Bucket::LastGood, name(key));
    }
}

/// No file of a mesh directory is called so.
fn name(key: &ObjectKey) -> String {
    format!("{}/{}/{}", key.kind, key.namespace, key.name)
}

/// The mesh's settings as they last were good.
pub fn kept_mesh(cluster: &ClusterId, store: &Store) -> anyhow::Result<Option<Mesh>> {
    let key = ObjectKey::new(cluster.clone(), "Mesh", "", mesh_object::NAME);
    let Some(bytes) = store.load_bytes(Bucket::LastGood, &name(&key))? else { return Ok(None) };
    let Ok(node) = serde_json::from_slice::<Node>(&bytes) else { return Ok(None) };
    let decoded = decode_object(cluster, &node).objects.into_iter().find(|decoded| !decoded.refused);
    Ok(decoded.and_then(|decoded| match decoded.object {
        Object::Mesh(mesh) => Some(mesh_object::with_defaults(mesh)),
        _ => None,
    }))
}

/// Tells the owner of every change from now on. `mesh`: the settings until the objects say others; `advertise`: what peers are told
/// in place of what the objects say.
pub fn follow(
    kubernetes: Kubernetes,
    mut mesh: Mesh,
    advertise: Vec<String>,
    store: &Store,
    keeper: Arc<Keeper>,
    events: &mpsc::UnboundedSender<Event>,
    vital: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let kept = store.all_bytes(Bucket::LastGood)?.into_iter().map(|(_, json)| json).collect();
    let cluster = ClusterId::from(kubernetes.cluster.as_str());
    let source = KubernetesSource {
        client: kubernetes.client,
        cluster: cluster.clone(),
        namespace: kubernetes.namespace.clone(),
        kept,
        keep: Some(Arc::new(OnDisk(keeper))),
        timings: KubernetesTimings::default(),
    };
    let (states, mut received) = mpsc::channel(4);
    vital.spawn(watch_kubernetes(source, states));
    let (events, namespace) = (events.clone(), kubernetes.namespace);
    let Some(hosting) = kubernetes.hosting else {
        vital.spawn(async move {
            while let Some(objects) = received.recv().await {
                let advertise = |objects: &ClusterObjects| match advertise.as_slice() {
                    [] => Some(advertise::addresses(&objects.objects, &namespace)),
                    // What was given at the start is in the record already.
                    _ => None,
                };
                if events.send(event(objects, &cluster, &mut mesh, &namespace, advertise)).is_err() {
                    return;
                }
            }
        });
        return Ok(());
    };
    vital.spawn(async move {
        let (mut doors, mut troubles) = (hosting.doors(), hosting.trouble());
        let mut last: Option<ClusterObjects> = None;
        loop {
            tokio::select! {
                objects = received.recv() => match objects {
                    Some(objects) => last = Some(objects),
                    None => return,
                },
                changed = doors.changed() => if changed.is_err() { return },
                changed = troubles.changed() => if changed.is_err() { return },
            }
            let Some(mut objects) = last.clone() else { continue };
            objects.diagnostics.extend(trouble(&hosting, &objects, &cluster));
            // The Service is in the primary; the objects here know nothing of it.
            let advertise = |_: &ClusterObjects| hosting.advertised().filter(|_| advertise.is_empty());
            let event = event(objects, &cluster, &mut mesh, &namespace, advertise);
            if events.send(event).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// What an operator must know of the credential for a remote's API server.
fn trouble(hosting: &Hosting, objects: &ClusterObjects, cluster: &ClusterId) -> Option<Diagnostic> {
    let refused = objects.unavailable.clone().filter(|why| why.contains("(401)"));
    let why = hosting.trouble().borrow().clone().or(refused)?;
    let object = ObjectKey::new(cluster.clone(), "Mesh", "", mesh_object::NAME);
    let at = Origin { object, path: String::new(), file: Arc::default(), line: 0 };
    let message =
        format!("the credential for the API server of {cluster}: {why}; its proxies are served what is known");
    Some(Diagnostic::error(REMOTE_CREDENTIAL, at, message).hint(hosting.remedy()))
}

fn event(
    mut objects: ClusterObjects,
    cluster: &ClusterId,
    last: &mut Mesh,
    namespace: &str,
    advertise: impl FnOnce(&ClusterObjects) -> Option<Vec<String>>,
) -> Event {
    let stale: Vec<_> = objects.objects.iter().filter(|o| o.stale).map(last_good::stale).collect();
    objects.diagnostics.extend(stale);
    let known = objects.unavailable.is_none() || !objects.objects.is_empty();
    let written = objects.objects.iter().find_map(|object| match &object.decoded.object {
        Object::Mesh(mesh) => Some(mesh.clone()),
        _ => None,
    });
    match written {
        Some(mesh) => *last = mesh_object::with_defaults(mesh),
        // To go on with defaults would admit and trust others than those that were meant.
        None if known => objects.diagnostics.push(mesh_object::gone(cluster, namespace)),
        None => {}
    }
    let advertise = if known { advertise(&objects) } else { None };
    Event::Cluster { objects, mesh: last.clone(), advertise }
}
