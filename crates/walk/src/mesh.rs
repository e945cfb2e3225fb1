//! A mesh directory, read and resolved: every cluster as its own control plane would see it.
//!
//! Invariant: summaries pass between clusters exactly as the peering stream carries them; no cluster sees another's objects.

use crate::conditions::Conditions;
use crate::world::World;
use fairlead_calls::{Given, MeshDirectory, Names, SourceFile, Table, TableError};
use fairlead_model::{ClusterId, Diagnostic, ObjectKey, Origin, ResolvedMesh, WorkloadRef};
use fairlead_resolve::{ClusterInput, ClusterState, ObjectRef, Observed, Settings};
use fairlead_resources::{Decoded, Object, codes, decode, fairlead as written};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The ports that objects declare of workloads that the lab runs, served by a Service or not.
pub(crate) type DeclaredPorts = BTreeMap<WorkloadRef, BTreeSet<u16>>;

/// What Peer objects say: of which namespaces a cluster takes another's identities. Nothing: of all.
pub(crate) type PeerBounds = BTreeMap<(ClusterId, ClusterId), BTreeSet<String>>;

/// What a world needs to know of objects beside what was resolved.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub ports: DeclaredPorts,
    pub bounds: PeerBounds,
    /// Clusters that a Peer object of another revokes.
    pub revoked: BTreeSet<ClusterId>,
}

/// A mesh directory in memory.
pub struct Mesh {
    pub name: String,
    pub table: Table,
    /// Of every object and reference, sorted.
    pub diagnostics: Vec<Diagnostic>,
    pub(crate) clusters: BTreeMap<ClusterId, Cluster>,
    pub(crate) names: Names,
    written: Arc<Written>,
}

pub(crate) struct Cluster {
    objects: Vec<(Decoded, Arc<str>)>,
    settings: Settings,
}

/// Why a mesh directory could not be read at all (exit code 2).
#[derive(Debug)]
pub enum OpenError {
    Directory(std::io::Error),
    Tables(Vec<TableError>),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(e) => write!(f, "cannot read the mesh directory: {e}"),
            Self::Tables(errors) => {
                for (i, error) in errors.iter().enumerate() {
                    let separator = if i == 0 { "" } else { "\n" };
                    write!(f, "{separator}{error}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl Mesh {
    /// Reads objects and call tables.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let directory = MeshDirectory::read(path).map_err(OpenError::Directory)?;
        let table = Table::read(&directory.tables).map_err(OpenError::Tables)?;
        let mut mesh = Self::objects(&directory);
        mesh.table = table;
        Ok(mesh)
    }

    /// Reads objects only: what `analyze` needs.
    pub fn open_objects(path: &Path) -> Result<Self, OpenError> {
        MeshDirectory::read(path).map(|directory| Self::objects(&directory)).map_err(OpenError::Directory)
    }

    fn objects(directory: &MeshDirectory) -> Self {
        let mut diagnostics: Vec<Diagnostic> = directory.refused.iter().map(|(file, why)| unread(file, why)).collect();
        let written = directory.mesh.as_ref().and_then(|file| mesh_object(file, &mut diagnostics));
        let mut members: BTreeSet<ClusterId> = directory.clusters.keys().map(|c| c.as_str().into()).collect();
        if let Some(mesh) = &written {
            members.extend(mesh.spec.clusters.keys().map(|c| c.as_str().into()));
        }
        let mut decoded: BTreeMap<ClusterId, Vec<(Decoded, Arc<str>)>> =
            members.iter().map(|c| (c.clone(), Vec::new())).collect();
        for (cluster, files) in &directory.clusters {
            let cluster: ClusterId = cluster.as_str().into();
            if let Some(problem) = ClusterId::problem(cluster.as_str()) {
                let at = origin(&cluster, "Folder", cluster.as_str(), "");
                diagnostics.push(Diagnostic::error(codes::FILE, at, problem).hint("rename the folder"));
            }
            let objects = decode_cluster(&cluster, files, &mut diagnostics);
            decoded.insert(cluster, objects);
        }
        let mut clusters = BTreeMap::new();
        for (cluster, objects) in decoded {
            let refs: Vec<ObjectRef<'_>> = objects.iter().map(|(decoded, file)| ObjectRef { decoded, file }).collect();
            let settings = fairlead_resolve::settings(&directory.name, written.as_ref(), &members, &refs);
            clusters.insert(cluster, Cluster { objects, settings });
        }
        let mut mesh = Self {
            written: Arc::new(Written::of(&clusters)),
            name: written.map_or_else(|| directory.name.clone(), |m| m.metadata.name.clone()),
            table: Table::default(),
            diagnostics: Vec::new(),
            clusters,
            names: Names::default(),
        };
        let world = mesh.build(Conditions::default(), &mut diagnostics);
        mesh.names = world.names();
        diagnostics.sort();
        diagnostics.dedup();
        mesh.diagnostics = diagnostics;
        mesh
    }

    /// Names that tables may use.
    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn cluster_ids(&self) -> impl Iterator<Item = &ClusterId> {
        self.clusters.keys()
    }

    /// The mesh in the state that `given` describes. `Err`: it names something unknown.
    pub fn world(&self, given: &Given) -> Result<World, String> {
        let conditions = Conditions::resolve(given, self)?;
        Ok(self.build(conditions, &mut Vec::new()))
    }

    fn build(&self, mut conditions: Conditions, diagnostics: &mut Vec<Diagnostic>) -> World {
        conditions.revoked.extend(self.written.revoked.iter().cloned());
        let states = self.states(&conditions, diagnostics);
        let mut meshes: BTreeMap<ClusterId, Arc<ResolvedMesh>> = BTreeMap::new();
        for (cluster, state) in &states {
            let peers = conditions.peers(cluster, &states);
            let (mesh, found) = fairlead_resolve::view(state, &peers, 1);
            diagnostics.extend(found);
            meshes.insert(cluster.clone(), Arc::new(mesh));
        }
        World::new(meshes, conditions, self.written.clone())
    }

    fn states(&self, conditions: &Conditions, diagnostics: &mut Vec<Diagnostic>) -> BTreeMap<ClusterId, ClusterState> {
        let mut states = BTreeMap::new();
        for (id, cluster) in &self.clusters {
            let objects: Vec<ObjectRef<'_>> =
                cluster.objects.iter().map(|(decoded, file)| ObjectRef { decoded, file }).collect();
            let observed = Observed {
                health: conditions.health(id, cluster.settings.mesh.profile),
                state: conditions.state(id),
                incarnation: 1,
                version: env!("CARGO_PKG_VERSION").into(),
                ..Observed::default()
            };
            let input =
                ClusterInput { cluster: id, settings: &cluster.settings, objects: &objects, observed: &observed };
            let (state, found) = fairlead_resolve::cluster(&input);
            diagnostics.extend(found);
            states.insert(id.clone(), state);
        }
        states
    }
}

impl Written {
    fn of(clusters: &BTreeMap<ClusterId, Cluster>) -> Self {
        let mut written = Self { ports: declared_ports(clusters), ..Self::default() };
        for (cluster, read) in clusters {
            for (decoded, _) in &read.objects {
                let Object::Peer(peer) = &decoded.object else { continue };
                let other = ClusterId::from(&*decoded.key.name);
                if other == *cluster {
                    continue;
                }
                if peer.spec.revoked {
                    written.revoked.insert(other.clone());
                }
                if let Some(namespaces) = &peer.spec.namespaces {
                    written.bounds.insert((cluster.clone(), other), namespaces.iter().cloned().collect());
                }
            }
        }
        written
    }
}

fn declared_ports(clusters: &BTreeMap<ClusterId, Cluster>) -> DeclaredPorts {
    let mut found = DeclaredPorts::new();
    for (cluster, read) in clusters {
        for (decoded, _) in &read.objects {
            let key = |name: String| WorkloadRef {
                cluster: cluster.clone(),
                namespace: decoded.key.namespace.clone().into(),
                name: name.into(),
            };
            let name = decoded.key.name.to_string();
            match &decoded.object {
                Object::WorkloadEntry(entry) => {
                    let ports = entry.spec.ports.values().filter_map(|port| u16::try_from(*port).ok()).collect();
                    found.insert(key(name), ports);
                }
                Object::Workload(process) => {
                    let tcp = process.spec.ports.iter().filter(|port| !port.protocol.eq_ignore_ascii_case("udp"));
                    let ports: BTreeSet<u16> = tcp.map(|port| port.port).collect();
                    for replica in 0..process.spec.replicas.unwrap_or(1) {
                        found.insert(key(format!("{name}-{replica}")), ports.clone());
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn decode_cluster(
    cluster: &ClusterId,
    files: &[SourceFile],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<(Decoded, Arc<str>)> {
    let mut objects: Vec<(Decoded, Arc<str>)> = Vec::new();
    let mut seen: BTreeMap<ObjectKey, (Arc<str>, u32)> = BTreeMap::new();
    for file in files {
        let name: Arc<str> = file.path.as_str().into();
        let decoding = decode(cluster, &name, &file.bytes);
        diagnostics.extend(decoding.diagnostics);
        for decoded in decoding.objects {
            if let Some((other, line)) = seen.get(&decoded.key) {
                let message = format!("{} is written twice: it already stands in {other}:{line}", decoded.key);
                let hint = "remove one of the two; the first file in order holds";
                diagnostics.push(Diagnostic::error(codes::DUPLICATE, decoded.origin("", &name), message).hint(hint));
                continue;
            }
            seen.insert(decoded.key.clone(), (name.clone(), decoded.line));
            objects.push((decoded, name.clone()));
        }
    }
    objects
}

fn mesh_object(file: &SourceFile, diagnostics: &mut Vec<Diagnostic>) -> Option<written::Mesh> {
    let decoding = decode(&ClusterId::default(), &file.path.as_str().into(), &file.bytes);
    diagnostics.extend(decoding.diagnostics);
    decoding.objects.into_iter().find_map(|d| match d.object {
        Object::Mesh(mesh) => Some(mesh),
        _ => None,
    })
}

fn unread(file: &str, why: &str) -> Diagnostic {
    let cluster = file.strip_prefix("clusters/").and_then(|f| f.split('/').next()).unwrap_or_default();
    Diagnostic::error(codes::FILE, origin(&cluster.into(), "File", file, file), why)
        .hint("make it readable, or split it")
}

fn origin(cluster: &ClusterId, kind: &str, name: &str, file: &str) -> Origin {
    Origin { object: ObjectKey::new(cluster.clone(), kind, "", name), path: String::new(), file: file.into(), line: 1 }
}
