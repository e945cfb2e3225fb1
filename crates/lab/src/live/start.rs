//! Starting a mesh: namespaces, control planes, their joining, and everything else at once.
//!
//! Invariant: when [`start`] returns, every process is ready, every cluster knows every other, and every proxy has acknowledged the
//! newest generation of its control plane.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fairlead_calls::Names;
use fairlead_capture::{CaptureSpec, LoopGuard, PROXY_MARK};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::admin;
use super::authority::Authorities;
use super::lab::{Lab, LabError};
use super::layout::Layout;
use super::processes::{Parts, RELAY_PORT};
use super::spec::{EAST_WEST, MeshSpec, Part, SYSTEM_NAMESPACE};
use crate::Handle;
use crate::node;
use crate::process::ProcessSpec;
use crate::topology::{self, NETWORK_DEVICE, Plan, Role, Topology};

/// The longest that a start may take before it is called failed. (The promise for the shop is 15 s.)
const LONGEST: Duration = Duration::from_secs(90);

/// How a mesh is run.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// Where logs, sockets and state go.
    pub state: PathBuf,
    /// Per-call records that each proxy keeps.
    pub records: usize,
    /// Life of workload certificates, when not the control plane's default.
    pub certificate_lifetime: Option<Duration>,
}

/// Told what happens, a line at a time.
pub type Progress = Arc<dyn Fn(String) + Send + Sync>;

/// Starts a mesh. Must be called inside the lab ([`crate::role`]).
///
/// # Errors
/// What could not be built, started or joined, with the end of the log of the process concerned.
pub async fn start(spec: MeshSpec, names: Names, options: StartOptions, progress: Progress) -> Result<Lab, LabError> {
    let began = Instant::now();
    let layout =
        Layout::create(&options.state).map_err(|e| LabError::State(format!("{}: {e}", options.state.display())))?;
    let plan = topology::plan(&spec.topology())?;
    for note in &plan.notes {
        progress(format!("{}: {}", note.namespace, note.message));
    }
    let handle = Handle::new(Topology::apply(plan).map_err(crate::HandleError::from)?, layout.root());
    let authorities = Authorities::create(&spec, &layout).map_err(LabError::Authority)?;
    let program = std::env::current_exe().map_err(|e| LabError::State(format!("this program's own file: {e}")))?;
    progress(format!("{} namespaces built in {}", handle.plan().namespaces.len(), seconds(began)));
    let lab = Lab::new(spec, names, handle, layout, authorities, options, program);
    let clusters: Vec<String> = lab.spec().clusters.keys().cloned().collect();
    all(clusters.iter().map(|cluster| {
        let (lab, cluster) = (lab.clone(), cluster.clone());
        async move { lab.start_control(&cluster).await }
    }))
    .await?;
    progress(format!("{} control planes ready after {}", clusters.len(), seconds(began)));
    let processes = everything_else(&lab);
    let count = processes.len();
    capture(&lab).await?;
    let joining = lab.clone();
    let (joined, started) = tokio::join!(
        async move { joining.join_all().await },
        all(processes.into_iter().map(|process| {
            let handle = lab.handle().clone();
            async move { Ok(handle.spawn(process).await?) }
        }))
    );
    started?;
    joined?;
    progress(format!("{count} gateways, sidecars, programs and nodes ready after {}", seconds(began)));
    let proxies = all_acked(&lab, began + LONGEST + lab.spec().slowest_probe()).await?;
    progress(format!("{proxies} proxies have acknowledged their configuration after {}", seconds(began)));
    Ok(lab)
}

/// Waits until every cluster knows every other and every proxy has taken the newest generation. Returns the number of proxies.
pub async fn all_acked(lab: &Lab, deadline: Instant) -> Result<usize, LabError> {
    loop {
        let missing = unacked(lab).await;
        match missing {
            Ok((proxies, missing)) if missing.is_empty() => return Ok(proxies),
            _ if Instant::now() < deadline => sleep(Duration::from_millis(50)).await,
            Ok((_, missing)) => return Err(LabError::NotReady(missing)),
            Err(e) => return Err(e),
        }
    }
}

async fn unacked(lab: &Lab) -> Result<(usize, Vec<String>), LabError> {
    let mut missing = Vec::new();
    let mut count = 0;
    for (cluster, mesh) in &lab.spec().clusters {
        let socket = lab.layout().admin(cluster);
        let peers = admin::get(&socket, "/peers").await?;
        for other in lab.spec().clusters.keys().filter(|other| *other != cluster) {
            let connected = rows(&peers).any(|row| row["cluster"] == other.as_str() && row["connected"] == json!(true));
            if !connected {
                missing.push(format!("{cluster}: no stream to the control plane of {other}"));
            }
        }
        let mut wanted: BTreeSet<String> =
            mesh.workloads.iter().filter(|w| w.has_proxy()).map(|w| w.full_name(cluster)).collect();
        wanted.retain(|name| !lab.handle().plan().aliases.contains_key(name));
        if mesh.gateway.is_some() {
            wanted.insert(format!("{cluster}/{SYSTEM_NAMESPACE}/{EAST_WEST}"));
        }
        count += wanted.len();
        let proxies = admin::get(&socket, "/proxies").await?;
        for name in wanted {
            let Some(row) = rows(&proxies).find(|row| row["workload"] == name.as_str()) else {
                missing.push(format!("{name}: its proxy has no stream"));
                continue;
            };
            if row["rejected"].as_u64() > Some(0) {
                missing.push(format!(
                    "{name}: its proxy refuses resources: {}",
                    row["lastNack"].as_str().unwrap_or_default()
                ));
            } else if row["generation"].as_u64().unwrap_or(0) == 0 || row["generation"] != row["offered"] {
                missing.push(format!(
                    "{name}: its proxy has taken generation {} of {}",
                    row["generation"], row["offered"]
                ));
            } else if row["ready"] != json!(true) {
                missing.push(format!("{name}: {}", row["reason"].as_str().unwrap_or("its proxy is not ready")));
            }
        }
    }
    Ok((count, missing))
}

pub(super) fn rows(listing: &Value) -> impl Iterator<Item = &Value> {
    listing.as_array().into_iter().flatten()
}

/// Runs all at once; the first error is returned when all have ended.
pub(super) async fn all<F>(work: impl IntoIterator<Item = F>) -> Result<(), LabError>
where
    F: Future<Output = Result<(), LabError>> + Send + 'static,
{
    let mut running: JoinSet<Result<(), LabError>> = work.into_iter().collect();
    let mut first = Ok(());
    while let Some(done) = running.join_next().await {
        first = first.and(done.unwrap_or_else(|e| Err(LabError::State(e.to_string()))));
    }
    first
}

/// Rules that send programs' connections to their sidecars, and those of callers without one to their node.
async fn capture(lab: &Lab) -> Result<(), LabError> {
    let plan = lab.handle().plan();
    let mut tables = Vec::new();
    for (name, workload) in lab.spec().workloads() {
        if workload.part == Part::Sidecar && !plan.aliases.contains_key(&name) {
            tables.push((name, CaptureSpec::new(LoopGuard::Mark(PROXY_MARK)).table()));
        }
    }
    for (name, cluster) in nodes(&plan) {
        if let Some(mesh) = lab.spec().clusters.get(&cluster) {
            tables.push((name, node::rules::services(NETWORK_DEVICE, &mesh.service_ranges(), RELAY_PORT)));
        }
    }
    all(tables.into_iter().map(|(name, table)| {
        let handle = lab.handle().clone();
        async move { Ok(handle.install(&name, table).await?) }
    }))
    .await
}

fn nodes(plan: &Plan) -> Vec<(String, String)> {
    let node = |(name, namespace): (&String, &topology::Namespace)| match (namespace.role, &namespace.cluster) {
        (Role::Node, Some(cluster)) => Some((name.clone(), cluster.clone())),
        _ => None,
    };
    plan.namespaces.iter().filter_map(node).collect()
}

fn everything_else(lab: &Lab) -> Vec<ProcessSpec> {
    let plan = lab.handle().plan();
    let parts: Parts<'_> = lab.parts(&plan);
    let mut processes: Vec<ProcessSpec> =
        nodes(&plan).iter().filter_map(|(name, cluster)| parts.node(name, cluster)).collect();
    for (cluster, mesh) in &lab.spec().clusters {
        if mesh.gateway.is_some() {
            let workload = format!("{cluster}/{SYSTEM_NAMESPACE}/{EAST_WEST}");
            let owners = plan.gateways(cluster, EAST_WEST);
            processes
                .extend(owners.into_iter().map(|owner| parts.proxy(owner, cluster, &workload, Part::EastWest, None)));
        }
        for workload in &mesh.workloads {
            let name = workload.full_name(cluster);
            // A namespace has room for one proxy; a workload that shares one is reached without its own.
            if workload.has_proxy() && !plan.aliases.contains_key(&name) {
                processes.push(parts.proxy(&name, cluster, &name, workload.part, Some(workload)));
            }
            processes.extend(parts.program(&name, workload));
        }
    }
    processes.extend(lab.spec().externals.iter().map(|server| parts.external(server)));
    processes
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
