//! `mesh.yaml` of the mesh directory: what it says, and what it last said well.
//!
//! Invariant: a file that cannot be read, or not be understood, keeps the last good settings, also over a restart; a file that is gone
//! means defaults.

use crate::codes::{MESH_UNREADABLE, STALE_OBJECT};
use crate::store::{Bucket, Store};
use crate::world::World;
use fairlead_model::{ClusterId, Diagnostic, ObjectKey, Origin};
use fairlead_resources::fairlead::Mesh;
use fairlead_resources::{Object, decode};
use std::path::Path;

/// Name of the file, and its key in the store; no cluster's file is called so.
pub const NAME: &str = "mesh.yaml";
/// Bytes of a mesh file that are looked at.
const MOST: usize = fairlead_resources::limits::FILE_BYTES;

pub struct MeshFile {
    last_good: Option<Mesh>,
}

impl MeshFile {
    pub fn load(cluster: &ClusterId, store: &Store) -> anyhow::Result<Self> {
        let stored = store.load_bytes(Bucket::Mesh, NAME)?;
        Ok(Self { last_good: stored.and_then(|bytes| parse(cluster, &bytes).0) })
    }

    /// What holds before the owner runs: the file, else what was last good.
    pub fn first(&self, cluster: &ClusterId, directory: &Path) -> Option<Mesh> {
        let found = read(&directory.join(NAME)).transpose()?;
        found.ok().and_then(|bytes| parse(cluster, &bytes).0).or_else(|| self.last_good.clone())
    }

    /// Takes the file as it is now into the world.
    pub fn take(&mut self, world: &mut World, found: Result<Option<Vec<u8>>, String>) {
        let at = |world: &World| {
            let object = ObjectKey::new(world.cluster.clone(), "Mesh", "", world.name.as_str());
            Origin { object, path: String::new(), file: NAME.into(), line: 1 }
        };
        world.mesh_diagnostics.clear();
        let bytes = match found {
            Ok(bytes) => bytes,
            Err(why) => {
                let held = if self.last_good.is_some() { "the last good settings serve" } else { "the defaults hold" };
                let message = format!("mesh.yaml cannot be read: {why}; {held}");
                let hint = "let the control plane's user read it; or remove it, if the defaults are meant";
                world.mesh_diagnostics.push(Diagnostic::error(MESH_UNREADABLE, at(world), message).hint(hint));
                return;
            }
        };
        let Some(bytes) = bytes else {
            world.mesh = None;
            self.last_good = None;
            world.keeper.remove(Bucket::Mesh, NAME);
            return;
        };
        let (mesh, diagnostics) = parse(&world.cluster, &bytes);
        world.mesh_diagnostics = diagnostics;
        if mesh.is_some() {
            world.keeper.save_bytes(Bucket::Mesh, NAME, bytes);
            self.last_good = mesh;
        } else if self.last_good.is_some() {
            let message = "mesh.yaml as it is written now was refused; the last good settings serve (stale-object)";
            let stale =
                Diagnostic::warning(STALE_OBJECT, at(world), message).hint("correct what its other diagnostics name");
            world.mesh_diagnostics.push(stale);
        }
        world.mesh = self.last_good.clone();
    }
}

/// The file, cut where it is too large to be one; none where there is none.
///
/// # Errors
/// Whatever else hinders reading says nothing of what the mesh shall be.
pub fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(MOST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn parse(cluster: &ClusterId, bytes: &[u8]) -> (Option<Mesh>, Vec<Diagnostic>) {
    let decoding = decode(cluster, &NAME.into(), bytes);
    let mesh = decoding.objects.into_iter().filter(|d| !d.refused).find_map(|d| match d.object {
        Object::Mesh(mesh) => Some(mesh),
        _ => None,
    });
    (mesh, decoding.diagnostics)
}
