//! Every limit on what a stranger can write into a mesh directory or an API server, in one place.
//!
//! Never read a size, count or depth limit from anywhere else: a limit that is not in this table does not exist.
//! Invariant: exceeding a limit costs the file or object it is in and yields a diagnostic; it never costs the rest.

/// Bytes in one YAML file. A cluster's exported configuration of ten thousand objects stays below it; more is an accident.
pub const FILE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes in one object (one YAML document, or one item of a `List`): etcd's own order of magnitude for a request (1.5 MiB).
pub const OBJECT_BYTES: usize = 1024 * 1024;

/// Objects in one directory cluster.
pub const OBJECTS_PER_CLUSTER: usize = 10_000;

/// Nodes (mappings, sequences and scalars) one document may compose to, alias copies included.
/// 4 MiB of `kubectl get -o yaml` (one `List`) is about 350,000 nodes; an alias bomb passes this in a few steps.
pub const DOCUMENT_NODES: usize = 1_000_000;

/// Bytes that alias copies may add to one document: as much again as the largest object.
pub const ALIAS_BYTES: usize = OBJECT_BYTES;

/// Depth of nesting in one document. The deepest useful object (a WorkloadGroup probe) has about 12 levels; the composer
/// and everything after it recurse at most this deep.
pub const DOCUMENT_DEPTH: usize = 64;

/// Findings reported for one object; a generated object with the same mistake a thousand times is reported this often.
pub const FINDINGS_REPORTED: usize = 64;

/// Findings kept of one object. What becomes of a guard depends on all of its findings, so more are kept than reported; a
/// guard with more than this is closed for its whole namespace.
pub const FINDINGS_KEPT: usize = 4096;

/// Field positions remembered for one object (origins in `explain`). Beyond it the line of the nearest parent is used.
pub const POSITIONS_PER_OBJECT: usize = 20_000;

/// Characters in a regular expression; Istio refuses longer ones.
pub const REGEX_CHARS: usize = 1024;

/// Bytes a compiled regular expression may take; keeps `(a{1000}){1000}` from filling memory.
pub const REGEX_COMPILED_BYTES: usize = 1024 * 1024;

/// Bytes of a direct response body; Istio refuses longer ones.
pub const DIRECT_RESPONSE_BYTES: usize = 1024 * 1024;

/// Bytes of a direct response body above which Istio warns.
pub const DIRECT_RESPONSE_WARNING_BYTES: usize = 100 * 1024;

/// Characters in a `ClusterId`: it becomes part of host names, certificate names and metric labels.
pub const CLUSTER_ID_CHARS: usize = 32;
