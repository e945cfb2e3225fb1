//! Where this cluster's objects come from, opened: what holds before the owner runs, and who tells it of changes.
//!
//! Invariant: the mesh's settings are known before the authority is opened, since certificates carry its trust domain; where they
//! cannot be known, the control plane says why and waits, and never makes up others.

mod advertise;
mod kubernetes;
mod mesh_object;

use crate::event::Event;
use crate::keeper::Keeper;
use crate::kubernetes::Kubernetes;
use crate::last_good::LastGood;
use crate::mesh_file::{self, MeshFile};
use crate::options::{self, ControlOptions};
use crate::status::Status;
use crate::store::Store;
use fairlead_model::ClusterId;
use fairlead_resources::fairlead::Mesh;
use fairlead_sources::{DirectoryReader, watch};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often `mesh.yaml` is looked at; it changes rarely and is small.
const MESH_POLL: Duration = Duration::from_millis(500);

pub struct Source {
    /// The mesh's name when its object has none.
    pub name: String,
    /// The mesh's settings at the start.
    pub mesh: Option<Mesh>,
    cluster: ClusterId,
    from: From,
}

enum From {
    Directory(PathBuf),
    Kubernetes {
        kubernetes: Kubernetes,
        mesh: Box<Mesh>,
        /// What peers are told to dial, if that was given at the start.
        advertise: Vec<String>,
    },
}

impl Source {
    pub async fn open(
        options: &ControlOptions,
        mesh_file: &MeshFile,
        store: &Store,
        status: &Status,
        vital: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let cluster = ClusterId::from(options.cluster.as_str());
        match &options.source {
            options::Source::Directory(directory) => Ok(Self {
                name: folder_name(directory),
                mesh: mesh_file.first(&cluster, directory),
                cluster,
                from: From::Directory(directory.clone()),
            }),
            options::Source::Kubernetes(kubernetes) => {
                let kubernetes = Kubernetes::open(&options.cluster, kubernetes, vital).await?;
                let kept = kubernetes::kept_mesh(&cluster, store)?;
                let mesh = mesh_object::at_start(&kubernetes, &cluster, kept, status).await?;
                let advertise = options.advertise.clone();
                let from = From::Kubernetes { kubernetes, mesh: Box::new(mesh.clone()), advertise };
                Ok(Self { name: mesh_object::NAME.into(), mesh: Some(mesh), cluster, from })
            }
        }
    }

    /// The API server, if the cluster has one.
    pub fn kubernetes(&self) -> Option<&Kubernetes> {
        match &self.from {
            From::Directory(_) => None,
            From::Kubernetes { kubernetes, .. } => Some(kubernetes),
        }
    }

    /// Tells the owner of every change from now on.
    pub fn follow(
        self,
        store: &Store,
        keeper: Arc<Keeper>,
        events: &mpsc::UnboundedSender<Event>,
        vital: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        match self.from {
            From::Directory(directory) => {
                let last_good = LastGood::load(self.cluster.clone(), directory.clone(), store)?;
                watch_directory(self.cluster, &directory, last_good, keeper, events);
                vital.spawn(watch_mesh(directory.join(mesh_file::NAME), events.clone()));
                Ok(())
            }
            From::Kubernetes { kubernetes, mesh, advertise } => {
                kubernetes::follow(kubernetes, *mesh, advertise, store, keeper, events, vital)
            }
        }
    }
}

/// The mesh's name when its object has none: its folder's.
fn folder_name(directory: &Path) -> String {
    let path = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    path.file_name().map_or_else(|| "mesh".into(), |n| n.to_string_lossy().into_owned())
}

fn watch_directory(
    cluster: ClusterId,
    directory: &Path,
    mut last_good: LastGood,
    keeper: Arc<Keeper>,
    events: &mpsc::UnboundedSender<Event>,
) {
    let folder = directory.join("clusters").join(cluster.as_str());
    let reader = DirectoryReader::new(cluster, directory, &folder);
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
        let Ok(read) = tokio::task::spawn_blocking(move || mesh_file::read(&looked_at)).await else { return };
        let found = read.map_err(|e| e.to_string());
        if last.as_ref() != Some(&found) {
            if let Err(why) = &found {
                tracing::error!("{}: {why}; what it said last holds until it can be read", path.display());
            }
            last = Some(found.clone());
            if events.send(Event::MeshFile(found)).is_err() {
                return;
            }
        }
        tokio::time::sleep(MESH_POLL).await;
    }
}
