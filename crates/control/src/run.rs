//! Starts a control plane: store, authority, owner, listeners; and its own certificate's renewal.
//!
//! Invariant: it comes up whatever its peers do; it is ready when its own objects were read.

use crate::admin::{self, Admin};
use crate::authority::{Authority, Opening};
use crate::caller::accept;
use crate::certificates::Issuer;
use crate::connections::Connections;
use crate::discovery::Streams;
use crate::event::Event;
use crate::joining::Acceptor;
use crate::keeper::Keeper;
use crate::last_good::LastGood;
use crate::mesh_file::{self, MeshFile};
use crate::options::ControlOptions;
use crate::owner::{Owner, Published};
use crate::peers::Peers;
use crate::publisher::Publisher;
use crate::reports::Sink;
use crate::store::Store;
use crate::world::World;
use anyhow::Context as _;
use fairlead_model::settings::Trust;
use fairlead_proto::certificates::CertificatesServer;
use fairlead_proto::join::JoinServer;
use fairlead_proto::reports::ReportsServer;
use fairlead_resources::fairlead::Admission;
use fairlead_sources::{DirectoryReader, watch};
use fairlead_xds::server::{DiscoveryService, ServiceConfig, builder};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

/// How often `mesh.yaml` is looked at; it changes rarely and is small.
const MESH_POLL: Duration = Duration::from_millis(500);
/// Streams get this long to end by themselves when the process is told to.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: ControlOptions) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for address in &options.listen {
        listeners.push(TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?);
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    serve(options, listeners, end).await
}

/// Runs on listeners that are open already, until `end`.
pub async fn serve(
    options: ControlOptions,
    listeners: Vec<TcpListener>,
    end: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let store = Arc::new(Store::open(&options.state)?);
    let cluster = options.cluster.as_str().into();
    let mesh_file = MeshFile::load(&cluster, &store)?;
    let Trusting { domain, shared, approve } = trusting(&options, &mesh_file);
    let opening = Opening {
        cluster: &options.cluster,
        trust_domain: &domain,
        shared,
        approve,
        cacerts: options.cacerts.as_deref(),
        certificate_lifetime: options.certificate_lifetime,
        advertise: &options.advertise,
    };
    let authority = Arc::new(Authority::open(&opening, store.clone()).context("the certificate authority")?);
    let (events, inbox) = mpsc::unbounded_channel();
    let world = World::new(authority.clone(), folder_name(&options), options.timings)?;
    let last_good = LastGood::load(cluster, options.directory.clone(), &store)?;
    watch_objects(&options, last_good, world.keeper.clone(), &events);
    let owner = Owner {
        publisher: Publisher::new(world.memo.clone())?,
        peers: Peers::new(authority.clone(), world.keeper.clone(), events.clone()),
        world,
        mesh_file,
        events: inbox,
        published: Published::default(),
    };
    // Without one of these the process would look alive and do half of its work.
    let mut vital = JoinSet::new();
    vital.spawn(owner.run());
    vital.spawn(watch_mesh(options.directory.join(mesh_file::NAME), events.clone()));
    vital.spawn(renew(authority.clone()));
    vital.spawn(tell_of_trust(authority.clone(), events.clone()));

    let connections = Arc::new(Connections::default());
    let trusted = authority.clone();
    vital.spawn(connections.clone().follow(authority.trust_changes(), move || trusted.trust()));
    let (into, accepted) = mpsc::channel(64);
    for listener in listeners {
        tracing::info!(address = ?listener.local_addr(), cluster = options.cluster, "serving proxies and peers");
        vital.spawn(accept(listener, authority.clone(), connections.clone(), into.clone()));
    }
    let changed = {
        let events = events.clone();
        Arc::new(move || drop(events.send(Event::Membership)))
    };
    let config = ServiceConfig::default();
    let drain = config.drain.clone();
    let streams = Streams { authority: authority.clone(), events: events.clone() };
    let router = builder()
        .add_service(DiscoveryService::new(Arc::new(streams), config).into_server())
        .add_service(CertificatesServer::new(Arc::new(Issuer::new(authority.clone(), events.clone()))))
        .add_service(ReportsServer::new(Arc::new(Sink::new(authority.clone(), events.clone()))))
        .add_service(JoinServer::new(Arc::new(Acceptor::new(authority.clone(), changed))));
    let incoming = tokio_stream::wrappers::ReceiverStream::new(accepted);
    let socket = admin::bind(&options.admin)?;
    let admin = Admin { authority, events, advertise: Arc::new(options.advertise.clone()) };
    tokio::select! {
        served = router.serve_with_incoming(incoming) => served?,
        served = admin::serve(admin, socket) => served?,
        defect = defect(&mut vital) => anyhow::bail!("a task that nothing works without has ended: {defect}"),
        () = end => {
            let _left = drain.run(DRAIN).await;
        }
    }
    Ok(())
}

/// Waits until one of the tasks panics.
async fn defect(tasks: &mut JoinSet<()>) -> JoinError {
    loop {
        match tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => return error,
            None => return std::future::pending().await,
        }
    }
}

/// The mesh's name when its object has none: its folder's.
fn folder_name(options: &ControlOptions) -> String {
    let path = options.directory.canonicalize().unwrap_or_else(|_| options.directory.clone());
    path.file_name().map_or_else(|| "mesh".into(), |n| n.to_string_lossy().into_owned())
}

/// What must be known of trust before objects are read. The domain is settled at the start: certificates carry it.
struct Trusting {
    domain: String,
    shared: bool,
    approve: bool,
}

fn trusting(options: &ControlOptions, mesh_file: &MeshFile) -> Trusting {
    let cluster = options.cluster.as_str().into();
    let mesh = mesh_file.first(&cluster, &options.directory);
    let approve = mesh.as_ref().is_some_and(|m| m.spec.admission == Some(Admission::Approve));
    let settings =
        fairlead_resolve::settings(&folder_name(options), mesh.as_ref(), &BTreeSet::from([cluster.clone()]), &[]);
    Trusting { domain: settings.mesh.trust_domain_of(&cluster), shared: settings.mesh.trust == Trust::Shared, approve }
}

fn watch_objects(
    options: &ControlOptions,
    mut last_good: LastGood,
    keeper: Arc<Keeper>,
    events: &mpsc::UnboundedSender<Event>,
) {
    let folder = options.directory.join("clusters").join(&options.cluster);
    let reader = DirectoryReader::new(options.cluster.as_str().into(), &options.directory, &folder);
    let (states, mut received) = mpsc::channel(4);
    tokio::spawn(watch(reader, states));
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(objects) = received.recv().await {
            let keeper = keeper.clone();
            let work = move || {
                let objects = last_good.complete(objects, &keeper);
                (last_good, objects)
            };
            let Ok((kept, objects)) = tokio::task::spawn_blocking(work).await else { return };
            last_good = kept;
            if events.send(Event::Objects(objects)).is_err() {
                return;
            }
        }
    });
}

async fn watch_mesh(path: PathBuf, events: mpsc::UnboundedSender<Event>) {
    let mut last = None;
    loop {
        let looked_at = path.clone();
        let Ok(bytes) = tokio::task::spawn_blocking(move || mesh_file::read(&looked_at)).await else { return };
        if last.as_ref() != Some(&bytes) {
            last = Some(bytes.clone());
            if events.send(Event::MeshFile(bytes)).is_err() {
                return;
            }
        }
        tokio::time::sleep(MESH_POLL).await;
    }
}

/// A change of trust is published by the owner, whoever made it.
async fn tell_of_trust(authority: Arc<Authority>, events: mpsc::UnboundedSender<Event>) {
    let mut changes = authority.trust_changes();
    while changes.changed().await.is_ok() {
        if events.send(Event::Membership).is_err() {
            return;
        }
    }
}

async fn renew(authority: Arc<Authority>) {
    loop {
        tokio::time::sleep(authority.renew_every()).await;
        if let Err(e) = authority.renew() {
            tracing::error!("the control plane's own certificate cannot be renewed: {e:#}");
        }
    }
}
