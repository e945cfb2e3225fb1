//! Starts a control plane: store, authority, owner, listeners; and its own certificate's renewal.
//!
//! Invariant: it comes up whatever its peers do; it is ready when its own objects were read.

use crate::admin::{self, Admin};
use crate::authority::Authority;
use crate::caller::accept;
use crate::certificates::Issuer;
use crate::discovery::Streams;
use crate::event::Event;
use crate::joining::Acceptor;
use crate::options::ControlOptions;
use crate::owner::Owner;
use crate::peers::Peers;
use crate::reports::Sink;
use crate::store::Store;
use crate::world::World;
use anyhow::Context as _;
use fairlead_identity::{Ca, Member};
use fairlead_proto::certificates::CertificatesServer;
use fairlead_proto::join::JoinServer;
use fairlead_proto::reports::ReportsServer;
use fairlead_sources::{DirectoryReader, watch};
use fairlead_xds::server::{DiscoveryService, ServiceConfig, builder};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How often `mesh.yaml` is looked at; it changes rarely and is small.
const MESH_POLL: Duration = Duration::from_millis(500);

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: ControlOptions) -> anyhow::Result<()> {
    let store = Arc::new(Store::open(&options.state)?);
    let trust_domain = trust_domain(&options)?;
    let advertise = options.advertise.clone();
    let authority = Authority::open(
        &options.cluster,
        &trust_domain,
        options.cacerts.as_deref(),
        options.certificate_lifetime,
        |ca, incarnation| member(ca, incarnation, &advertise),
        store,
    )
    .context("the certificate authority")?;
    let authority = Arc::new(authority);
    let (events, inbox) = mpsc::unbounded_channel();
    let name = folder_name(&options);
    let owner = Owner {
        world: World::new(authority.clone(), name)?,
        events: inbox,
        peers: Peers::new(authority.clone(), events.clone()),
    };
    tokio::spawn(owner.run());
    watch_objects(&options, &events);
    tokio::spawn(watch_mesh(options.directory.join("mesh.yaml"), events.clone()));
    tokio::spawn(renew(authority.clone()));

    let (connections, accepted) = mpsc::channel(64);
    for address in &options.listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        tracing::info!(%address, cluster = options.cluster, "serving proxies and peers");
        tokio::spawn(accept(listener, authority.clone(), connections.clone()));
    }
    let changed = {
        let events = events.clone();
        Arc::new(move || drop(events.send(Event::Membership)))
    };
    let streams = Streams { authority: authority.clone(), events: events.clone() };
    let router = builder()
        .add_service(DiscoveryService::new(Arc::new(streams), ServiceConfig::default()).into_server())
        .add_service(CertificatesServer::new(Arc::new(Issuer { authority: authority.clone() })))
        .add_service(ReportsServer::new(Arc::new(Sink { authority: authority.clone(), events: events.clone() })))
        .add_service(JoinServer::new(Arc::new(Acceptor { authority: authority.clone(), changed })));
    let incoming = tokio_stream::wrappers::ReceiverStream::new(accepted);
    let admin = Admin { authority, events, advertise: Arc::new(options.advertise.clone()) };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        served = router.serve_with_incoming(incoming) => served?,
        served = admin::serve(admin, &options.admin) => served?,
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

fn member(ca: &Ca, incarnation: u64, advertise: &[String]) -> Member {
    Member {
        cluster: ca.cluster().to_owned(),
        incarnation,
        revision: 0,
        state: Default::default(),
        bundle: ca.bundle().clone(),
        issuing_keys: BTreeSet::from([ca.issuing_key()]),
        control_addresses: advertise.to_vec(),
        networks: Default::default(),
        version: env!("CARGO_PKG_VERSION").into(),
        capabilities: BTreeSet::new(),
    }
}

/// The mesh's name when its object has none: its folder's.
fn folder_name(options: &ControlOptions) -> String {
    let path = options.directory.canonicalize().unwrap_or_else(|_| options.directory.clone());
    path.file_name().map_or_else(|| "mesh".into(), |n| n.to_string_lossy().into_owned())
}

/// The trust domain is settled once, at the first start: certificates already carry it.
fn trust_domain(options: &ControlOptions) -> anyhow::Result<String> {
    let bytes = std::fs::read(options.directory.join("mesh.yaml")).unwrap_or_default();
    let cluster = options.cluster.as_str().into();
    let decoding = fairlead_resources::decode(&cluster, &"mesh.yaml".into(), &bytes);
    let mesh = decoding.objects.into_iter().find_map(|d| match d.object {
        fairlead_resources::Object::Mesh(mesh) => Some(mesh),
        _ => None,
    });
    let settings =
        fairlead_resolve::settings(&folder_name(options), mesh.as_ref(), &BTreeSet::from([cluster.clone()]), &[]);
    Ok(settings.mesh.trust_domain_of(&cluster))
}

fn watch_objects(options: &ControlOptions, events: &mpsc::UnboundedSender<Event>) {
    let folder = options.directory.join("clusters").join(&options.cluster);
    let reader = DirectoryReader::new(options.cluster.as_str().into(), &options.directory, &folder);
    let (states, mut received) = mpsc::channel(4);
    tokio::spawn(watch(reader, states));
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(objects) = received.recv().await {
            if events.send(Event::Objects(objects)).is_err() {
                return;
            }
        }
    });
}

async fn watch_mesh(path: PathBuf, events: mpsc::UnboundedSender<Event>) {
    let mut last = None;
    loop {
        let bytes = tokio::fs::read(&path).await.ok();
        if last.as_ref() != Some(&bytes) {
            last = Some(bytes.clone());
            if events.send(Event::MeshFile(bytes)).is_err() {
                return;
            }
        }
        tokio::time::sleep(MESH_POLL).await;
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
