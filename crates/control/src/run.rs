//! Starts a control plane: store, authority, owner, listeners; and its own certificate's renewal.
//!
//! Invariant: it comes up whatever its peers do; it is ready when its own objects were read.

use crate::admin::{self, Admin};
use crate::authority::{Authority, Opening, cacerts};
use crate::caller::accept;
use crate::certificates::Issuer;
use crate::connections::Connections;
use crate::discovery::Streams;
use crate::event::Event;
use crate::joining::Acceptor;
use crate::lines::{Holder, Lines};
use crate::listen::listen;
use crate::load_balancers;
use crate::mesh_file::MeshFile;
use crate::options::ControlOptions;
use crate::owner::{Owner, Published};
use crate::peers::Peers;
use crate::publisher::Publisher;
use crate::replicas::{Direct, Replicas};
use crate::reports::Sink;
use crate::source::Source;
use crate::status::{self, Status};
use crate::store::Store;
use crate::webhook;
use crate::world::World;
use anyhow::Context as _;
use fairlead_model::settings::Trust;
use fairlead_proto::certificates::CertificatesServer;
use fairlead_proto::join::JoinServer;
use fairlead_proto::reports::ReportsServer;
use fairlead_resources::fairlead::Admission;
use fairlead_xds::server::{DiscoveryService, ServiceConfig, builder};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

/// Streams get this long to end by themselves when the process is told to.
const DRAIN: Duration = Duration::from_secs(2);

/// Sockets that are open already.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Proxies and peers.
    pub proxies: Vec<TcpListener>,
    /// `/ready` and `/metrics`.
    pub status: Option<TcpListener>,
    /// Admission webhooks.
    pub webhook: Option<TcpListener>,
}

impl Listeners {
    async fn open(options: &ControlOptions) -> anyhow::Result<Self> {
        let mut listeners = Self::default();
        for address in &options.listen {
            listeners.proxies.push(listen(*address).await?);
        }
        if let Some(address) = &options.status {
            listeners.status = Some(listen(*address).await?);
        }
        if let Some(address) = &options.webhook {
            listeners.webhook = Some(listen(*address).await?);
        }
        Ok(listeners)
    }
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: ControlOptions) -> anyhow::Result<()> {
    let listeners = Listeners::open(&options).await?;
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
    listeners: Listeners,
    end: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    // Without one of these the process would look alive and do half of its work.
    let mut vital = JoinSet::new();
    let status = Status::default();
    if let Some(listener) = listeners.status {
        vital.spawn(status::serve(status.clone(), listener));
    }
    let mut end = std::pin::pin!(end);
    let store = Arc::new(Store::open(&options.state)?);
    let cluster = options.cluster.as_str().into();
    let mesh_file = MeshFile::load(&cluster, &store)?;
    let source = tokio::select! {
        opened = Source::open(&options, &mesh_file, &store, &status, &mut vital) => opened?,
        () = &mut end => return Ok(()),
    };
    let plugged_in = options.cacerts.as_deref().map(cacerts).transpose()?;
    let kept = match source.kubernetes() {
        Some(kubernetes) => tokio::select! {
            kept = kubernetes.kept(&store, &status, plugged_in.as_ref()) => Some(kept?),
            () = &mut end => return Ok(()),
        },
        None => None,
    };
    let Trusting { domain, shared, approve } = trusting(&options, &source);
    let opening = Opening {
        cluster: &options.cluster,
        trust_domain: &domain,
        shared,
        approve,
        cacerts: plugged_in.as_ref().or(kept.as_ref().and_then(|kept| kept.cacerts.as_ref())),
        certificate_lifetime: options.certificate_lifetime,
        advertise: &options.advertise,
    };
    let authority = Arc::new(Authority::open(&opening, store.clone()).context("the certificate authority")?);
    let (events, inbox) = mpsc::unbounded_channel();
    if let Some(listener) = listeners.webhook {
        webhook::start(listener, options.injection.clone(), &authority, source.kubernetes(), &events, &mut vital)?;
    }
    let mut world = World::new(authority.clone(), source.name.clone(), options.timings)?;
    // Objects may be read before the file is read again: nothing is ever resolved by the defaults of a mesh that has settings.
    world.mesh.clone_from(&source.mesh);
    world.system_namespace = source.kubernetes().map(|kubernetes| kubernetes.namespace.clone());
    vital.spawn(load_balancers::follow(world.names.subscribe(), events.clone()));
    let direct = Arc::new(Direct::default());
    // What is done at the API server of a Kubernetes cluster begins here.
    let reviewer = source.kubernetes().map(|kubernetes| kubernetes.reviewer(&store, &mut vital)).transpose()?;
    let duties = source.kubernetes().zip(kept).map(|(k, kept)| k.begin(kept, &authority, &events, &mut vital));
    source.follow(&store, world.keeper.clone(), &events, &mut vital)?;
    let connections = Arc::new(Connections::default());
    let (into, accepted) = mpsc::channel(64);
    let lines = Arc::new(Lines::default());
    let holder = Holder { authority: authority.clone(), connections: connections.clone(), into: into.clone() };
    let owner = Owner {
        publisher: Publisher::new(world.memo.clone())?,
        peers: Peers::new(authority.clone(), world.keeper.clone(), events.clone(), lines.clone(), holder),
        replicas: Replicas::new(authority.clone(), direct.clone()),
        world,
        mesh_file,
        events: inbox,
        published: Published::default(),
    };
    status.owned(events.clone());
    vital.spawn(owner.run());
    vital.spawn(renew(authority.clone()));
    vital.spawn(tell_of_trust(authority.clone(), events.clone()));

    let trusted = authority.clone();
    vital.spawn(connections.clone().follow(authority.trust_changes(), move || trusted.trust()));
    for listener in listeners.proxies {
        tracing::info!(address = ?listener.local_addr(), cluster = options.cluster, "serving proxies and peers");
        vital.spawn(accept(listener, authority.clone(), connections.clone(), lines.clone(), into.clone()));
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
        .add_service(CertificatesServer::new(Arc::new(Issuer::new(authority.clone(), events.clone(), reviewer))))
        .add_service(ReportsServer::new(Arc::new(Sink::new(authority.clone(), events.clone(), direct))))
        .add_service(JoinServer::new(Arc::new(Acceptor::new(authority.clone(), changed))));
    let incoming = tokio_stream::wrappers::ReceiverStream::new(accepted);
    let socket = admin::bind(&options.admin)?;
    let admin = Admin { authority, events };
    tokio::select! {
        served = router.serve_with_incoming(incoming) => served?,
        served = admin::serve(admin, socket) => served?,
        defect = defect(&mut vital) => anyhow::bail!("a task that nothing works without has ended: {defect}"),
        () = &mut end => {
            let _left = drain.run(DRAIN).await;
        }
    }
    if let Some(duties) = duties {
        duties.end().await;
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

/// What must be known of trust before objects are read. The domain is settled at the start: certificates carry it.
struct Trusting {
    domain: String,
    shared: bool,
    approve: bool,
}

fn trusting(options: &ControlOptions, source: &Source) -> Trusting {
    let cluster = fairlead_model::ClusterId::from(options.cluster.as_str());
    let mesh = source.mesh.as_ref();
    let approve = mesh.is_some_and(|m| m.spec.admission == Some(Admission::Approve));
    let settings = fairlead_resolve::settings(&source.name, mesh, &BTreeSet::from([cluster.clone()]), &[]);
    Trusting { domain: settings.mesh.trust_domain_of(&cluster), shared: settings.mesh.trust == Trust::Shared, approve }
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
