//! Where a cluster's objects come from: a directory or an API server, watched live, as one stream of states.
//!
//! Decodes what changed and keeps the rest; never resolves anything. Invariants: a source that has never answered is unknown,
//! not empty; one that stops answering keeps its last objects, marked stale; of a refused object the last good version stays.

mod directory;
mod kubernetes;
mod objects;
mod watch;

pub use directory::DirectoryReader;
pub use kubernetes::{Keep, KubernetesSource, Timings as KubernetesTimings, watch_kubernetes};
pub use objects::{ClusterObjects, SourceObject};
pub use watch::watch;
