//! Where a lab keeps its files.
//!
//! Invariant: everything is below one directory that belongs to the user alone; Unix socket paths stay under the kernel's limit of
//! 107 bytes as long as the directory's own path is under 60.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The state directory of one lab.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directory, readable by its user only.
    pub fn create(root: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))?;
        let root = root.canonicalize()?;
        let layout = Self { root };
        for folder in ["answers", "proxies"] {
            std::fs::create_dir_all(layout.root.join(folder))?;
        }
        Ok(layout)
    }

    /// The directory of a lab that exists already.
    pub fn existing(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The whole.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The lab's own control socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("lab.sock")
    }

    /// State of a control plane.
    pub fn control(&self, cluster: &str) -> PathBuf {
        self.root.join(cluster).join("state")
    }

    /// Admin socket of a control plane.
    pub fn admin(&self, cluster: &str) -> PathBuf {
        self.root.join(cluster).join("control.sock")
    }

    /// The CA that a control plane is given.
    pub fn cacerts(&self, cluster: &str) -> PathBuf {
        self.root.join(cluster).join("cacerts")
    }

    /// The CA of servers outside.
    pub fn outside(&self) -> PathBuf {
        self.root.join("outside")
    }

    /// State of a proxy. `owner` is a name of the plan.
    pub fn proxy(&self, owner: &str) -> PathBuf {
        self.root.join("proxies").join(owner.replace(['/', '@', ':'], "_"))
    }

    /// The file that tells a program how to answer.
    pub fn answers(&self, workload: &str) -> PathBuf {
        self.root.join("answers").join(workload.replace('/', "_"))
    }
}
